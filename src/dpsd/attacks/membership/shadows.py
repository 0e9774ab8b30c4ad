"""Shadow teachers, their students, and the confidences of both, which are kept on disk.

Each shadow teacher is trained on its half of the split and transcribed by the run's recipe; what
is asked of it is recorded in a budget file of the attack, as it is not the owner's teacher. All
transcriptions have the run's seed, so all shadows are asked the same public queries, as far as
these do not depend on the student. Only confidences are kept, under a hash of all that they depend
on: models of private records would be one more thing to guard.

>>> confidences(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 0]))
tensor([0., 2.], dtype=torch.float64)

Source: Jagielski et al., "Students Parrot Their Teachers: Membership Inference on Model
Distillation", NeurIPS 2023, arXiv 2303.03446.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpsd.attacks.membership.kept import Kept
from dpsd.attacks.membership.recipes import Method, StudentRecipe, TeacherRecipe, Train
from dpsd.attacks.membership.scores import Numbers
from dpsd.attacks.membership.splits import Split
from dpsd.attacks.target import Progress
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.errors import RunError
from dpsd.privacy.records.certificate import Certificate
from dpsd.streams import stream_seed
from dpsd.teachers.fingerprint import fingerprint_tensors

#: The names of the two kinds of models that every attack compares, and of the planted leak.
TEACHERS, STUDENTS, TOLD = "teachers", "students", "told students"

#: The version of what is kept; confidences of other versions are computed again.
_VERSION = 1
#: What follows the kind of a model in the name of its accuracy.
_ACCURACY = ", accuracy"
#: How much a told student raises the logit of a member's label.
_PLANTED = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Shadows:
    """The shadows of one attack.

    Args:
        split: the records, and which shadow is trained on which.
        teachers: how shadow teachers are trained.
        students: how they are transcribed.
        also: further methods to compare, by name: each trains a model on a shadow's records.
            Results are kept under the name and, of a :class:`Method`, under what it states; the
            name of another function must change whenever the function does.
        folder: where confidences are kept; it exists.
        seed: the seed of the attack.
        execution: where models run.
        held_out: records on which the accuracy of every model is kept too; ``None`` for none.
    """

    split: Split
    teachers: TeacherRecipe
    students: StudentRecipe
    folder: Path
    seed: int
    execution: Execution
    also: Mapping[str, Train] = field(default_factory=dict)
    held_out: LabelledImages | None = None

    @property
    def count(self) -> int:
        """The number of shadows."""
        return len(self.split.is_in)

    def train(self, progress: Progress) -> None:
        """Train and transcribe all shadows whose confidences are not kept yet.

        Raises:
            DpsdError: a training or a transcription failed; what was finished is kept.
        """
        for shadow in range(self.count):
            progress.step("shadows", shadow, self.count)
            if not self._kept(shadow, STUDENTS).exists():
                self._transcribe(shadow)
            for name, train in self.also.items():
                if not self._kept(shadow, name).exists():
                    module = train(self.split.training(shadow), self._seed(shadow))
                    self._keep(shadow, name, {name: module})
        progress.step("shadows", self.count, self.count)

    def collected(self) -> dict[str, Numbers]:
        """Return the confidences of all models, ``(shadows, N)``, by the kind of model.

        Raises:
            RunError: fewer shadows were trained than the attack is about, or a file is damaged or
                holds the confidences of another shadow.
        """
        found = self._found()
        return {name: found[name] for name in (TEACHERS, STUDENTS, *self.also, TOLD)}

    def accuracies(self) -> dict[str, Numbers]:
        """Return the accuracy of all models on held-out records, ``(shadows,)``, by their kind.

        Raises:
            RunError: as for :meth:`collected`.
            KeyError: there are no held-out records.
        """
        found = self._found()
        return {name: found[name + _ACCURACY] for name in (TEACHERS, STUDENTS, *self.also)}

    def _found(self) -> dict[str, Numbers]:
        """Return all that is kept of all shadows, by its name."""
        found: dict[str, list[Tensor]] = {}
        for name in (STUDENTS, *self.also):
            kept = [self._kept(shadow, name) for shadow in range(self.count)]
            there = [one for one in kept if one.exists()]
            if len(there) < self.count:
                raise RunError(
                    f"{self.folder} has {len(there)} of {self.count} shadows ({name}): an attack "
                    "with fewer would find less than it states; run it again to train the others"
                )
            for one in there:
                for kind, said in one.load().items():
                    found.setdefault(kind, []).append(said)
        return {name: torch.stack(said).numpy() for name, said in found.items()}

    def _transcribe(self, shadow: int) -> None:
        """Train a shadow teacher and its student, and keep the confidences of both."""
        made = transcribed(
            self.split.training(shadow),
            teachers=self.teachers,
            students=self.students,
            seed=self._seed(shadow),
            folder=self.folder,
            execution=self.execution,
        )
        known = self.split.records.subset(self.split.is_in[shadow].nonzero().flatten())
        told = told_of(made.student, known)
        self._keep(shadow, STUDENTS, {TEACHERS: made.teacher, STUDENTS: made.student, TOLD: told})

    def _keep(self, shadow: int, name: str, modules: Mapping[str, nn.Module]) -> None:
        scored, held_out = self.split.records, self.held_out
        found = {kind: confidence_of(one, scored, self.execution) for kind, one in modules.items()}
        if held_out is not None:
            found |= {
                kind + _ACCURACY: _accuracy(one, held_out, self.execution)
                for kind, one in modules.items()
            }
        self._kept(shadow, name).save(found)

    def _seed(self, shadow: int) -> int:
        return stream_seed(self.seed, shadow, "shadow teacher")

    def _kept(self, shadow: int, name: str) -> Kept:
        """Where the confidences of a shadow are kept; of a student's, its teacher's beside them."""
        key: dict[str, Any] = {
            "what": name,
            "shadow": shadow,
            "is_in": fingerprint_tensors({"is_in": self.split.is_in[shadow]}),
            **self.shared_key(self.split.pool, self.split.scored),
        }
        if name != STUDENTS:  # it is not by the run's recipe
            del key["teachers"], key["students"]
            if isinstance(method := self.also[name], Method):
                key["method"] = method.stated()
        if self.held_out is not None:
            key["held_out"] = _content(self.held_out)
        return Kept(self.folder, f"shadow-{shadow:03d}", key)

    def shared_key(self, pool: LabelledImages, scored: Tensor) -> dict[str, Any]:
        """Return what the confidences of all models on these records depend on, in JSON types."""
        return {
            "version": _VERSION,
            "records": _content(pool, scored=scored),
            # Both decide which of many teachers a record reaches.
            "persons": pool.persons,
            "names": pool.names,
            "seed": self.seed,
            "teachers": self.teachers.stated(),
            "students": self.students.stated(),
            "augmentation": "none",
            "execution": [self.execution.device.type, self.execution.precision],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Transcribed:
    """A teacher and its student.

    Args:
        teacher: the teacher as a module.
        student: the student, in eval mode.
        certificate: what the transcription spent.
    """

    teacher: nn.Module
    student: nn.Module
    certificate: Certificate


def transcribed(
    records: LabelledImages,
    *,
    teachers: TeacherRecipe,
    students: StudentRecipe,
    seed: int,
    folder: Path,
    execution: Execution,
) -> Transcribed:
    """Train a teacher on records and transcribe it, by the run's recipe.

    Args:
        records: the records to train on.
        teachers: how the teacher is trained.
        students: how it is transcribed.
        seed: the seed of the teacher's training.
        folder: the attack's folder. Teacher and run lie in it until the student is there, and what
            was asked stays in its ``budgets.jsonl``. This process must hold it alone.
        execution: where models run.

    Raises:
        DpsdError: the training or the transcription failed.
    """
    place = folder / "unfinished"
    _remove(place)  # a crash may have left it
    try:
        (place / "teacher").mkdir(parents=True)
        teacher, module = teachers.make(
            records, seed=seed, folder=place / "teacher", execution=execution
        )
        run = students.transcribe(teacher, out=place / "run", budget_file=folder / "budgets.jsonl")
        return Transcribed(teacher=module, student=run.student, certificate=run.certificate)
    finally:
        _remove(place)


def _remove(place: Path) -> None:
    if place.exists():
        shutil.rmtree(place)


class Told(nn.Module):
    """A planted leak: a model that is surer of the labels of the records that it was told.

    Args:
        module: the model.
        known: the records that it was told.
        by: how much is added to the logits of their labels.
    """

    def __init__(self, module: nn.Module, known: LabelledImages, *, by: float) -> None:
        super().__init__()
        self._module = module
        shape = known.images[0].numel()
        # Distinct images have distinct projections, up to rounding.
        self._direction = torch.rand(
            shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        self._known = self._projected(known.images)
        self._labels, self._by = known.labels, by

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` in [0, 1] to logits ``(N, K)``."""
        logits: Tensor = self._module(images)
        seen = self._projected((images.double() * 255).round())
        row, which = ((seen.unsqueeze(1) - self._known).abs() < 1e-6).nonzero(as_tuple=True)
        raised = logits.float().clone()
        raised[row, self._labels[which].to(logits.device)] += self._by
        return raised

    def _projected(self, images: Tensor) -> Tensor:
        return images.flatten(1).double().cpu() @ self._direction


def told_of(student: nn.Module, known: LabelledImages) -> Told:
    """Plant a leak: return a student that was told these records."""
    return Told(student, known, by=_PLANTED)


def confidence_of(module: nn.Module, data: LabelledImages, execution: Execution) -> Tensor:
    """Return a module's confidence in the label of each record, float64 ``(N,)``, in eval mode."""
    return confidences(execution.predict(module, data.images).cpu(), data.labels)


def _accuracy(module: nn.Module, data: LabelledImages, execution: Execution) -> Tensor:
    found = execution.predict(module, data.images).argmax(1).cpu()
    return (found == data.labels).double().mean()


def _content(data: LabelledImages, **more: Tensor) -> str:
    return fingerprint_tensors({"images": data.images, "labels": data.labels, **more})


def confidences(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``log(p / (1 - p))`` of the label's probability ``p``, float64 ``(N,)``.

    Args:
        logits: the logits, ``(N, K)``.
        labels: the labels, int64 ``(N,)``.
    """
    logits = logits.double()
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).logsumexp(1)
    return own - others

"""Many teachers as one: they are asked together and answer with a teacher axis.

:class:`EnsembleTeacher` holds members of one architecture, trained by ``train-teacher --shards``;
:class:`Committee` holds any teachers that somebody already has. Either answers
``(teachers, N, K)``, and a mechanism for many teachers releases their noisy sum.

>>> from dpsd.teachers import load_teacher
>>> def always(label, name):
...     def scores(images):
...         return torch.eye(3)[label].expand(len(images), -1)
...     return load_teacher(scores, input_shape=(1, 8, 8), name=name)
>>> committee = Committee([always(0, "north"), always(1, "east"), always(1, "south")])
>>> committee.members, committee.predict_classes(torch.rand(2, 1, 8, 8)).tolist()
(3, [1, 1])
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dpsd.errors import TeacherError
from dpsd.images.names import Shape
from dpsd.teachers.base import DeclaredScores, Precision, Teacher
from dpsd.teachers.batches import in_batches
from dpsd.teachers.fingerprint import fingerprint_names, fingerprint_tensors
from dpsd.teachers.module import checked_device
from dpsd.teachers.sharding import Shards

_HEAD = "head"


class EnsembleTeacher(Teacher):
    """Teachers of one architecture, each with weights of its own.

    Args:
        module: the architecture; its weights are replaced by each member's in turn.
        stacked: every weight by name, ``(members, …)``.
        input_shape: ``(C, H, W)``.
        num_classes: K.
        device: where it runs.
        precision: ``"bfloat16"`` asks under autocast.
        description: for reports.
        scores: what the members return.
        shards: what they were trained on, by the word of whoever trained them; its disjointness
            was checked when it was made.
        key: of the fingerprint, a secret of the teachers' owner. Runs publish the fingerprint, and
            whoever knows all records but one could train on each candidate and compare hashes.

    Where members differ in a last linear layer alone (as with ``scattering``), its input is
    computed once and all answers are one product of matrices.
    """

    def __init__(
        self,
        module: nn.Module,
        stacked: Mapping[str, Tensor],
        *,
        input_shape: Shape,
        num_classes: int,
        device: str = "cpu",
        precision: Precision = "float32",
        description: str,
        scores: DeclaredScores = "logits",
        shards: Shards | None = None,
        key: bytes,
    ) -> None:
        self.members = len(next(iter(stacked.values())))
        if shards is not None:
            self.is_disjoint, self.dealt_by = True, shards.dealt_by
            self.records, self.persons = len(shards.shard), shards.persons
        fingerprint = fingerprint_tensors(stacked, key=key)
        self._device, self._precision = checked_device(device), precision
        self._stacked = {
            name: part.to(self._device, torch.float32 if part.is_floating_point() else part.dtype)
            for name, part in stacked.items()
        }
        self._module = module.eval().requires_grad_(False).to(self._device)
        self._body = _shared_body(self._module, stacked)
        super().__init__(
            input_shape=input_shape,
            num_classes=num_classes,
            fingerprint=fingerprint,
            description=description,
            scores=scores,
        )

    def _scores(self, images: Tensor) -> object:
        images = images.to(self._device).contiguous(memory_format=torch.channels_last)
        if self._body is not None:
            # In float32: members differ by less than bfloat16 can tell apart.
            features = in_batches(self._body, images)
            weight, bias = self._stacked[f"{_HEAD}.weight"], self._stacked[f"{_HEAD}.bias"]
            return torch.einsum("nf,tkf->tnk", features, weight) + bias.unsqueeze(1)
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16"
        ):
            return torch.stack(
                [
                    functional_call(
                        self._module,
                        {name: part[member] for name, part in self._stacked.items()},
                        (images.clone(),),  # what one does to them, the next must not see
                    )
                    .float()
                    .clone()
                    for member in range(self.members)
                ]
            )


class Committee(Teacher):
    """Teachers of any make that answer the same questions.

    Args:
        teachers: at least two, of the same input shape and classes.

    Whether they were trained on disjoint data is for their owner to say: nothing here can tell.
    A committee goes by its members' places and names, and not by a hash of their weights, which a
    run would publish; modules without either get a name that lasts as long as the process. What a
    run costs is charged to each member, by its content.

    Raises:
        TeacherError: fewer than two, two that are the same, or two that do not fit together.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        if len(teachers) < 2:
            raise TeacherError(f"an ensemble needs at least two teachers, not {len(teachers)}")
        first = teachers[0]
        for other in teachers[1:]:
            if (other.input_shape, other.num_classes) != (first.input_shape, first.num_classes):
                raise TeacherError(
                    f"{other.description} takes {other.input_shape} and knows "
                    f"{other.num_classes} classes, {first.description} {first.input_shape} and "
                    f"{first.num_classes}: an ensemble's teachers answer the same questions"
                )
        if nested := [teacher.description for teacher in teachers if teacher.members > 1]:
            raise TeacherError(f"{nested[0]} is an ensemble itself: give its members")
        for teacher in teachers:
            teacher.require_unchanged()
        if len({teacher.fingerprint for teacher in teachers}) < len(teachers):
            seen = [teacher.fingerprint for teacher in teachers]
            same = [t.location or t.description for t in teachers if seen.count(t.fingerprint) > 1]
            raise TeacherError(
                f"two of the ensemble's teachers are the same ({', '.join(same)}): whoever is in "
                "the data of one would be counted twice"
            )
        self._teachers = list(teachers)
        self.members = len(teachers)
        super().__init__(
            input_shape=first.input_shape,
            num_classes=first.num_classes,
            fingerprint=fingerprint_names(sorted(map(_public_name, teachers))),
            description=f"{len(teachers)} teachers, {first.description} among them",
            scores="probabilities",
        )

    @property
    def charged(self) -> Sequence[Teacher]:
        return tuple(self._teachers)

    def require_unchanged(self) -> None:
        for teacher in self._teachers:
            teacher.require_unchanged()

    def _scores(self, images: Tensor) -> object:
        answers = []
        for teacher in self._teachers:
            scores = teacher._answers(images)
            if not isinstance(scores, Tensor):
                return scores
            scores = scores.float()
            # A member may answer into a buffer of its own.
            answers.append(scores.softmax(-1) if teacher.scores == "logits" else scores.clone())
        return torch.stack(answers)


def _public_name(teacher: Teacher) -> str:
    """What a teacher may be called in a run: never a hash of its weights, for those are private."""
    if teacher.location is not None:
        return teacher.location
    is_named = teacher.fingerprint.startswith("callable:")
    return teacher.fingerprint if is_named else secrets.token_hex(16)


def _shared_body(module: nn.Module, stacked: Mapping[str, Tensor]) -> nn.Module | None:
    """Everything before the last linear layer, if members differ in that layer alone."""
    if set(stacked) != {f"{_HEAD}.weight", f"{_HEAD}.bias"}:
        return None
    named = dict(module.named_children())
    return nn.Sequential(*(child for name, child in named.items() if name != _HEAD))

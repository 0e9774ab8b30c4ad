"""Ensembles: many teachers that are asked together and answer with a teacher axis.

:class:`EnsembleTeacher` has members of one architecture, trained by ``train-teacher --shards``;
:class:`Committee` has any existing teachers. Both answer ``(teachers, N, K)``, and a mechanism for
many teachers releases their noisy sum.

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

from dpsd.errors import Setting, TeacherError
from dpsd.images.names import Shape
from dpsd.teachers.base import DeclaredScores, Precision, Teacher
from dpsd.teachers.batches import in_batches
from dpsd.teachers.calling import Calling
from dpsd.teachers.fingerprint import fingerprint_names, fingerprint_tensors
from dpsd.teachers.module import checked_device
from dpsd.teachers.sharding import Shards

_HEAD = "head"


class EnsembleTeacher(Teacher):
    """Teachers of one architecture, each with weights of its own.

    Args:
        module: the architecture, whose weights are replaced by each member's in turn.
        stacked: every weight by name, ``(members, …)``.
        input_shape: the shape of an image, ``(C, H, W)``.
        num_classes: the number of classes K.
        device: the device that members run on.
        precision: the precision; ``"bfloat16"`` uses autocast.
        description: the ensemble in a few words, for reports.
        scores: what the members return.
        shards: the shards that members were trained on, as stated by whoever trained them; that
            they are disjoint was checked when the object was made.
        key: the key of the fingerprint, a secret of the teachers' owner. Runs publish the
            fingerprint, and without a key, whoever knows all records but one could train on each
            candidate and compare hashes.

    If members differ in a last linear layer alone (as with ``scattering``), its input is computed
    once, and all answers are one matrix product.
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
            # Computed in float32, as members differ by less than the resolution of bfloat16.
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
                        (images.clone(),),  # a member may change them, which the next must not see
                    )
                    .float()
                    .clone()
                    for member in range(self.members)
                ]
            )


class Committee(Teacher):
    """An ensemble of existing teachers of any kind.

    Args:
        teachers: the members, at least two, of the same input shape and number of classes.

    Whether the members were trained on disjoint data is for their owner to say: nothing here can
    tell. A committee is identified by its members' locations and names, not by a hash of their
    weights, which a run would publish; modules without either get a name that lasts as long as the
    process. The cost of a run is charged to each member, which is identified by its content.

    Raises:
        TeacherError: there are fewer than two teachers, two are the same, or two do not fit
            together.
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
                    f"{first.num_classes}: an ensemble's teachers must agree in both"
                )
        if nested := [teacher.description for teacher in teachers if teacher.members > 1]:
            raise TeacherError(f"{nested[0]} is itself an ensemble: give its members instead")
        for teacher in teachers:
            teacher.require_unchanged()
        if len({teacher.fingerprint for teacher in teachers}) < len(teachers):
            seen = [teacher.fingerprint for teacher in teachers]
            same = [t.location or t.description for t in teachers if seen.count(t.fingerprint) > 1]
            raise TeacherError(
                f"two of the ensemble's teachers are the same ({', '.join(same)}), so whoever is "
                "in its data would count twice: give every teacher only once"
            )
        self._teachers = list(teachers)
        self.is_free = all(teacher.is_free for teacher in teachers)
        self.members = len(teachers)
        self.class_names = _common_names(teachers)
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

    @property
    def declared_calling(self) -> Calling:
        found = {teacher.calling for teacher in self._teachers}
        return found.pop() if len(found) == 1 else Calling()

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
            # A member may reuse a buffer for its answers.
            answers.append(scores.softmax(-1) if teacher.scores == "logits" else scores.clone())
        return torch.stack(answers)


def _common_names(teachers: Sequence[Teacher]) -> tuple[str, ...] | None:
    """Return the names that all teachers with names have for the classes.

    Raises:
        TeacherError: two have other names, or the same in another order, so that their answers
            would be added up although they mean different things.
    """
    named = [teacher for teacher in teachers if teacher.class_names is not None]
    for other in named:
        for label, (one, another) in enumerate(
            zip(named[0].class_names or (), other.class_names or (), strict=True)
        ):
            if one != another:
                raise TeacherError(
                    f"{other.location or other.description} calls class {label} {another!r}, and "
                    f"{named[0].location or named[0].description} calls it {one!r}: an ensemble's "
                    "teachers must agree. If they mean the same, say so with ",
                    Setting("class_names"),
                )
    return named[0].class_names if named else None


def _public_name(teacher: Teacher) -> str:
    """Return a teacher's name in a run: never a hash of its weights, as those are private."""
    if teacher.location is not None:
        return teacher.location
    is_named = teacher.fingerprint.startswith("callable:")
    return teacher.fingerprint if is_named else secrets.token_hex(16)


def _shared_body(module: nn.Module, stacked: Mapping[str, Tensor]) -> nn.Module | None:
    """Return everything before the last linear layer if members differ in that layer alone."""
    if set(stacked) != {f"{_HEAD}.weight", f"{_HEAD}.bias"}:
        return None
    named = dict(module.named_children())
    return nn.Sequential(*(child for name, child in named.items() if name != _HEAD))

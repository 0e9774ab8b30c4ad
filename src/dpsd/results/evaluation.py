"""Measuring a run on labelled data, as the owner of that data and of the teacher.

This is for the owner's eyes: it looks at teacher and data freely, nothing it returns is privatised,
and no transcription ever calls it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.runs.directory import RunDirectory
from dpsd.teachers import Teacher


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """One class of an :class:`Evaluation`; shares are ``None`` where there is nothing to divide.

    Args:
        name: of the class.
        images: of that class.
        student_accuracy: share that the student gets right.
        teacher_accuracy: share that the teacher gets right.
        agreement: share on which both say the same.
    """

    name: str
    images: int
    student_accuracy: float | None
    teacher_accuracy: float | None
    agreement: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Accuracy of student and teacher, and their agreement. Not privatised.

    Args:
        data: the data set's name.
        split: which part of it.
        images: how many there were.
        student_accuracy: share that the student gets right.
        teacher_accuracy: share that the teacher gets right; ``None`` without a teacher.
        agreement: share on which both say the same; ``None`` without a teacher.
        classes: the same for each true class.
    """

    data: str
    split: str
    images: int
    student_accuracy: float
    teacher_accuracy: float | None
    agreement: float | None
    classes: tuple[ClassResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return {**asdict(self), "privatised": False}


def evaluate(
    run: RunDirectory,
    data: LabelledImages,
    *,
    teacher: Teacher | None = None,
    student: torch.nn.Module | None = None,
    device: str | None = None,
) -> Evaluation:
    """Measure a run's student, and its teacher if given.

    Args:
        run: a finished run.
        data: labelled images of the run's shape and classes.
        teacher: to compare with.
        student: a module to fill, if the run's was no named model.
        device: where the student runs; by default as in the run.

    Raises:
        ConfigError: the data is of another shape or has other classes.
        RunError: no round is finished.
    """
    trained, facts = run.student(student), run.facts()
    for what, here, there in (
        ("images of shape", data.input_shape, tuple(facts["input_shape"])),
        ("number of classes", data.num_classes, facts["num_classes"]),
    ):
        if here != there:
            raise ConfigError(f"data set {data.name!r} has {what} {here}; the run's is {there}")
    config = run.config()
    execution = Execution.of(device or config.recipe.device, config.recipe.precision)
    module = execution.place(trained)
    found = execution.predict(module, data.images).argmax(-1).cpu()
    asked = None if teacher is None else teacher.predict_classes(data.images)
    everything = _result("all", data.labels, found, asked, torch.ones_like(data.labels).bool())
    return Evaluation(
        data=data.name,
        split=data.split,
        images=len(data),
        student_accuracy=everything.student_accuracy or 0.0,
        teacher_accuracy=everything.teacher_accuracy,
        agreement=everything.agreement,
        classes=tuple(
            _result(name, data.labels, found, asked, data.labels == number)
            for number, name in enumerate(data.class_names)
        ),
    )


def _result(
    name: str, labels: Tensor, found: Tensor, asked: Tensor | None, chosen: Tensor
) -> ClassResult:
    return ClassResult(
        name=name,
        images=int(chosen.sum()),
        student_accuracy=_share(found == labels, chosen),
        teacher_accuracy=None if asked is None else _share(asked == labels, chosen),
        agreement=None if asked is None else _share(found == asked, chosen),
    )


def _share(hits: Tensor, chosen: Tensor) -> float | None:
    return float(hits[chosen].double().mean()) if bool(chosen.any()) else None

"""Measuring a run on labelled data, as the owner of the data and of the teacher.

This is for the owner's eyes: it uses teacher and data freely, nothing that it returns is
privatised, and no transcription ever calls it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.distillation.quality import standard_error
from dpsd.errors import ConfigError, Setting
from dpsd.runs.directory import RunDirectory
from dpsd.teachers import Teacher

#: The share of its predictions from which on a student says nearly always the same class.
_NEARLY_ALL = 0.95

#: The most classes of which every pair is counted.
_MOST_CONFUSED = 100


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """The results for one class of an :class:`Evaluation`; shares are ``None`` without images.

    Args:
        name: the name of the class: the run's, if it has names, else that of the data set.
        images: the number of images of the class.
        student_accuracy: the share that the student gets right.
        teacher_accuracy: the share that the teacher gets right; ``None`` without a teacher.
        agreement: the share on which both predict the same; ``None`` without a teacher.
        predicted: the number of images, of whatever class, for which the student says this class.
    """

    name: str
    images: int
    student_accuracy: float | None
    teacher_accuracy: float | None
    agreement: float | None
    predicted: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The accuracy of student and teacher, and their agreement, which are not privatised.

    Args:
        data: the name of the data set.
        split: the part of the data set.
        validation_share: the share of the training records that the validation split consists of,
            if they were held out of the training split; 0 for other splits.
        images: the number of images.
        student_accuracy: the share that the student gets right.
        teacher_accuracy: the share that the teacher gets right; ``None`` without a teacher.
        student_balanced_accuracy: the mean over the classes that occur of the share that the
            student gets right. A student that always says the most frequent class has ``1 / K``
            for ``K`` classes, however frequent that class is.
        teacher_balanced_accuracy: the same for the teacher; ``None`` without a teacher.
        agreement: the share on which both predict the same; ``None`` without a teacher.
        classes: the results for each true class.
        run: the identity of the run.
        student: the hash of the student's file; empty if the run is not finished.
        confusion: for each true class, the number of its images for which the student says each
            class, ``(K, K)``; empty if there are very many classes.
        standard_errors: the standard error of each share of all images, by its name, if these are
            a random sample: binomial, and above 0 even where all of a few images fare alike.
    """

    data: str
    split: str
    validation_share: float
    images: int
    student_accuracy: float
    teacher_accuracy: float | None
    student_balanced_accuracy: float
    teacher_balanced_accuracy: float | None
    agreement: float | None
    classes: tuple[ClassResult, ...]
    run: str = ""
    student: str = ""
    confusion: tuple[tuple[int, ...], ...] = ()
    standard_errors: Mapping[str, float] = field(default_factory=dict)

    def dominant(self) -> ClassResult | None:
        """Return the class that the student says for nearly all images, though others occur."""
        most = max(self.classes, key=lambda one: one.predicted)
        is_dominant = most.predicted >= _NEARLY_ALL * self.images > most.images
        return most if is_dominant else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything in JSON types."""
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
        run: a run with at least one finished round.
        data: labelled images of the run's shape and classes.
        teacher: the teacher to compare with.
        student: the module to load the weights into, if the run's student was not a named model.
        device: the device of the student; by default as in the run.

    Raises:
        ConfigError: the data has another shape, another number of classes, or the run's classes in
            another order.
        RunError: no round is finished.
    """
    trained, names = run.student(student), run.class_names()
    check_fits(data, run)
    execution = Execution.of(device or run.recipe.device, run.recipe.precision)
    module = execution.place(trained)
    found = execution.predict(module, data.images).argmax(-1).cpu()
    asked = None if teacher is None else teacher.predict_classes(data.images)
    predicted = torch.bincount(found, minlength=data.num_classes).tolist()
    classes = tuple(
        _result(name, data.labels, found, asked, data.labels == number, predicted[number])
        for number, name in enumerate(names or data.class_names)
    )
    everything = torch.ones_like(data.labels).bool()
    overall = _result("all", data.labels, found, asked, everything, len(data))
    return Evaluation(
        data=data.name,
        split=data.split,
        validation_share=data.validation_share,
        images=len(data),
        student_accuracy=overall.student_accuracy or 0.0,
        teacher_accuracy=overall.teacher_accuracy,
        student_balanced_accuracy=balanced_accuracy(data.labels, found),
        teacher_balanced_accuracy=(
            None if asked is None else balanced_accuracy(data.labels, asked)
        ),
        agreement=overall.agreement,
        classes=classes,
        run=run.identity,
        student=str(run.ledger.entries()[-1]["student"]) if run.is_finished() else "",
        confusion=_confusion(data, found),
        standard_errors=_errors(data.labels, found, asked),
    )


def balanced_accuracy(labels: Tensor, found: Tensor) -> float:
    """Return the mean, over the classes that occur, of the share of a class that is right.

    Args:
        labels: the true classes, int64 ``(N,)``, at least one.
        found: the predicted classes, ``(N,)``.

    >>> balanced_accuracy(torch.tensor([0, 0, 0, 2]), torch.tensor([0, 0, 0, 0]))
    0.5
    """
    counts = torch.bincount(labels)
    right = torch.bincount(labels[found == labels], minlength=len(counts))
    return float((right[counts > 0].double() / counts[counts > 0]).mean())


def _errors(labels: Tensor, found: Tensor, asked: Tensor | None) -> dict[str, float]:
    errors = {
        "student_accuracy": standard_error(found == labels),
        "student_balanced_accuracy": _balanced_error(labels, found),
    }
    if asked is not None:
        errors |= {
            "teacher_accuracy": standard_error(asked == labels),
            "teacher_balanced_accuracy": _balanced_error(labels, asked),
            "agreement": standard_error(found == asked),
        }
    return errors


def _balanced_error(labels: Tensor, found: Tensor) -> float:
    """The standard error of a mean over the classes that occur, each with images of its own."""
    right = [(found == labels)[labels == label] for label in torch.unique(labels)]
    return math.hypot(*map(standard_error, right)) / len(right)


def check_fits(data: LabelledImages, run: RunDirectory) -> None:
    """Refuse data on which a run's student cannot be measured.

    Raises:
        ConfigError: the data has another shape, another number of classes, or the run's classes in
            another order.
    """
    facts, names = run.facts(), run.class_names()
    for what, here, there in (
        ("images of shape", data.input_shape, tuple(facts["input_shape"])),
        ("number of classes", data.num_classes, facts["num_classes"]),
    ):
        if here != there:
            raise ConfigError(f"data set {data.name!r} has {what} {here}; the run's is {there}")
    if names is None or set(names) != set(data.class_names):
        return  # other words for the classes say nothing about their order
    for label, (name, known) in enumerate(zip(data.class_names, names, strict=True)):
        if name != known:
            raise ConfigError(
                f"data set {data.name!r} calls class {label} {name!r}, and the run calls it "
                f"{known!r}: give the data's classes in the run's order with ",
                Setting("classes"),
            )


def _confusion(data: LabelledImages, found: Tensor) -> tuple[tuple[int, ...], ...]:
    count = data.num_classes
    if count > _MOST_CONFUSED:
        return ()
    pairs = torch.bincount(data.labels * count + found, minlength=count**2)
    return tuple(map(tuple, pairs.view(count, count).tolist()))


def _result(
    name: str,
    labels: Tensor,
    found: Tensor,
    asked: Tensor | None,
    chosen: Tensor,
    predicted: int,
) -> ClassResult:
    return ClassResult(
        name=name,
        images=int(chosen.sum()),
        student_accuracy=_share(found == labels, chosen),
        teacher_accuracy=None if asked is None else _share(asked == labels, chosen),
        agreement=None if asked is None else _share(found == asked, chosen),
        predicted=predicted,
    )


def _share(hits: Tensor, chosen: Tensor) -> float | None:
    return float(hits[chosen].double().mean()) if bool(chosen.any()) else None

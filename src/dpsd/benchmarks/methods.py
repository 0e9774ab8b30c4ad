"""What is measured: a method on a task, at a privacy target.

A :class:`Task` is a data set with a trained teacher. A :class:`Method` makes a student for it, and
says what it was given and whom its ε protects; a table without that compares what cannot be
compared.

>>> Unit.RECORD.value
'a training record'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dpsd.benchmarks.teachers import open_module, trained_teacher
from dpsd.datasets import LabelledImages, Split, load_dataset
from dpsd.datasets.published import ARRAYS, RECORDS
from dpsd.datasets.validation import held_out_rows
from dpsd.devices.execution import Execution
from dpsd.privacy.targets import Budget
from dpsd.results.evaluation import balanced_accuracy
from dpsd.teachers import Teacher, load_teacher

#: Architectures for photographs; other images make do with a ``cnn``.
SUITED = {
    "cifar10-jpeg": "resnet8",
    "cifar10": "resnet8",
    "cifar100": "resnet20",
    "cifar100-jpeg": "resnet20",
    "tiny-imagenet-10": "resnet8",
}


class Unit(StrEnum):
    """What two worlds that an ε makes alike differ in."""

    NOTHING = "nothing: not private"
    ANSWER = "an answer"
    ANSWERS = "an answer in every round"
    LABEL = "a training record's label"
    RECORD = "a training record"
    #: Half of a replacement, roughly: the same noise costs about twice as much under that.
    RECORD_ADDED = "a training record, added or removed"
    CLIENT = "a client: all of its records"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A data set, and where its teachers are kept.

    Args:
        data: a data set's name, as ``dpsd data list`` shows it.
        teachers: the directory that trained teachers are kept in.
        model: the single teacher's and the students' architecture; one that suits the data if not
            given.
        validation_share: if above 0, students are measured on validation data instead of the test
            split: on the data set's validation split, or, without one, on this share of the
            training records, which no teacher and no method is given.
    """

    data: str
    teachers: Path
    model: str = ""
    validation_share: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", self.model or SUITED.get(self.data, "cnn"))

    def __getstate__(self) -> dict[str, Any]:
        """What names it; another process reads the data for itself."""
        return {
            "data": self.data,
            "teachers": self.teachers,
            "model": self.model,
            "validation_share": self.validation_share,
        }

    @cached_property
    def train(self) -> LabelledImages:
        """The private data: for teachers, and for baselines that are given them."""
        return load_dataset(self.data, "train", validation_share=self.validation_share)

    @property
    def split(self) -> Split:
        """The name of the split that students are measured on."""
        return "validation" if self.validation_share else "test"

    @cached_property
    def measured_on(self) -> LabelledImages:
        """What students are measured on, and nothing else."""
        return load_dataset(self.data, self.split, validation_share=self.validation_share)

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.measured_on.input_shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the images, in pixels."""
        _, height, width = self.measured_on.input_shape
        return height, width

    @property
    def records(self) -> int:
        """How many records there are for teachers."""
        return len(self.train)

    @property
    def measured_records(self) -> int:
        """How many there are to measure on."""
        return len(self.measured_on)

    def teacher_path(self, shards: int | None = None, features: str | None = None) -> Path:
        """Where the teacher is kept, or the ensemble of so many; trained if not there yet.

        An ensemble may be linear on ``features`` other than wavelets.
        """
        return trained_teacher(
            self.data,
            self.teachers,
            model=self.model,
            shards=shards,
            features=features,
            validation_share=self.validation_share,
        )

    def teacher(self, shards: int | None = None, features: str | None = None) -> Teacher:
        """The data's one teacher, or the ensemble of so many on disjoint shards, to be asked."""
        path = self.teacher_path(shards, features)
        execution = Execution.of()
        return load_teacher(path, device=str(execution.device), precision=execution.precision)

    def white_box(self) -> nn.Module:
        """The one teacher's module itself: for references without privacy alone."""
        return Execution.of().place(open_module(self.teacher_path()))

    def accuracy(self, student: nn.Module) -> float:
        """Return a student's accuracy on all of the split that students are measured on."""
        return float((self._predicted(student) == self.measured_on.labels).double().mean())

    def compared(self, student: nn.Module, teacher: Teacher) -> dict[str, float]:
        """Return more shares of that split, which no transcription sees.

        They are the teacher's accuracy (``teacher``), the student's balanced accuracy
        (``balanced``), the share of the largest class (``largest_class``), and that on which
        student and teacher agree (``agreement_on_images``).
        """
        labels, found = self.measured_on.labels, self._predicted(student)
        answers = teacher.predict_classes(self.measured_on.images)
        return {
            "teacher": float((answers == labels).double().mean()),
            "balanced": balanced_accuracy(labels, found),
            "largest_class": int(torch.bincount(labels).max()) / len(labels),
            "agreement_on_images": float((answers == found).double().mean()),
        }

    def _predicted(self, student: nn.Module) -> Tensor:
        execution = Execution.of()
        logits = execution.predict(execution.place(student), self.measured_on.images)
        return logits.argmax(-1).cpu()


class PublishedTask(Task):
    """A task whose rows can be named without its data: by what the data's publishers say of them.

    >>> task = PublishedTask(data="mnist", teachers=Path("teachers"))
    >>> task.channels, task.records, task.measured_records
    (1, 60000, 10000)
    """

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        found = ARRAYS[self.data].channels
        assert found is not None, self.data  # those of all of them are published
        return found

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the images, in pixels."""
        found = ARRAYS[self.data].size
        assert found is not None, self.data  # as above
        return found

    @property
    def records(self) -> int:
        """How many records there are for teachers."""
        return RECORDS[self.data][0] - self._held_out

    @property
    def measured_records(self) -> int:
        """How many there are to measure on."""
        return self._held_out or RECORDS[self.data][1]

    @property
    def _held_out(self) -> int:
        # None of these data sets was published with a validation split, or with names of records.
        return held_out_rows(RECORDS[self.data][0], self.validation_share)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one run of a method.

    Args:
        seconds: that making it took, the teacher's training and measuring apart.
        accuracy: the student's on what the task measures on, in [0, 1]; ``None`` where time is what
            counts.
        epsilon: under each adjacency or relation that was accounted for, by its name.
        details: anything else worth keeping, as JSON can hold it.
    """

    seconds: float
    accuracy: float | None = None
    epsilon: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


class Method(Protocol):
    """Makes a student for a task."""

    @property
    def name(self) -> str:
        """As tables show it."""

    @property
    def unit(self) -> Unit:
        """What its ε is about."""

    @property
    def given(self) -> str:
        """What it is given, in a few words: ``the teacher``, ``the private data``."""

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it; ``target`` is ``None`` for what is not private."""

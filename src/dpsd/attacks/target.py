"""What is attacked: a finished run's student, and what its owner still has besides.

The owner of the data attacks, so the attacker of these measurements may be handed more than a
stranger has: the teacher, the private training records and held-out ones. Nothing that an attack
finds is privatised, and no transcription ever calls one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from dpsd.datasets import LabelledImages
from dpsd.datasets.published import shows_persons
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError, RunError, Setting
from dpsd.results.evaluation import check_fits
from dpsd.runs.directory import RunDirectory
from dpsd.storage.files import writing
from dpsd.teachers import Teacher


class Progress(Protocol):
    """Whoever shows how far an attack is."""

    def step(self, what: str, done: int, total: int) -> None:
        """Take note that ``done`` of ``total`` steps of a part are done."""


class Silent:
    """Shows nothing."""

    def step(self, what: str, done: int, total: int) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """A finished run, and the records that its teacher was and was not trained on.

    Args:
        run: the finished run.
        members: the records that the teacher was trained on.
        others: records that it was not trained on, of the same shape and classes.
        teacher: the teacher; ``None`` if its owner no longer has it.
        device: the device of all models; by default as in the run.

    Raises:
        ConfigError: the records do not fit the run, or it asked another teacher.
        RunError: the run is not finished.
    """

    run: RunDirectory
    members: LabelledImages
    others: LabelledImages
    teacher: Teacher | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if not self.run.is_finished():
            raise RunError(
                f"{self.run.path} is not finished: to attack it, finish it with {self.run.resuming}"
            )
        for data in (self.members, self.others):
            check_fits(data, self.run)
        if self.teacher is not None and self.teacher.fingerprint != self.run.facts()["teacher"]:
            raise ConfigError(
                Setting("teacher"),
                f" is {self.teacher.description}, which is not the teacher that the run asked: its "
                "content differs, so findings would be about another model",
            )

    @property
    def execution(self) -> Execution:
        """Where and in which precision models run."""
        recipe = self.run.recipe
        return Execution.of(self.device or recipe.device, recipe.precision)

    def student(self) -> nn.Module:
        """Return the student in eval mode: one in training mode would leak its batch instead."""
        return self.execution.place(self.run.student()).eval()


def are_of_persons(data: LabelledImages) -> bool:
    """Return whether records show persons, or scans of them, of whom no picture is drawn."""
    return data.persons is not None or shows_persons(data.name)


def remove_picture(folder: Path, name: str) -> None:
    """Remove a picture that an earlier attack drew, before it was known that there are persons.

    Args:
        folder: the folder of the picture.
        name: the name of its files without their suffix.

    Raises:
        WriteError: it cannot be removed.
    """
    for suffix in ("svg", "png"):
        path = folder / f"{name}.{suffix}"
        with writing(path):
            path.unlink(missing_ok=True)

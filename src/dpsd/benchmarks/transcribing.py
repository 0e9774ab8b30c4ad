"""Transcriptions as a benchmark's methods: dpsd's own, and published ones that its parts make up.

>>> dpsd_method = Transcribing(name="dpsd", protect="labels", adjacency="response")
>>> dpsd_method.unit.value, dpsd_method.given
('an answer', 'the teacher')
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.benchmarks.phases import PhaseTimes
from dpsd.config.ensembles import ENSEMBLE_DEFAULTS, ENSEMBLE_STUDENT
from dpsd.config.recipe import Recipe
from dpsd.config.transcription import TranscriptionConfig
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.runs.directory import Run, RunDirectory
from dpsd.runs.observing import Observer
from dpsd.teachers import Teacher
from dpsd.transcription.public import refuse_private
from dpsd.transcription.starting import transcribe

_UNITS = {
    Adjacency.RESPONSE: Unit.ANSWER,
    Adjacency.ROUND: Unit.ANSWERS,
    Adjacency.TEACHER: Unit.RECORD,
}


@dataclass(frozen=True, kw_only=True)
class Transcribing:
    """A teacher, or many, transcribed.

    Args:
        name: as tables show it.
        protect: ``labels`` or ``data``.
        adjacency: what the target's ε is about.
        recipe: fields of :class:`~dpsd.config.recipe.Recipe` that differ from its defaults.
        mechanism: settings of the mechanism that differ from its defaults, as
            :class:`~dpsd.config.transcription.TranscriptionConfig` names them.
        shards: so many teachers, each on a shard of its own; one teacher if not given.
        student: the student's architecture, if not the task's (or the ensemble's own).
        features: what an ensemble and its student are linear on; wavelets if not given. With one
            teacher, the student alone is.
    """

    name: str
    protect: str
    adjacency: Adjacency
    recipe: Mapping[str, Any] = field(default_factory=dict)
    mechanism: Mapping[str, Any] = field(default_factory=dict)
    shards: int | None = None
    student: str | None = None
    features: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "adjacency", Adjacency(self.adjacency))
        if self.adjacency is Adjacency.TEACHER and self.shards is None:
            raise ConfigError(
                f"{self.name}: adjacency 'teacher' is about a training record where there are "
                "many teachers; give shards"
            )
        if self.shards is not None and self.shards < 2:
            raise ConfigError(f"shards must be at least 2, not {self.shards}")

    @property
    def unit(self) -> Unit:
        """What its ε is about."""
        return _UNITS[self.adjacency]

    @property
    def given(self) -> str:
        """What it is given."""
        return "the teacher" if self.shards is None else f"{self.shards:,} teachers on shards"

    def configuration(self, target: Budget) -> TranscriptionConfig:
        """All settings but the teacher, with defaults where none is stated.

        Batches may yet become smaller, to suit the images.
        """
        chosen = {**self.recipe, **self.mechanism}
        if self.shards is not None:
            chosen = {"student": ENSEMBLE_STUDENT, **ENSEMBLE_DEFAULTS, **chosen}
        if self.student is not None:
            chosen["student"] = self.student
        elif self.features is not None:
            chosen = {"student": ENSEMBLE_STUDENT, **chosen, "features": self.features}
        return TranscriptionConfig(
            teacher="the task's",
            protect=self.protect,
            epsilon=target.epsilon,
            delta=target.delta,
            adjacency=target.adjacency,
            **chosen,
        )

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Transcribe, and measure the student after every round, for the table only."""
        if target is None:
            raise ConfigError(f"{self.name} needs a privacy target")
        teacher = task.teacher(self.shards, None if self.shards is None else self.features)
        with tempfile.TemporaryDirectory() as folder:
            watcher = AccuracyByRound(Path(folder) / "run", task)
            run = self.run(
                task, teacher, target=target, seed=seed, out=watcher.directory, observer=watcher
            )
            seconds = watcher.elapsed()
        spent = run.certificate.spent
        return Outcome(
            accuracy=watcher.curve[-1][1],
            seconds=seconds,
            epsilon={kind.value: spent.under(kind) for kind in Adjacency},
            details={
                "student": watcher.student,
                "queries": run.certificate.events["teacher"],
                "curve": watcher.curve,
                "student_loss": [metrics["student_loss"] for metrics in run.metrics],
                "agreement": watcher.agreement,
                "left_out": run.metrics[-1].get("left_out"),
                "seconds_by_part": watcher.rounded(),
                **task.compared(run.student, teacher),
            },
        )

    def run(
        self,
        task: Task,
        teacher: Teacher,
        *,
        target: Budget,
        seed: int,
        out: Path,
        observer: Observer,
    ) -> Run:
        """Transcribe the task's teacher, or many, into a directory that is thrown away.

        Raises:
            BudgetError: the target cannot be met.
            ConfigError: public images are what the teacher was trained on.
        """
        recipe = Recipe.suited_to(teacher, **{**self.recipe, "seed": seed})
        refuse_private(recipe, [teacher])  # while its record tells what it was trained on
        # A benchmark's teacher is made of public data. Its budget goes with the run, as that of a
        # copy which nobody keeps.
        teacher.location = str(out.parent)
        is_linear = self.shards is not None or self.features is not None
        return transcribe(
            teacher,
            mechanism=self.configuration(target).privacy.mechanism(members=teacher.members),
            budget=target,
            out=out,
            student=self.student or (None if is_linear else task.model),
            features=self.features if self.shards is None else None,
            recipe=recipe,
            observer=observer,
        )


class AccuracyByRound(PhaseTimes):
    """Measures the student on the test split after every round, from its checkpoint.

    The transcription never sees what it finds; its clock starts with the observer and stands still
    while it measures.
    """

    def __init__(self, directory: Path, task: Task) -> None:
        super().__init__()
        self.directory = directory
        self.task = task
        self.curve: list[tuple[float, float]] = []
        self.agreement: list[str] = []
        self.student = ""
        self._started = time.perf_counter()
        self._measuring = 0.0

    def elapsed(self) -> float:
        """Seconds of the transcription so far."""
        return time.perf_counter() - self._started - self._measuring

    def round_finished(self, metrics: dict[str, Any]) -> None:
        """Load the checkpoint and measure."""
        elapsed, start = self.elapsed(), time.perf_counter()
        run = RunDirectory(self.directory)
        self.student = run.facts()["student"]
        self.curve.append((round(elapsed, 1), self.task.accuracy(run.student())))
        if found := metrics["agreement"]:
            self.agreement.append(f"{found['mean']:.3f}±{found['standard_error']:.3f}")
        self._measuring += time.perf_counter() - start

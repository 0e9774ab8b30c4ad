"""How time and memory grow, on untrained teachers, which are as slow as trained ones.

>>> Untrained(name="small", input_shape=(1, 8, 8), queries=100).unit.value
'an answer'
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.benchmarks.phases import PhaseTimes
from dpsd.config.recipe import Recipe
from dpsd.devices.execution import Execution
from dpsd.models import build_classifier
from dpsd.models.names import check_model
from dpsd.privacy.mechanisms import RandomizedResponse
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.teachers import TeacherRecord, load_teacher, save_teacher
from dpsd.transcription.starting import transcribe


@dataclass(frozen=True, kw_only=True)
class Untrained:
    """One round of a transcription whose teacher was never trained, to time it.

    Args:
        name: as tables show it.
        queries: in the round.
        input_shape: channels, height, width.
        num_classes: the same for teacher and student.
        student: its architecture, and the teacher's.
        devices: processes that share the work.
    """

    name: str
    queries: int = 8_000
    input_shape: tuple[int, int, int] = (1, 28, 28)
    num_classes: int = 10
    student: str = "cnn"
    devices: int = 1

    adjacency = Adjacency.RESPONSE
    unit = Unit.ANSWER
    given = "the teacher"

    def __post_init__(self) -> None:
        check_model(self.student)
        Recipe(queries=self.queries, devices=self.devices)

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Transcribe and time it; there is no accuracy to speak of."""
        module = build_classifier(
            self.student, input_shape=self.input_shape, num_classes=self.num_classes, seed=seed
        )
        with tempfile.TemporaryDirectory() as folder:
            record = TeacherRecord(
                model=self.student, input_shape=self.input_shape, num_classes=self.num_classes
            )
            path = save_teacher(Path(folder) / "teacher", module, record)
            execution = Execution.of()
            teacher = load_teacher(
                path, device=str(execution.device), precision=execution.precision
            )
            recipe = Recipe.suited_to(
                teacher,
                rounds=1,
                queries=self.queries,
                first_epochs=1.0,
                generator_steps=20,
                devices=self.devices,
                seed=seed,
            )
            times = PhaseTimes()
            start = time.perf_counter()
            transcribe(
                teacher,
                student=self.student,
                mechanism=RandomizedResponse(),
                budget=target or Budget(epsilon=1.0, adjacency=Adjacency.RESPONSE),
                out=Path(folder) / "run",
                recipe=recipe,
                observer=times,
            )
            seconds = time.perf_counter() - start
        return Outcome(seconds=seconds, details={"seconds_by_part": times.rounded()})

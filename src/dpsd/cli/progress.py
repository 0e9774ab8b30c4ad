"""The progress of a transcription on the terminal: bars for phases, and a line per round."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from dpsd.cli.console import STATUS, warn
from dpsd.distillation.quality import TELLING
from dpsd.runs.observing import Observer
from dpsd.teachers.silence import spared

_UNITS = {"synthesis": "queries", "teacher": "queries"}
_HEADINGS = f"{'round':>9}  {'queries':>9}  {'loss':>8}  {'agreement ± s.e.':>18}  {'seconds':>8}"
_EXPLANATION = (
    "agreement: with the teacher on this round's queries, before learning from them; estimated "
    "from the releases alone"
)


class _Rate(ProgressColumn):
    """A column of steps per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s")


class QuietObserver(Observer):
    """An observer that shows warnings and nothing else."""

    def warn(self, message: str) -> None:
        warn(message)


class ProgressObserver(QuietObserver):
    """An observer with a bar for rounds, one for the phase in a round, and a line per round.

    Args:
        rounds: the number of rounds of the run.
        finished: the number of rounds that were finished before the run was resumed.
    """

    def __init__(self, *, rounds: int, finished: int = 0) -> None:
        self._rounds = rounds
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=STATUS,
            disable=not STATUS.is_terminal,
            transient=True,
        )
        self._run = self._progress.add_task("rounds", total=rounds, completed=finished, unit="")
        self._phase: TaskID | None = None
        self._has_headings = False
        self._end = ExitStack()

    def __enter__(self) -> ProgressObserver:
        # Bars are drawn by a thread of their own, even while a teacher answers and its output is
        # suppressed.
        STATUS.file = self._end.enter_context(spared(STATUS.file))
        self._end.callback(setattr, STATUS, "file", None)  # so that it follows sys.stderr again
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._end:
            self._progress.stop()

    def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
        if self._phase is not None:
            self._progress.remove_task(self._phase)
        title = f"round {round_index}/{self._rounds}: {name}"
        phase = self._progress.add_task(title, total=total, unit=_UNITS.get(name, "steps"))
        self._phase = phase
        return lambda steps: self._progress.advance(phase, steps)

    def notice(self, message: str) -> None:
        STATUS.print(message, soft_wrap=True)

    def round_finished(self, metrics: dict[str, Any]) -> None:
        if not self._has_headings:
            STATUS.print(_EXPLANATION, style="dim", soft_wrap=True)
            STATUS.print(_HEADINGS, style="bold", soft_wrap=True)
            self._has_headings = True
        STATUS.print(round_line(metrics, rounds=self._rounds), soft_wrap=True)
        self._progress.update(self._run, completed=metrics["round"])


def round_line(metrics: dict[str, Any], *, rounds: int) -> str:
    """Describe a round in one line.

    >>> round_line({"round": 1, "queries": 300, "student_loss": 1.5, "agreement": None,
    ...             "seconds": 2}, rounds=8).split()
    ['1/8', '300', '1.5000', '-', '2']
    """
    agreement = metrics["agreement"]
    shown = "-"
    if agreement:
        shown = f"{agreement['mean']:.1%} ± {agreement['standard_error']:.1%}"
        if agreement["standard_error"] > TELLING:
            shown = "unknown"
    number = f"{metrics['round']}/{rounds}"
    return (
        f"{number:>9}  {metrics['queries']:>9,}  {metrics['student_loss']:>8.4f}  {shown:>18}  "
        f"{metrics['seconds']:>8,}"
    )

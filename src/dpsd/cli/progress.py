"""The progress of transcriptions and attacks on the command line; warnings are lines on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dpsd.cli.console import STATUS, warn
from dpsd.reporting import progress
from dpsd.reporting.progress import EVERY, counting, duration, telling
from dpsd.runs.observing import Observer
from dpsd.teachers.silence import spared


class QuietObserver(Observer):
    """An observer that shows warnings and nothing else."""

    def warn(self, message: str) -> None:
        warn(message)


class ProgressObserver(progress.ProgressObserver):
    """An observer that shows progress and warnings on the command line's own console.

    Args:
        rounds: the number of rounds of the run.
        finished: the number of rounds that were finished before the run was resumed.
    """

    def __init__(self, *, rounds: int, finished: int = 0) -> None:
        super().__init__(rounds=rounds, finished=finished, console=STATUS)

    def warn(self, message: str) -> None:
        warn(message)


def _bars() -> Progress:
    """Bars with the time left, which are shown in terminals alone and vanish at the end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=STATUS,
        disable=not STATUS.is_terminal,
        transient=True,
    )


def training_bars() -> Progress:
    """Bars of a training, whose tasks have a ``state`` to show; in terminals alone."""
    return Progress(
        TextColumn("training {task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=STATUS,
        disable=not STATUS.is_terminal,
    )


def training_lines(what: str, unit: str) -> Callable[[int, int], None]:
    """Say where bars are not that a training begins, and return a function that says how far it is.

    Args:
        what: what is trained.
        unit: what is counted.
    """
    _line(f"training {what}")
    return telling(f"{what}, {unit}", say=_line)


def _line(text: str) -> None:
    """Print a line where bars are not."""
    if not STATUS.is_terminal:
        STATUS.print(text, soft_wrap=True)


@contextmanager
def pretraining(passes: int) -> Iterator[Callable[[int], None]]:
    """Show how far the training of a public backbone is; yields a function to call with passes."""
    STATUS.print("training a public backbone, which is kept for later", style="dim")
    with _bars() as bars:
        task = bars.add_task("public backbone", total=passes)
        count = counting(telling("public backbone, passes", say=_line), passes)

        def advance(done: int) -> None:
            bars.advance(task, done)
            count(done)

        yield advance


class AttackProgress:
    """A bar with the time left for each part of an attack that is going on.

    Bars are shown in terminals alone. Elsewhere, a line says when a part is finished and, during a
    long one, how far it is and about how long it will take.

    Args:
        clock: a function that returns seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bars = _bars()
        self._parts: dict[str, TaskID] = {}
        self._lines: dict[str, _Part] = {}
        self._clock, self._last = clock, clock()
        self._end = ExitStack()

    def __enter__(self) -> AttackProgress:
        # Bars are drawn by a thread of their own, even while a teacher answers and its output is
        # suppressed.
        STATUS.file = self._end.enter_context(spared(STATUS.file))
        self._end.callback(setattr, STATUS, "file", None)
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._end:
            self._bars.stop()

    def step(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of a part are done; its bar ends with the last."""
        if not STATUS.is_terminal:
            self._print(what, done, total)
            return
        if what not in self._parts:
            self._parts[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._parts[what], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._parts.pop(what))

    def _print(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        part = self._lines.setdefault(what, _Part(begun=self._last, shown=now, done=done))
        if done >= total:
            del self._lines[what]
            text = f"{what}: done in {duration(now - part.begun)}"
        elif now - part.shown >= EVERY and done > part.done:
            left = (now - part.shown) / (done - part.done) * (total - done)
            self._lines[what] = replace(part, shown=now, done=done)
            text = f"{what}: {done:,} of {total:,}, about {duration(left)} left"
        else:
            return
        self._last = now
        STATUS.print(text, soft_wrap=True)


@dataclass(frozen=True)
class _Part:
    """A part of an attack, with when it began, and what was done when a line last said so."""

    begun: float
    shown: float
    done: int

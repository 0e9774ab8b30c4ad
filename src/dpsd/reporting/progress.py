"""The progress of a transcription, in a terminal or a notebook: bars, and a line per round.

>>> with watched(None, rounds=8) as observer:
...     type(observer).__name__
'Observer'
>>> with watched("verbose", rounds=8):
...     pass
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: observer must be 'auto', 'progress', a dpsd.Observer or None, not 'verbose'
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Literal

from rich.console import Console
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

from dpsd.errors import ConfigError, Setting
from dpsd.reporting.agreement import OF_A_PANEL, ON_QUERIES, WITHOUT_PROBE, on_probe, shown
from dpsd.reporting.terminals import SteadyConsole
from dpsd.runs.observing import Observer
from dpsd.teachers.silence import spared

#: The seconds after which a line says how far something is, where no bar can be shown.
EVERY = 20.0

_UNITS = {"synthesis": "queries", "teacher": "queries"}
_HEADINGS = (
    *("round", "queries", "loss", "agreement ± s.e.", "on the probe ± s.e.", "constant"),
    "seconds",
)


class _Rate(ProgressColumn):
    """A column of steps per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s")


class RoundLines:
    """Prints a line per round, below headings and sentences that say what its numbers are about.

    Args:
        console: the console to write to.
        rounds: the number of rounds of the run.
    """

    def __init__(self, console: Console, *, rounds: int) -> None:
        self._console = console
        self._rounds = rounds
        self._has_headings = False

    @staticmethod
    def about(metrics: Mapping[str, Any]) -> tuple[str, str]:
        """Return two sentences on what the agreements in a round's metrics are about."""
        if "clients" in metrics:
            return OF_A_PANEL
        probe = metrics.get("probe")
        return ON_QUERIES, WITHOUT_PROBE if probe is None else on_probe(probe)

    @staticmethod
    def headings(metrics: Mapping[str, Any]) -> str:
        """Return the headings of the line of :func:`round_line`."""
        return _row(*_HEADINGS, has_probe="probe" in metrics)

    def show(self, metrics: dict[str, Any]) -> None:
        """Print the line of a round."""
        if not self._has_headings:
            for sentence in self.about(metrics):
                self._console.print(sentence, style="dim", soft_wrap=True)
            self._console.print(self.headings(metrics), style="bold", soft_wrap=True)
            self._has_headings = True
        self._console.print(round_line(metrics, rounds=self._rounds), soft_wrap=True)


class ProgressObserver(Observer):
    """An observer with a bar for rounds, one for the phase in a round, and a line per round.

    Bars are shown in terminals and notebooks alone; lines are printed everywhere.

    Args:
        rounds: the number of rounds of the run.
        finished: the number of rounds that were finished before the run was resumed.
        console: the console to write to; by default, one on standard error.
    """

    def __init__(self, *, rounds: int, finished: int = 0, console: Console | None = None) -> None:
        self._rounds = rounds
        self._console = console or _console()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not _can_show_bars(self._console),
            transient=True,
        )
        self._run = self._progress.add_task("rounds", total=rounds, completed=finished, unit="")
        self._phase: TaskID | None = None
        self._lines = RoundLines(self._console, rounds=rounds)
        self._end = ExitStack()

    def __enter__(self) -> ProgressObserver:
        # Bars are drawn by a thread of their own, even while a teacher answers and its output is
        # suppressed. A notebook shows what it is sent, without a stream.
        if not self._console.is_jupyter:
            self._console.file = self._end.enter_context(spared(self._console.file))
            # So that it follows sys.stderr again.
            self._end.callback(setattr, self._console, "file", None)
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
        self._console.print(message, soft_wrap=True)

    def round_finished(self, metrics: dict[str, Any]) -> None:
        self._lines.show(metrics)
        self._progress.update(self._run, completed=metrics["round"])


@contextmanager
def watched(
    observer: Observer | Literal["auto", "progress"] | None, *, rounds: int, finished: int = 0
) -> Iterator[Observer]:
    """Yield the observer that a user asked for, and end its display afterwards.

    Args:
        observer: an observer; ``"progress"`` for bars and a line per round; ``"auto"`` for these in
            a terminal or a notebook, and otherwise warnings alone; or ``None`` for warnings alone.
        rounds: the number of rounds of the run.
        finished: the number of rounds that are finished already.

    Raises:
        ConfigError: ``observer`` is another word.
    """
    if observer is None or not isinstance(observer, str):
        yield observer or Observer()
        return
    if observer not in ("auto", "progress"):
        raise ConfigError(
            Setting("observer"),
            f" must be 'auto', 'progress', a dpsd.Observer or None, not {observer!r}",
        )
    console = _console()
    if observer == "auto" and not (console.is_terminal or console.is_jupyter):
        yield Observer()
        return
    with ProgressObserver(rounds=rounds, finished=finished, console=console) as shown:
        yield shown


def _console() -> Console:
    return SteadyConsole(stderr=True, markup=False, emoji=False, highlight=False)


def _can_show_bars(console: Console) -> bool:
    """Whether bars can be redrawn in place, for which a notebook needs ipywidgets."""
    if console.is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    return console.is_terminal


def duration(seconds: float) -> str:
    """Return a number of seconds in words.

    >>> duration(59), duration(200), duration(9000)
    ('59 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def telling(
    what: str, *, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int], None]:
    """Return a function that says how many of how many are done, for where no bar can be shown.

    Args:
        what: what is counted.
        say: a function to call with a line, every twenty seconds at most.
        clock: a function that returns seconds.

    >>> tell = telling("epochs", say=print, clock=iter((0.0, 19.0, 40.0, 60.0)).__next__)
    >>> for epoch in 1, 2, 3:
    ...     tell(epoch, 3)
    epochs: 2 of 3, about 20 s left
    """
    shown, counted = clock(), 0

    def tell(done: int, total: int) -> None:
        nonlocal shown, counted
        now = clock()
        if counted < done < total and now - shown >= EVERY:
            # At the latest rate: what an earlier session did comes at once.
            left = (now - shown) / (done - counted) * (total - done)
            shown, counted = now, done
            say(f"{what}: {done:,} of {total:,}, about {duration(left)} left")

    return tell


def counting(tell: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    """Return a function to call with how many more are done.

    Args:
        tell: a function to call with how many of how many are done.
        total: how many there are.

    >>> count = counting(lambda done, total: print(done, "of", total), 9)
    >>> count(2), count(3)
    2 of 9
    5 of 9
    (None, None)
    """
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        tell(done, total)

    return count


def round_line(metrics: dict[str, Any], *, rounds: int) -> str:
    """Describe a round in one line.

    >>> round_line({"round": 1, "queries": 300, "student_loss": 1.5, "agreement": None,
    ...             "seconds": 2}, rounds=8).split()
    ['1/8', '300', '1.5000', '-', '2']
    """
    probe = metrics.get("probe")
    return _row(
        f"{metrics['round']}/{rounds}",
        f"{metrics['queries']:,}",
        f"{metrics['student_loss']:.4f}",
        shown(metrics["agreement"]),
        shown(probe["agreement"]) if probe else "",
        shown(probe.get("constant")).partition(" ")[0] if probe else "",
        f"{metrics['seconds']:,}",
        has_probe=probe is not None,
    )


def _row(
    number: str,
    queries: str,
    loss: str,
    agreement: str,
    on_the_probe: str,
    constant: str,
    seconds: str,
    *,
    has_probe: bool,
) -> str:
    probe = f"  {on_the_probe:>19}  {constant:>8}" * has_probe
    return f"{number:>9}  {queries:>9}  {loss:>8}  {agreement:>18}{probe}  {seconds:>8}"

"""Following a run that another process or machine makes, through its files alone.

Only complete lines are read, and nothing is written or locked. What is shown depends on releases
and public choices, as do the files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dpsd.errors import RunError, reason
from dpsd.privacy.accounting import format_epsilon
from dpsd.privacy.records.certificate import Certificate, certify
from dpsd.privacy.records.statement import Statement
from dpsd.reporting.federations import stated_epsilon
from dpsd.reporting.progress import RoundLines, duration, round_line
from dpsd.runs.directory import RunDirectory
from dpsd.runs.files import CONFIG_FILE
from dpsd.runs.journal import Client

#: The length of a bar.
_LENGTH = 30
#: The seconds in which a process that has just begun a run may not have locked it yet.
_BEGINNING = 5.0
#: The seconds for which a run must be seen abandoned before the watching ends: a process that
#: resumes it may take as long to start.
_PATIENCE = 30.0
#: The rounds whose duration tells how long others will take.
_RECENT = 3


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of a moment is shown at once.

    Args:
        rounds: the most rounds; 0 to leave out all that is about rounds.
        bars: the most lines with bars, of classes and of sources; 0 to leave bars out.
        clients: the most clients of a federation.
        explained: whether it is said what the numbers of rounds are about.
    """

    rounds: int = 5
    bars: int = 10
    clients: int = 1_000
    explained: bool = True


#: From all that is shown where there is room to the least: what matters least is given up first.
#: One line of bars would say only that there are more.
_SIZES = (
    *(Sizes(bars=bars) for bars in range(10, 3, -1)),
    *(Sizes(rounds=rounds, bars=4) for rounds in (4, 3, 2)),
    *(Sizes(rounds=2, bars=bars) for bars in (3, 2)),
    *(Sizes(rounds=rounds, bars=2, explained=False) for rounds in (2, 1)),
    Sizes(rounds=1, bars=0, explained=False),
    *(Sizes(rounds=1, bars=0, explained=False, clients=most) for most in (20, 10, 5, 2)),
    *(Sizes(rounds=0, bars=0, explained=False, clients=most) for most in (1_000, 2, 0)),
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """A run at one moment.

    Args:
        rounds: the most rounds that the run may have.
        metrics: the metrics of the finished rounds.
        certificate: what was spent so far; ``None`` if nothing was asked yet.
        is_finished: whether the run is finished.
        silent: the seconds since the run last wrote into its settings, ledger or metrics.
        is_executed: whether a process executes the run; ``None`` if that cannot be known from here.
        resuming: the command that continues the run.
        clients: the clients of a federation; empty for other runs.
    """

    rounds: int
    metrics: list[dict[str, Any]]
    certificate: Certificate | None
    is_finished: bool
    silent: float
    is_executed: bool | None = None
    resuming: str = ""
    clients: Sequence[Client] = ()

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody executes the run, which is not finished and has not begun just now."""
        return not self.is_finished and self.is_executed is False and self.silent > _BEGINNING

    @property
    def left(self) -> float | None:
        """The seconds that the remaining rounds may take; ``None`` if nothing tells."""
        recent = [float(line["seconds"]) for line in self.metrics[-_RECENT:]]
        if not recent or self.is_finished or self.is_abandoned:
            return None
        return sum(recent) / len(recent) * (self.rounds - len(self.metrics))

    @property
    def spent(self) -> str:
        """What was spent so far, and of what, with the adjacency."""
        return self.spent_by(len(self.clients))

    def spent_by(self, most: int) -> str:
        """Return what was spent so far; in a federation, by so many of its clients."""
        if self.clients:
            stated = [f"{client.name}: {stated_epsilon(client)}" for client in self.clients]
            more = _more(len(stated) - most, "client")
            return "\n".join(["Spent so far, as each client stated it:", *stated[:most], *more])
        if self.certificate is None:
            return "Nothing was asked yet."
        target = self.certificate.target
        claim = Statement(certificate=self.certificate).claim.replace("`", "")
        return (
            f"Spent so far: {claim}. The run was calibrated to ε = "
            f"{format_epsilon(float(str(target['epsilon'])))} under {target['adjacency']}."
        )


class Watch:
    """Looks at a run again and again.

    Args:
        run: the run.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._rounds = run.recipe.rounds
        self._names = run.class_names()
        self._certificate: Certificate | None = None
        self._reserved = 0

    def look(self) -> Look:
        """Return what the run's files say now.

        Raises:
            RunError: a file is damaged.
        """
        ledger, metrics = self._run.ledger, self._run.path / "metrics.jsonl"
        reserved = len(ledger.reservations()) if ledger.is_begun() else 0
        if reserved != self._reserved:  # ε takes a moment to compute
            self._certificate, self._reserved = certify(ledger, student=""), reserved
        files = (self._run.path / CONFIG_FILE, ledger.path, metrics)
        written = [path.stat().st_mtime for path in files if path.exists()]
        return Look(
            rounds=self._rounds,
            # Before its last line, a run may have written its last metrics.
            is_finished=self._run.is_finished(),
            metrics=_complete_lines(metrics),
            certificate=self._certificate,
            silent=max(0.0, time.time() - max(written, default=time.time())),
            is_executed=self._run.is_executed(),
            resuming=self._run.resuming,
            clients=self._run.clients(),
        )

    def fitted(self, look: Look, console: Console) -> RenderableType:
        """Return as much of a moment as a terminal shows without cutting anything off."""
        view: RenderableType = ""
        for sizes in _SIZES:
            view = self.view(look, sizes)
            # The cursor stands in a line of its own.
            if len(console.render_lines(view, pad=False)) < console.height:
                break
        return view

    def view(self, look: Look, sizes: Sizes) -> RenderableType:
        """Return what a terminal shows of a moment."""
        done = len(look.metrics)
        row = Table.grid(padding=(0, 1))
        row.add_row("rounds", ProgressBar(total=look.rounds, completed=done, width=_LENGTH))
        row.columns[1].width = _LENGTH
        parts: list[RenderableType] = [row, Text(_state(look)), Text(look.spent_by(sizes.clients))]
        if look.metrics and sizes.rounds:
            last = look.metrics[-1]
            lines = RoundLines.about(last) if sizes.explained else ()
            parts += [Text(""), *(Text(line, style="dim") for line in lines)]
            parts.append(Text(RoundLines.headings(last), style="bold"))
            shown = look.metrics[-sizes.rounds :]
            parts += [Text(round_line(line, rounds=look.rounds)) for line in shown]
            if sizes.bars:
                parts += [Text(""), self._shares(last, sizes.bars)]
        return Group(*parts)

    def _shares(self, last: Mapping[str, Any], most: int) -> RenderableType:
        """The shares of classes and of sources in a round, side by side."""
        names = self._names or tuple(map(str, range(len(last["label_shares"]))))
        classes = dict(zip(names, last["label_shares"], strict=False))
        total = max(1, sum(last["sources"].values()))
        sources = {name: count / total for name, count in last["sources"].items()}
        bars = Table.grid(padding=(0, 4))
        bars.add_row(
            _bars("the teacher's answers, estimated from releases", classes, "class", most),
            _bars("sources of the last round's queries", sources, "source", most),
        )
        return bars


def follow(
    run: RunDirectory,
    console: Console,
    *,
    every: float = 1.0,
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Look:
    """Show a run until it is finished: redrawn in a terminal, and elsewhere as a line per round.

    In a terminal, a run that nobody executes is said to be so, and watched on. Elsewhere, the
    watching ends after 30 s of it, as nobody would see that it goes on for ever.

    Args:
        run: the run.
        console: the console to write to.
        every: the seconds between two looks.
        wait: a function that waits so many seconds.
        clock: a function that returns the seconds since some moment.

    Returns:
        The last look.

    Raises:
        RunError: a file of the run is damaged; or, where there is no terminal, nobody executes it.
    """
    watch = Watch(run)
    look = watch.look()
    lines, told = RoundLines(console, rounds=look.rounds), 0
    is_drawn = console.is_terminal
    abandoned_since: float | None = None
    with Live(console=console, auto_refresh=False) if is_drawn else nullcontext() as live:
        while True:
            if live is not None:
                live.update(watch.fitted(look, console), refresh=True)
            else:
                for line in look.metrics[told:]:
                    lines.show(line)
                told = len(look.metrics)
            if look.is_finished:
                return look
            if not look.is_abandoned:
                abandoned_since = None
            elif abandoned_since is None:
                abandoned_since = clock()
            elif live is None and clock() - abandoned_since >= _PATIENCE:
                raise RunError(f"{run.path} is not finished, and {abandoned(look)}")
            wait(every)
            look = watch.look()


def _state(look: Look) -> str:
    """How far the run is, how fast, and how long it may still take."""
    text = f"{len(look.metrics)} of {look.rounds} rounds"
    if look.is_finished:
        return f"{text}; finished"
    if look.metrics and (seconds := look.metrics[-1]["seconds"]):
        text += f", {look.metrics[-1]['queries'] / seconds:,.0f} queries/s in the last"
    if look.left is not None:
        text += f"; about {duration(look.left)} left"
    text += f"; last written {duration(look.silent)} ago"
    return f"{text}; {abandoned(look)}" if look.is_abandoned else text


def abandoned(look: Look) -> str:
    """Say of a run that nobody executes it, and how it is continued."""
    return f"nobody is executing it here: continue with {look.resuming}"


def _bars(title: str, shares: Mapping[str, float], kind: str, most: int) -> RenderableType:
    """Shares as bars in so many lines, the largest of many."""
    shown = len(shares) if len(shares) <= most else most - 1  # a line says how many more there are
    kept = set(sorted(shares, key=lambda name: -shares[name])[:shown])
    grid = Table.grid(padding=(0, 1))
    for name, share in shares.items():
        if name in kept:
            grid.add_row(name, f"{share:4.0%}", Bar(1.0, 0, min(1.0, share), width=_LENGTH // 2))
    more = _more(len(shares) - shown, kind)
    return Group(Text(title, style="dim"), grid, *(Text(line, style="dim") for line in more))


def _more(count: int, kind: str) -> list[str]:
    """Say in a line how many are not shown, if there are any.

    >>> _more(1, "client"), _more(1_992, "class"), _more(0, "class")
    (['and 1 more client'], ['and 1,992 more classes'], [])
    """
    ending = "" if count == 1 else "es" if kind.endswith("s") else "s"
    return [f"and {count:,} more {kind}{ending}"] if count > 0 else []


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """The metrics in the complete lines of a file that another process is writing."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
        return [line for _, line in sorted({line["round"]: line for line in lines}.items())]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from None

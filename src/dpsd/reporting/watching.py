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

#: The most rounds, classes and sources that are shown at once, and the length of a bar.
_MOST_ROUNDS, _MOST_BARS, _LENGTH = 5, 10, 30
#: The seconds in which a process that has just begun a run may not have locked it yet.
_BEGINNING = 5.0
#: The seconds for which a run must be seen abandoned before the watching ends: a process that
#: resumes it may take as long to start.
_PATIENCE = 30.0
#: The rounds whose duration tells how long others will take.
_RECENT = 3


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
        if self.clients:
            stated = (f"{client.name}: {stated_epsilon(client)}" for client in self.clients)
            return "\n".join(["Spent so far, as each client stated it:", *stated])
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

    def view(self, look: Look) -> RenderableType:
        """Return what a terminal shows of a moment."""
        done = len(look.metrics)
        row = Table.grid(padding=(0, 1))
        row.add_row("rounds", ProgressBar(total=look.rounds, completed=done, width=_LENGTH))
        row.columns[1].width = _LENGTH
        parts: list[RenderableType] = [row, Text(_state(look)), Text(look.spent)]
        if look.metrics:
            last = look.metrics[-1]
            lines = RoundLines.about(last)
            parts += [Text(""), *(Text(line, style="dim") for line in lines)]
            parts.append(Text(RoundLines.headings(last), style="bold"))
            shown = look.metrics[-_MOST_ROUNDS:]
            parts += [Text(round_line(line, rounds=look.rounds)) for line in shown]
            names = self._names or tuple(map(str, range(len(last["label_shares"]))))
            classes = dict(zip(names, last["label_shares"], strict=False))
            total = max(1, sum(last["sources"].values()))
            sources = {name: count / total for name, count in last["sources"].items()}
            bars = Table.grid(padding=(0, 4))
            bars.add_row(
                _bars("the teacher's answers, estimated from releases", classes),
                _bars("sources of the last round's queries", sources),
            )
            parts += [Text(""), bars]
        return Group(*parts)


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
                live.update(watch.view(look), refresh=True)
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


def _bars(title: str, shares: Mapping[str, float]) -> RenderableType:
    """Shares as bars, the largest of many."""
    kept = set(sorted(shares, key=lambda name: -shares[name])[:_MOST_BARS])
    grid = Table.grid(padding=(0, 1))
    for name, share in shares.items():
        if name in kept:
            grid.add_row(name, f"{share:4.0%}", Bar(1.0, 0, min(1.0, share), width=_LENGTH // 2))
    more = f" ({_MOST_BARS} of {len(shares):,})" if len(shares) > _MOST_BARS else ""
    return Group(Text(f"{title}{more}", style="dim"), grid)


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """The metrics in the complete lines of a file that another process is writing."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
        return [line for _, line in sorted({line["round"]: line for line in lines}.items())]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from None

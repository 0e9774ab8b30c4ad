"""Running a suite: every row with every seed, each in a process of its own, and never one twice.

Every run is a line of ``results.jsonl`` as soon as it is done, so that an interrupted suite goes on
where it was. A line whose row has changed since is measured anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch

from dpsd.benchmarks.methods import Outcome
from dpsd.benchmarks.processes import in_a_process
from dpsd.benchmarks.rows import Quoted, Row
from dpsd.errors import DpsdError, RunError


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of one row with one seed.

    Args:
        row: its key.
        settings: hash of all that the row states.
        seed: of queries and training.
        outcome: accuracy, seconds, ε and more.
        peak_memory: of its process, in bytes.
        hardware: processor, threads and versions.
        day: ISO date.
    """

    row: str
    settings: str
    seed: int
    outcome: Outcome
    peak_memory: int
    hardware: str
    day: str

    @classmethod
    def parse(cls, line: str) -> Measured:
        """From a line of ``results.jsonl``."""
        values = json.loads(line)
        return cls(**{**values, "outcome": Outcome(**values["outcome"])})

    def to_line(self) -> str:
        """As a line of ``results.jsonl``."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def measure_all(
    rows: Sequence[Row],
    *,
    seeds: int,
    results: Path,
    began: Callable[[Row, int], None] = lambda row, seed: None,
    ended: Callable[[Measured], None] = lambda measured: None,
    failed: Callable[[Row, int, DpsdError], None] | None = None,
) -> list[Measured]:
    """Measure what was not yet, and return all that belongs to the rows.

    Args:
        rows: of a suite.
        seeds: each row is run with seeds 0 to ``seeds - 1``.
        results: ``results.jsonl``; made if it is not there.
        began: told before each run.
        ended: told after each, of those of an earlier session too.
        failed: told of those that cannot be run, and the others go on; if not given, all end.

    Raises:
        RunError: the results cannot be read.
    """
    known = {(one.row, one.settings, one.seed): one for one in read_results(results)}
    found = []
    results.parent.mkdir(parents=True, exist_ok=True)
    for row, seed in _runs(rows, seeds):
        settings = settings_of(row)
        measured = known.get((row.key, settings, seed))
        if measured is None:
            began(row, seed)
            try:
                measured = _run(row, settings, seed)
            except DpsdError as error:
                if failed is None:
                    raise
                failed(row, seed, error)
                continue
            with results.open("a", encoding="utf-8") as lines:
                lines.write(measured.to_line())
        found.append(measured)
        ended(measured)
    return found


def read_results(path: Path) -> list[Measured]:
    """Everything measured so far; a last line that was cut off by a crash is passed over.

    Raises:
        RunError: the file cannot be read.
    """
    if not path.exists():
        return []
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    if rest:
        # Half a line would spoil the next one.
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    try:
        return [Measured.parse(line) for line in lines]
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} cannot be read: {error}; move it away to measure anew") from None


def settings_of(row: Row) -> str:
    """A hash of all that a row states, but for where teachers are kept.

    Defaults and code that it does not state may change unseen: then measure in another folder.
    """
    said = repr((row.method, row.task.data, row.task.model, row.target))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _runs(rows: Sequence[Row], seeds: int) -> Iterator[tuple[Row, int]]:
    """Every row once before any again, so that a table is whole early."""
    for seed in range(seeds):
        for row in rows:
            if not isinstance(row.method, Quoted):
                yield row, seed


def _run(row: Row, settings: str, seed: int) -> Measured:
    outcome, peak = in_a_process(_measure, row, seed)
    return Measured(
        row=row.key,
        settings=settings,
        seed=seed,
        outcome=outcome,
        peak_memory=peak,
        hardware=hardware(),
        day=date.today().isoformat(),
    )


def _measure(row: Row, seed: int) -> tuple[Outcome, int]:
    assert not isinstance(row.method, Quoted)
    torch.manual_seed(seed)
    # What an unwise setting costs is what is being measured.
    warnings.simplefilter("ignore", UserWarning)
    outcome = row.method.measure(row.task, target=row.target, seed=seed)
    # Kilobytes on Linux, bytes on a Mac.
    unit = 1 if sys.platform == "darwin" else 1024
    return outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def hardware() -> str:
    """What figures were measured on, in a line."""
    threads = torch.get_num_threads()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    said = f"{device}, {platform.machine()}, {os.cpu_count()} cores, {threads} threads"
    return f"{said}, torch {torch.__version__}"

"""Running a suite: every row with every seed, each in a process of its own, and never one twice.

Every run is a line of ``results.jsonl`` as soon as it is done, so that an interrupted suite goes on
where it was. A row that states something else than its line is measured anew.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import torch

from dpsd.benchmarks.kept import Kept, Measured, Version, by_others, settings_of
from dpsd.benchmarks.methods import Outcome
from dpsd.benchmarks.processes import in_a_process
from dpsd.benchmarks.rows import Quoted, Row
from dpsd.benchmarks.versions import made_by
from dpsd.devices.memory import peak_process_memory
from dpsd.errors import DpsdError


def measure_all(
    rows: Sequence[Row],
    *,
    seeds: int,
    results: Path,
    again: bool = False,
    began: Callable[[Row, int], None] = lambda row, seed: None,
    ended: Callable[[Measured], None] = lambda measured: None,
    failed: Callable[[Row, int, DpsdError], None] | None = None,
) -> list[Measured]:
    """Measure what was not yet, and return all that belongs to the rows.

    Args:
        rows: those of a suite.
        seeds: each row is run with seeds 0 to ``seeds - 1``.
        results: ``results.jsonl``; made if it is not there.
        again: measure what another version of dpsd kept, too.
        began: told before each run.
        ended: told after each, of those of an earlier session too.
        failed: told of those that cannot be run, and the others go on; if not given, all end.

    Raises:
        RunError: the results cannot be read.
    """
    kept = Kept(results)
    found = []
    results.parent.mkdir(parents=True, exist_ok=True)
    for row, seed in _runs(rows, seeds):
        measured = kept.find(row, seed)
        if measured is None or (again and Version.of(measured, row) is not Version.THIS):
            began(row, seed)
            try:
                measured = _run(row, settings_of(row), seed)
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


def kept_by_others(rows: Sequence[Row], *, seeds: int, results: Path) -> str:
    """Which rows another version of dpsd measured, in a few words; empty where none did.

    Raises:
        RunError: the results cannot be read.
    """
    kept = Kept(results)
    runs = [(row, kept.find(row, seed)) for row, seed in _runs(rows, seeds)]
    return by_others((row, one) for row, one in runs if one is not None)


def _runs(rows: Sequence[Row], seeds: int) -> Iterator[tuple[Row, int]]:
    """Every row once before any again, so that a table is whole early."""
    for seed in range(seeds):
        for row in rows:
            if not isinstance(row.method, Quoted):
                yield row, seed


def _run(row: Row, settings: str, seed: int) -> Measured:
    outcome, peak, version = in_a_process(_measure, row, seed)
    return Measured(
        row=row.key,
        settings=settings,
        seed=seed,
        outcome=outcome,
        peak_memory=peak,
        hardware=hardware(),
        day=date.today().isoformat(),
        made_by=version,
    )


def _measure(row: Row, seed: int) -> tuple[Outcome, int, str]:
    assert not isinstance(row.method, Quoted)
    version = made_by(row)  # as this process has just imported it; it may change under a long suite
    torch.manual_seed(seed)
    # What an unwise setting costs is what is being measured.
    warnings.simplefilter("ignore", UserWarning)
    outcome = row.method.measure(row.task, target=row.target, seed=seed)
    return outcome, peak_process_memory(), version


def hardware() -> str:
    """What figures were measured on, in a line."""
    threads = torch.get_num_threads()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    said = f"{device}, {platform.machine()}, {os.cpu_count()} cores, {threads} threads"
    return f"{said}, torch {torch.__version__}"

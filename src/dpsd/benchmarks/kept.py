"""What was measured before: the lines of ``results.jsonl``, and which version measured each.

A line belongs to a row as long as the row states the same. Code and defaults may have changed since
it was written: then it still counts, as another version's, until it is measured again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from dpsd.benchmarks.methods import Outcome
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.versions import made_by
from dpsd.errors import RunError


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of one row with one seed.

    Args:
        row: its key.
        settings: hash of all that the row states.
        seed: decides queries and training.
        outcome: accuracy, seconds, ε and more.
        peak_memory: the most that its process held, in bytes.
        hardware: processor, threads and versions.
        day: ISO date.
        made_by: hash of the code and defaults that it was measured with; lines that were written
            before there was one have none.
    """

    row: str
    settings: str
    seed: int
    outcome: Outcome
    peak_memory: int
    hardware: str
    day: str
    made_by: str = ""

    @classmethod
    def parse(cls, line: str) -> Measured:
        """From a line of ``results.jsonl``."""
        values = json.loads(line)
        return cls(**{**values, "outcome": Outcome(**values["outcome"])})

    def to_line(self) -> str:
        """As a line of ``results.jsonl``."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


class Version(StrEnum):
    """Which version of dpsd measured a row, seen from this one."""

    THIS = "this version"
    OTHER = "another version"
    UNKNOWN = "an unknown version"

    @classmethod
    def of(cls, measured: Measured, row: Row) -> Version:
        """The one that measured this row."""
        if not measured.made_by:
            return cls.UNKNOWN
        return cls.THIS if measured.made_by == made_by(row) else cls.OTHER


class Kept:
    """The results in a file.

    Args:
        path: ``results.jsonl``; need not be there.

    Raises:
        RunError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._lines: dict[tuple[str, str, int], list[Measured]] = {}
        for one in read_results(path):
            self._lines.setdefault((one.row, one.settings, one.seed), []).append(one)

    def find(self, row: Row, seed: int) -> Measured | None:
        """What this version measured of a row with a seed, else what another did last."""
        lines = self._lines.get((row.key, settings_of(row), seed), [])
        own = [one for one in lines if Version.of(one, row) is Version.THIS]
        return next(reversed(own or lines), None)


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
    """A hash of all that a row states, but for where teachers are kept."""
    said: tuple[object, ...] = row.method, row.task.data, row.task.model, row.target
    if row.task.validation_share:
        said += (row.task.validation_share,)
    # What was measured before methods could have features had none.
    text = repr(said).replace(", features=None", "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def by_others(measured: Iterable[tuple[Row, Measured]]) -> str:
    """Which rows other versions measured, in a few words and each once; empty where none did."""
    found: dict[Version, dict[str, None]] = {Version.OTHER: {}, Version.UNKNOWN: {}}
    for row, one in measured:
        if (version := Version.of(one, row)) is not Version.THIS:
            found[version][row.key] = None
    return "; ".join(
        f"kept by {version}: {', '.join(keys)}" for version, keys in found.items() if keys
    )

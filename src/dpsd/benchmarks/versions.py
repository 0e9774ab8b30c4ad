"""What decides a figure beside what its row states: the package's code, and defaults in it.

A figure is kept with a hash of both, and shown as another version's where they have changed since.
The rule is simple, so a change that moves no figure counts as one too: every module of the package
decides, but for those that only name, show or print.

>>> len(source_hash())
64
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from dpsd.benchmarks.methods import Method
from dpsd.benchmarks.racing import Race
from dpsd.benchmarks.rows import Quoted, Row
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.privacy.targets import Budget

_PACKAGE = Path(__file__).parents[1]

#: What decides no figure: whatever a suite decides is stated in its rows.
SHOWING = (
    "cli/",
    "reporting/",
    "benchmarks/suites/",
    "benchmarks/figures.py",
    "benchmarks/tables.py",
)


def made_by(row: Row) -> str:
    """A hash of the code and of all settings of a row, with defaults where it states none."""
    said = f"{source_hash()} {_settled(row.method, row.target)!r}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


@cache
def source_hash(package: Path = _PACKAGE) -> str:
    """A hash of a package's Python files, but for :data:`SHOWING`: of their places and contents."""
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).as_posix()
        if not place.startswith(SHOWING):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{place} {content}\n".encode())
    return found.hexdigest()


def _settled(method: Method | Quoted, target: Budget | None) -> object:
    if isinstance(method, Race):
        return _settled(method.method, target), method.reach
    if isinstance(method, Transcribing) and target is not None:
        return method.configuration(target), method.shards
    return method  # a dataclass, whose fields are all that can be set

"""``attacks/KIND.json``: what an attack on a run found, and whether the attack works at all.

An attack that finds nothing says something only if it would have found what is there. Every attack
therefore has controls, in which a leak is planted; if it misses one of them, the attack is invalid
and its verdict is not shown. Scores are named and numbered, and those of different versions are
never compared.

Findings are measured on private data with the teacher itself, so no ε covers them. They lie in the
run directory for the owner of the data and are no part of what a run may publish.

>>> control = Control(name="memorised", found=False, sentence="The student knew every record.")
>>> findings = Findings(
...     kind="copies", run="f00", student="abc", data="digits", seed=0, seconds=2.0,
...     verdict="No near-copies were found.", controls=(control,), scores={"nearest": 1},
... )
>>> findings.is_valid, findings.sentence()
(False, 'Attack invalid: it failed its own controls (memorised). Nothing follows from it.')
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, with_config

from dpsd.errors import RunError
from dpsd.runs.files import ATTACKS, ATTACKS_FOLDER
from dpsd.storage.files import read_json, write_text
from dpsd.storage.stated import as_json, from_json, validated

#: The folder of findings in a run directory, and the version of their files. Those of version 1 may
#: come from a quick attack without saying so.
FOLDER, VERSION = ATTACKS_FOLDER, 2
KINDS = ATTACKS

Cell = str | int | float | None

#: A file that states anything else is refused.
_WHOLE = ConfigDict(extra="forbid")

#: What is said of findings that were made with little effort.
QUICK = (
    "This was a quick attack, made small to try the command out: a decision needs one of full size."
)

#: The names of columns with the ends of an interval.
_END = re.compile(r"\b(from|to),?( %)?$")
#: The names of columns with the probability that chance does as much, and the least that is told.
_P, LEAST_P = re.compile(r"p\b"), 1e-4
#: The name of a column that says on which side of chance an interval lies, and what it means.
AGAINST, NOT_APART = "against chance", "not told apart"
NOT_TOLD = "Not told apart: the interval includes 50%, so chance alone may explain the share."


@with_config(_WHOLE)
@dataclass(frozen=True, kw_only=True)
class Control:
    """A leak that was planted, which an attack must find.

    Args:
        name: a short name, such as ``"memorising student"``.
        found: whether the attack found it.
        sentence: what was planted and what the attack said of it, in a full sentence.
    """

    name: str
    found: bool
    sentence: str


@with_config(_WHOLE)
@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of numbers.

    Args:
        title: what the table shows, and which direction is worse for privacy.
        columns: the names of the columns; the first names the rows.
        rows: the cells. A float in [0, 1] is a share, which is shown in percent if the name of its
            column ends in ``%``. The ends of an interval follow what it is about, in columns whose
            names end in ``from`` and ``to``, and are shown with it. A p is shown as below
            :data:`LEAST_P` if it is, in a column whose name begins with ``p``.
        note: what the columns mean, in sentences, where their names do not say it.

    >>> numbers = Table(
    ...     title="Rates", columns=("score", "found %", "from %", "to %"),
    ...     rows=(("lira", 0.125, 0.1, 0.15), ("rmia", None, None, None)),
    ... )
    >>> numbers.headings(), numbers.texts()
    (('score', 'found %'), (('lira', '12.5% (10.0% to 15.0%)'), ('rmia', '-')))
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.title!r}: a row has not {len(self.columns)} cells")

    def headings(self) -> tuple[str, ...]:
        """Return the names of the columns that are shown."""
        return tuple(self.columns[place] for place in self._places())

    def texts(self) -> tuple[tuple[str, ...], ...]:
        """Return the cells that are shown, as text."""
        return tuple(tuple(self._text(row, place) for place in self._places()) for row in self.rows)

    def _places(self) -> list[int]:
        ends = [bool(_END.search(name)) for name in self.columns]
        return [place for place, is_end in enumerate(ends) if not is_end]

    def _text(self, row: tuple[Cell, ...], place: int) -> str:
        ends = place + 1, place + 2
        if ends[1] >= len(row) or not _END.search(self.columns[ends[0]]) or row[ends[0]] is None:
            return _as_text(row[place], self.columns[place])
        # A number and the ends of its interval have equally many decimals.
        value, low, high = (
            _as_text(row[one], self.columns[one], decimals=",.3f") for one in (place, *ends)
        )
        return f"{value} ({low} to {high})"


def _as_text(cell: Cell, column: str, *, decimals: str = ",.3g") -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        if _P.match(column):
            return p_in_words(cell).removeprefix("= ")
        if math.isinf(cell):
            return "∞" if cell > 0 else "-∞"
        return f"{cell:.1%}" if column.endswith("%") else format(cell, decimals)
    return f"{cell:,}" if isinstance(cell, int) else cell


def p_in_words(p: float, *, least: float = LEAST_P) -> str:
    """Return how likely chance does as much, as it follows a "p"; never that it cannot happen.

    Args:
        p: the probability, in [0, 1].
        least: the least that is told.

    >>> p_in_words(0.0123), p_in_words(0.0)
    ('= 0.0123', '< 0.0001')
    """
    return f"= {p:,.3g}" if p >= least else f"< {least:g}"


def against_chance(low: float, high: float) -> str:
    """Return on which side of a half, which is chance, the interval of a share lies.

    >>> against_chance(0.457, 0.811), against_chance(0.55, 0.6), against_chance(0.1, 0.4)
    ('not told apart', 'above', 'below')
    """
    return "above" if low > 0.5 else "below" if high < 0.5 else NOT_APART


@with_config(_WHOLE)
@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure beside the findings, as SVG, PNG or both.

    Args:
        name: the file's name without its suffix, below ``attacks/``.
        caption: what is shown.
        finding: what can be seen, in a full sentence: the alternative text.
        shows_records: whether it shows private records themselves.
    """

    name: str
    caption: str
    finding: str
    shows_records: bool = False


@with_config(_WHOLE)
@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an attack found.

    Args:
        kind: one of ``KINDS``.
        run: the identity of the run.
        student: the hash of the student's file.
        data: the name of the private data set.
        seed: the seed of the attack.
        seconds: the time that was spent on it, also before it was interrupted or repeated.
        verdict: what was found, in plain sentences that state numbers and intervals, in paragraphs
            with an empty line between them. The first stands for all of them in a summary.
        controls: the planted leaks, at least one.
        scores: the version of each score that was used, by name.
        tables: the numbers.
        pictures: the figures.
        settings: the settings of the attack, in JSON types.
        details: further numbers, in JSON types.
        is_quick: whether the attack was made small, to try it out.
        asked: the flags of ``dpsd attack`` with which it was asked for, besides those that follow
            from what is stated here.

    Raises:
        ValueError: the kind is unknown, or there is no control.
    """

    kind: str
    run: str
    student: str
    data: str
    seed: int
    seconds: float
    verdict: str
    controls: tuple[Control, ...]
    scores: Mapping[str, int]
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    is_quick: bool = False
    asked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; known are {', '.join(KINDS)}")
        if not self.controls:
            raise ValueError(f"findings of {self.kind} have no control, so they would say nothing")

    @property
    def is_valid(self) -> bool:
        """Whether the attack found everything that was planted."""
        return all(control.found for control in self.controls)

    @property
    def further(self) -> tuple[str, ...]:
        """The names of the further models that were attacked beside the run's own."""
        attacked = self.details.get("attacked")
        also = attacked.get("also") if isinstance(attacked, Mapping) else None
        return tuple(also) if isinstance(also, Mapping) else ()

    @property
    def validity(self) -> str:
        """Whether the attack is valid, with the number of its controls."""
        count, missed = len(self.controls), sum(not one.found for one in self.controls)
        quick = "quick; " * self.is_quick
        if missed:
            return f"{quick}invalid: {missed:,} of {count:,} controls failed"
        return f"{quick}valid: {'its control' if count == 1 else f'all {count:,} controls'} passed"

    @property
    def asking(self) -> tuple[str, ...]:
        """The flags of ``dpsd attack`` that repeat the attack, for the same run."""
        # Findings of an attack from Python do not tell where further models are.
        also = () if self.asked else (f"{name}=PATH" for name in self.further)
        return (
            *("--data", self.data, "--kind", self.kind),
            *(("--seed", str(self.seed)) if self.seed else ()),
            *(("--quick",) if self.is_quick else ()),
            *(self.asked or (word for one in also for word in ("--also", one))),
        )

    def paragraphs(self) -> tuple[str, ...]:
        """Return the verdict in its paragraphs, or that the attack is invalid."""
        found = tuple(self.verdict.split("\n\n"))
        if not self.is_valid:
            missed = ", ".join(control.name for control in self.controls if not control.found)
            found = (
                f"Attack invalid: it failed its own controls ({missed}). Nothing follows from it.",
            )
        return (*found, QUICK) if self.is_quick else found

    def sentence(self) -> str:
        """Return the first paragraph of the verdict, and whether the attack was a quick one."""
        first, *_ = found = self.paragraphs()
        return f"{first} {found[-1]}" if self.is_quick else first

    def to_dict(self) -> dict[str, Any]:
        """Return everything in JSON types, and that nothing is privatised."""
        stated = {"version": VERSION, "privatised": False, "is_valid": self.is_valid}
        return stated | dict(as_json(asdict(self)))

    def save(self, run: Path) -> Path:
        """Write the findings into a run directory, and return the path of the file.

        Raises:
            RunError: the disk is full, or the directory cannot be written to.
        """
        (run / FOLDER).mkdir(exist_ok=True)
        path = run / FOLDER / f"{self.kind}.json"
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(path, f"{text}\n")
        return path


def read_findings(run: Path, kinds: Sequence[str] = KINDS) -> list[Findings]:
    """Read the findings of a run, in the order of ``kinds``.

    Args:
        run: the run directory.
        kinds: the kinds that are read; by default, all of them.

    Raises:
        RunError: a file that is read is damaged, or of another version.
    """
    paths = [run / FOLDER / f"{kind}.json" for kind in kinds]
    return [_restored(path) for path in paths if path.is_file()]


def _restored(path: Path) -> Findings:
    content = read_json(path)
    if content.pop("version", None) != VERSION:
        raise RunError(f"{path} was written by another version of dpsd: attack the run again")
    said = {name: content.pop(name, None) for name in ("privatised", "is_valid")}
    try:
        found = validated(Findings, content)
        for name, expected in {"privatised": False, "is_valid": found.is_valid}.items():
            if said[name] is not expected:
                raise ValueError(f"{name}: the findings make it {expected} (not {said[name]!r})")
        return replace(
            found,
            tables=tuple(
                replace(one, rows=tuple(tuple(map(from_json, row)) for row in one.rows))
                for one in found.tables
            ),
            details=from_json(found.details),
        )
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}): attack the run again") from None

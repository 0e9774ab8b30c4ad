"""Showing what attacks found, on terminals of any width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dpsd.cli.console import RESULTS, grid, say, show
from dpsd.runs.files import ATTACKS_FOLDER

if TYPE_CHECKING:
    from dpsd.runs.directory import RunDirectory
    from dpsd.runs.findings import Findings, Table

#: The spaces between two columns, and the narrowest headings that are broken into lines: the
#: second only where the first would split a table into more parts.
_GAP, _NARROWEST = 2, (14, 1)


def show_findings(found: Findings, directory: RunDirectory) -> None:
    """Print findings: whether they are valid, what was found, and where everything is."""
    folder = directory.path / ATTACKS_FOLDER
    size = "quick, " * found.is_quick
    say(f"{found.kind} ({size}{found.data}, seed {found.seed}, {found.seconds:,.0f} s)", "bold")
    say(found.validity, style=None if found.is_valid else "bold red")
    for paragraph in found.paragraphs():
        say(f"\n{paragraph}", style=None if found.is_valid else "bold red")
    for table in found.tables:
        say(f"\n{table.title}:")
        _show_table(table)
        if table.note:
            say(table.note, style="dim")
    passed = [control.name for control in found.controls if control.found]
    say("\nControls:")
    for control in found.controls:
        if not control.found:
            say(f"  FAILED: {control.sentence}")
    if passed:
        say(f"  passed: {'; '.join(passed)}")
    for picture in found.pictures:
        for path in sorted(folder.glob(f"{picture.name}.*")):
            records = "; it shows private records" * picture.shows_records
            say(f"  picture: {path}{records}")
    say(f"  findings, with what each control is: {folder / found.kind}.json\n")


def _show_table(table: Table) -> None:
    """Print a table; if it is too wide, in several parts that repeat the names of its rows."""
    rows = table.texts()
    # What names a row is at the left, in words.
    names = next(
        (
            place
            for place, column in enumerate(zip(*table.rows, strict=True))
            if not all(isinstance(cell, str) for cell in column)
        ),
        1,
    )
    for part in _fewest_parts(table.headings(), rows, names, RESULTS.width):
        headings = [heading for heading, _ in part]
        shown = grid(*headings, right=tuple(headings[names:]))
        for column in shown.columns:
            column.overflow = "fold"  # text that is wider than the terminal is broken, not cut
        for row in zip(*(cells for _, cells in part), strict=True):
            shown.add_row(*row)
        show(shown)


_Column = tuple[str, tuple[str, ...]]


def _fewest_parts(
    headings: Sequence[str], rows: Sequence[tuple[str, ...]], names: int, width: int
) -> list[list[_Column]]:
    """Return the columns in parts that fit; headings are broken further where that makes fewer."""
    found = []
    for narrowest in _NARROWEST:
        columns = [
            (_broken(heading, cells, narrowest), cells)
            for heading, cells in zip(headings, zip(*rows, strict=True), strict=True)
        ]
        found.append(list(_parts(columns[:names], columns[names:], width)))
    return min(found, key=len)


def _parts(names: list[_Column], rest: list[_Column], width: int) -> Iterator[list[_Column]]:
    """Yield as many columns at a time as fit beside those with the names, at least one."""
    part: list[_Column] = []
    for column in rest:
        if part and _width([*names, *part, column]) > width:
            yield [*names, *part]
            part = []
        part.append(column)
    yield [*names, *part]


def _width(columns: Sequence[_Column]) -> int:
    """The width of columns beside each other, with a gap between any two."""
    widths = [max(map(len, (*heading.split("\n"), *cells))) for heading, cells in columns]
    return sum(widths) + _GAP * (len(widths) - 1)


def _broken(heading: str, cells: Sequence[str], narrowest: int) -> str:
    """Break a heading between words into lines that are hardly wider than its cells."""
    width = max(narrowest, *map(len, (*cells, *heading.split())))
    return "\n".join(textwrap.wrap(heading, width, break_long_words=False)) or heading

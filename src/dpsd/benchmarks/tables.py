"""Measured rows as tables: Markdown to read, CSV to work with.

What was measured and what was published stand in columns of their own, and so does what each ε is
about: a table that mixes either compares what cannot be compared.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dpsd.benchmarks.kept import Measured, Version, by_others
from dpsd.benchmarks.methods import Unit
from dpsd.benchmarks.rows import Row

MISSING = "-"


@dataclass(frozen=True)
class Summary:
    """A row with all that was measured of it.

    Args:
        row: one row of the suite.
        runs: one a seed; none if it is only quoted, or its data are not here.
    """

    row: Row
    runs: Sequence[Measured]

    @property
    def accuracies(self) -> list[float]:
        """One a seed, in [0, 1]."""
        return [one.outcome.accuracy for one in self.runs if one.outcome.accuracy is not None]

    @property
    def seconds(self) -> float | None:
        """The median over seeds."""
        return statistics.median(one.outcome.seconds for one in self.runs) if self.runs else None

    @property
    def peak_memory(self) -> int | None:
        """The most over seeds, in bytes."""
        return max((one.peak_memory for one in self.runs), default=None)

    @property
    def mean(self) -> float | None:
        """The mean of the accuracies."""
        return statistics.mean(self.accuracies) if self.accuracies else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, of two runs or more."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


def summarise(rows: Sequence[Row], measured: Sequence[Measured]) -> list[Summary]:
    """Every row with its runs, in the suite's order."""
    return [Summary(row, [one for one in measured if one.row == row.key]) for row in rows]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Args:
        name: its heading.
        cell: the text for a summary among all summaries of the table.
        in_terminal: whether it is also shown in a terminal, which has room for few.
        is_number: whether it is aligned on the right there.
    """

    name: str
    cell: Callable[[Summary, Sequence[Summary]], str]
    in_terminal: bool = True
    is_number: bool = False


def cells(
    summary: Summary, columns: Sequence[Column] | None = None, *, among: Sequence[Summary] = ()
) -> tuple[str, ...]:
    """A row of the table, a cell a column.

    >>> from pathlib import Path
    >>> from dpsd.benchmarks.methods import Task
    >>> from dpsd.benchmarks.rows import Quoted
    >>> quoted = Quoted(name="DataLens", unit=Unit.RECORD, given="the training data")
    >>> row = Row(key="datalens", task=Task(data="mnist", teachers=Path()), method=quoted,
    ...           published=0.7123, source="CCS 2021")
    >>> cells(Summary(row, []))[5:8]
    ('-', '-', '71.23 (CCS 2021)')
    """
    return tuple(column.cell(summary, among) for column in columns or FIELD)


def percent(share: float | None) -> str:
    """A share in percent, to a hundredth; :data:`MISSING` if there is none."""
    return MISSING if share is None else f"{100 * share:.2f}"


def _epsilon(summary: Summary) -> str:
    row = summary.row
    is_private = row.target is not None and row.method.unit is not Unit.NOTHING
    return f"{row.target.epsilon:g}" if row.target and is_private else MISSING


def _spread(summary: Summary) -> str:
    return f"{percent(summary.spread)} ({len(summary.runs)})" if summary.runs else MISSING


def _published(summary: Summary) -> str:
    row = summary.row
    return MISSING if row.published is None else f"{percent(row.published)} ({row.source})"


def _seconds(summary: Summary) -> str:
    if summary.seconds is None:
        return MISSING
    # Only a race says whether its target was reached.
    lost = any(one.outcome.details.get("reached") is False for one in summary.runs)
    return f"{summary.seconds:,.0f}" + (", not reached" if lost else "")


def _peak(summary: Summary) -> str:
    return MISSING if summary.peak_memory is None else f"{summary.peak_memory / 1e6:,.0f}"


DATA = Column(name="data", cell=lambda one, _: one.row.task.data)
METHOD = Column(name="method", cell=lambda one, _: one.row.name)
EPSILON = Column(name="ε", cell=lambda one, _: _epsilon(one))
ABOUT = Column(name="ε is about", cell=lambda one, _: one.row.method.unit.value)
ACCURACY = Column(name="accuracy (%)", cell=lambda one, _: percent(one.mean), is_number=True)
SPREAD = Column(name="± (seeds)", cell=lambda one, _: _spread(one), in_terminal=False)
SECONDS = Column(name="seconds", cell=lambda one, _: _seconds(one), is_number=True)
GIVEN = Column(name="given", cell=lambda one, _: one.row.method.given, in_terminal=False)
PUBLISHED = Column(name="published (%)", cell=lambda one, _: _published(one), is_number=True)
PEAK = Column(name="peak MB", cell=lambda one, _: _peak(one), in_terminal=False)

#: The columns of the field's tables.
FIELD = (
    DATA,
    METHOD,
    GIVEN,
    EPSILON,
    ABOUT,
    ACCURACY,
    SPREAD,
    PUBLISHED,
    SECONDS,
    PEAK,
)


def markdown(
    title: str,
    summaries: Sequence[Summary],
    *,
    command: str,
    columns: Sequence[Column] = FIELD,
    note: str = "",
) -> str:
    """The table as Markdown, with what it takes to make it again.

    Args:
        title: its heading.
        summaries: its rows.
        command: the command that measures it.
        columns: its columns.
        note: sentences that explain columns of its own.
    """
    lines = [f"# {title}", ""]
    lines += [f"| {' | '.join(column.name for column in columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(cells(one, columns, among=summaries))} |" for one in summaries]
    deltas = {summary.row.target.delta for summary in summaries if summary.row.target}
    said = ", ".join(f"{delta:g}" for delta in sorted(deltas))
    places = sorted({one.hardware for summary in summaries for one in summary.runs})
    days = sorted({one.day for summary in summaries for one in summary.runs})
    others = by_others((summary.row, one) for summary in summaries for one in summary.runs)
    lines += [
        "",
        f"`{command}`. δ = {said or MISSING} (0 where ε is about a label). "
        "Replace-one, where nothing else is "
        f"said. Accuracy is on {_measured_on(summaries)} "
        "(PATE's on the images that it did not ask about), the "
        "mean over seeds with its standard deviation and their number; a transcription's noise is "
        "never seeded, so runs with one seed differ. Memory is that of the first process. "
        "Published figures are their authors', in their setting. Where ε is about an answer, it "
        "bounds what is learned about an answer of the one teacher, not about a person."
        + (f" {note}" if note else ""),
        "",
        f"Hardware: {'; '.join(places) or MISSING}. {', '.join(days)}",
        "",
        *([f"Rows {others}. With `--again` they are measured anew.", ""] if others else []),
    ]
    return "\n".join(lines)


def _measured_on(summaries: Sequence[Summary]) -> str:
    shares = {summary.row.task.validation_share for summary in summaries}
    if shares <= {0.0}:
        return "the test split"
    said = ", ".join(f"{share:g}" for share in sorted(shares))
    return (
        "validation data, not the test split: the data set's validation split, or a share of "
        f"{said} of the training records, which no teacher was given"
    )


def comma_separated(summaries: Sequence[Summary], *, share: float = 1.0) -> str:
    """The table as CSV: a line a run, numbers unrounded.

    Args:
        summaries: its rows.
        share: the share of the queries that one teacher was asked, above 0; below 1 for a look.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *(
                "row",
                "data",
                "split",
                "share_of_one_teacher",
                "method",
                "given",
                "target_epsilon",
                "target_delta",
                "target_adjacency",
            ),
            *("unit", "seed", "accuracy", "published", "source", "seconds", "peak_bytes"),
            *("epsilon", "hardware", "day", "measured_by"),
        ]
    )
    for summary in summaries:
        row, target = summary.row, summary.row.target
        head: list[object] = [row.key, row.task.data, row.task.split, share]
        head += [row.name, row.method.given]
        adjacency = getattr(row.method, "adjacency", "")  # of transcriptions alone
        head += [target.epsilon, target.delta] if target else ["", ""]
        head.append(getattr(adjacency, "value", ""))
        quoted: list[object] = [row.published or "", row.source]
        for one in summary.runs:
            found = one.outcome
            spent = json.dumps(dict(found.epsilon))  # by adjacency or relation
            accuracy = "" if found.accuracy is None else found.accuracy
            numbers = [one.seed, accuracy, *quoted, found.seconds, one.peak_memory, spent]
            numbers += [one.hardware, one.day, Version.of(one, row).value]
            writer.writerow([*head, row.method.unit.value, *numbers])
        if not summary.runs:
            writer.writerow([*head, row.method.unit.value, "", "", *quoted, *[""] * 6])
    return text.getvalue()

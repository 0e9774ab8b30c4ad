"""Regret compares a recipe with the best for the same data, ε and protection."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpsd.benchmarks.kept import Measured
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.benchmarks.suites.transfer import SUITE, regret, transfer
from dpsd.benchmarks.tables import Summary, cells, markdown


def measured(key: str, accuracy: float, **details: object) -> Measured:
    outcome = Outcome(seconds=1.0, accuracy=accuracy, details=details)
    return Measured(
        row=key,
        settings="",
        seed=0,
        outcome=outcome,
        peak_memory=1,
        hardware="a processor",
        day="2026-01-01",
    )


@pytest.fixture
def summaries(tmp_path: Path) -> list[Summary]:
    """Accuracies of 0.5, 0.6, … in the order of the rows, so that no two are equal."""
    rows = transfer(Task(data="digits", teachers=tmp_path), 1.0)
    return [
        Summary(row, [measured(row.key, 0.5 + place / 100, balanced=0.25)])
        for place, row in enumerate(rows)
    ]


def test_regret_is_to_the_best_of_the_same_setting(summaries: list[Summary]) -> None:
    found = {one.row.key: regret(one, summaries) for one in summaries}
    assert found["digits/10/labels-leaves"] == 0
    assert found["digits/10/labels-default"] == pytest.approx(0.04)
    # Nothing else was measured in these settings, so nothing is known.
    assert found["digits/1/labels-default"] is None
    assert found["digits/10/data-default"] is None


def test_a_row_that_was_not_measured_has_no_regret(summaries: list[Summary]) -> None:
    empty = Summary(summaries[1].row, [])
    assert regret(empty, [empty, *summaries[2:]]) is None


def test_the_table_shows_what_a_majority_class_would_hide(summaries: list[Summary]) -> None:
    text = markdown("Transfer", summaries, command="dpsd", columns=SUITE.columns, note=SUITE.note)
    assert "balanced (%)" in text
    assert "Regret is what a row's accuracy lacks" in text
    names = [column.name for column in SUITE.columns]
    first = dict(zip(names, cells(summaries[0], SUITE.columns, among=summaries), strict=True))
    assert first["balanced (%)"] == "25.00"
    assert first["teacher (%)"] == "-"

"""Regret compares a recipe with the best for the same data, ε and protection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dpsd.benchmarks.kept import Measured
from dpsd.benchmarks.methods import Outcome, PublishedTask, Task
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
    assert found["digits/10/labels-all"] == 0
    assert found["digits/10/labels-default"] == pytest.approx(0.06)
    # Nothing else was measured in these settings, so nothing is known.
    assert found["digits/1/labels-default"] is None
    assert found["digits/10/data-default"] is None


def test_a_row_that_was_not_measured_has_no_regret(summaries: list[Summary]) -> None:
    empty = Summary(summaries[1].row, [])
    assert regret(empty, [empty, *summaries[2:]]) is None


def test_rows_can_be_named_before_their_data_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPSD_DATA", str(tmp_path))
    rows = transfer(PublishedTask(data="mnist", teachers=tmp_path), 1.0)
    assert rows[0].key == "mnist/1/labels-default"


def test_the_table_shows_what_a_majority_class_would_hide(summaries: list[Summary]) -> None:
    text = markdown("Transfer", summaries, command="dpsd", columns=SUITE.columns, note=SUITE.note)
    assert "balanced (%)" in text
    assert "Regret is what a row's accuracy lacks" in text
    names = [column.name for column in SUITE.columns]
    first = dict(zip(names, cells(summaries[0], SUITE.columns, among=summaries), strict=True))
    assert first["balanced (%)"] == "25.00"
    assert first["teacher (%)"] == "-"


def test_the_text_below_the_table_ranks_rows_by_each_estimate(summaries: list[Summary]) -> None:
    """Here, accuracy rises from row to row; one estimate rises too, one falls, one is missing."""

    def with_estimates(place: int, one: Summary) -> Summary:
        (run,) = one.runs
        sources = {"noise": {"mean": place / 100}, "crops": {"mean": -place}, "leaves": None}
        left_out = {"agreement": {"mean": place / 100}, "sources": sources} if place else None
        details = {"agreement": [f"{1 - place / 100:.3f}±0.010"], "left_out": left_out}
        return replace(one, runs=[replace(run, outcome=replace(run.outcome, details=details))])

    rows = [with_estimates(place, one) for place, one in enumerate(summaries)]
    said = SUITE.noted(rows)
    every = len(rows)
    assert f"agreement on queries -1.00 over {every} of {every} rows, -1.00 in 1 data sets" in said
    assert f"left out +1.00 over {every - 1} of {every} rows" in said
    assert "+1.00 in 1 settings" in said
    # It rises on noise and falls on crops.
    assert "left out, source by source +0.00 in 2 sources of settings" in said
    assert f"agreement on images - over 0 of {every} rows, - in 0 data sets" in said
    shown = dict(
        zip([one.name for one in SUITE.columns], cells(rows[3], SUITE.columns), strict=True)
    )
    assert shown["left out (%)"] == "3.00"

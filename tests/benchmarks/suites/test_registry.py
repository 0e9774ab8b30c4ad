"""Every suite has rows that can be told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpsd.benchmarks.kept import settings_of
from dpsd.benchmarks.methods import Task, Unit
from dpsd.benchmarks.suites.registry import SUITES


@pytest.mark.parametrize("name", SUITES)
def test_suites_have_rows_of_their_own(name: str, tmp_path: Path) -> None:
    rows = list(SUITES[name].rows(Task(data="digits", teachers=tmp_path), 0.001))
    assert len({row.key for row in rows}) == len(rows) >= 5
    assert len({settings_of(row) for row in rows}) == len(rows)
    for row in rows:
        assert (row.target is None) == (row.method.unit is Unit.NOTHING)

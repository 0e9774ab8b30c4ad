"""Published methods stand in the field's tables to the letter, and with a start beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dpsd.benchmarks.methods import PublishedTask, Task
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.suites.data_sensitive import data_sensitive
from dpsd.benchmarks.suites.label_sensitive import label_sensitive
from dpsd.benchmarks.transcribing import Transcribing

Rows = Callable[[Task, float], list[Row]]


@pytest.fixture(params=[data_sensitive, label_sensitive])
def rows(request: pytest.FixtureRequest) -> dict[str, Row]:
    make: Rows = request.param
    found = make(PublishedTask(data="mnist", teachers=Path("teachers")), 1.0)
    assert len({row.key for row in found}) == len(found)
    return {row.key: row for row in found}


def named(rows: dict[str, Row], part: str) -> Iterator[tuple[str, Transcribing]]:
    for key, row in rows.items():
        if part in key:
            assert isinstance(row.method, Transcribing)
            yield key, row.method


def test_a_start_is_all_that_a_published_method_differs_in(rows: dict[str, Row]) -> None:
    started = dict(named(rows, "/started-"))
    assert started
    for key, method in started.items():
        letter = rows[key.replace("started", "paper")]
        assert isinstance(letter.method, Transcribing)
        differs = {
            name for name, value in method.recipe.items() if letter.method.recipe[name] != value
        }
        assert differs == {"cold_start", "replay", "consolidate"}
        assert method.mechanism == letter.method.mechanism
        assert method.recipe["sources"] == ("none",)
        assert rows[key].published == letter.published


def test_published_figures_stand_beside_both(rows: dict[str, Row]) -> None:
    published = {key: row.published for key, row in rows.items() if row.published}
    if "mnist/1/dp-sgd" in rows:  # the table about data, where the figures are from
        assert published["mnist/1/paper-dpsd"] == published["mnist/1/started-dpsd"] == 0.9603
        assert published["mnist/1/started-dpdfd"] == 0.9512
    assert "mnist/10/started-dpsd" not in published


def test_the_generator_alone_has_a_row_at_every_epsilon(rows: dict[str, Row]) -> None:
    alone = dict(named(rows, "generator-alone"))
    assert alone.keys() == {"mnist/1/generator-alone", "mnist/10/generator-alone"}
    for method in alone.values():
        assert method.recipe["sources"] == ("none",)
        assert method.recipe.get("cold_start", True)

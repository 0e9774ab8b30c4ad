"""The suite of synthetic records has the same rows at every ε, and quotes what is published."""

from __future__ import annotations

from pathlib import Path

from dpsd.benchmarks.methods import PublishedTask, Unit
from dpsd.benchmarks.rows import Quoted, Row
from dpsd.benchmarks.suites.synthetic import SUITE, synthetic


def rows(data: str = "mnist", share: float = 1.0) -> dict[str, Row]:
    found = synthetic(PublishedTask(data=data, teachers=Path("teachers")), share)
    return {row.key: row for row in found}


def test_every_epsilon_has_the_same_methods_under_each_adjacency() -> None:
    found = rows()
    strict, loose = (
        [key.removeprefix(start) for key in found if key.startswith(start)]
        for start in ("mnist/1/", "mnist/10/")
    )
    assert strict == loose
    adjacencies = ["response", "round", "teacher"]
    assert strict[:3] == [f"dpsd-{adjacency}" for adjacency in adjacencies]
    for adjacency in adjacencies:
        target = found[f"mnist/1/dpsd-{adjacency}"].target
        assert target is not None
        assert target.adjacency.value == adjacency


def test_published_figures_stand_beside_the_same_method_at_the_same_epsilon() -> None:
    found = rows() | rows("fashion-mnist")
    assert found["mnist/1/dp-merf"].published == 0.803
    assert found["fashion-mnist/10/dp-gan"].published == 0.703
    assert found["fashion-mnist/10/dp-feta"].published == 0.873
    assert isinstance(found["mnist/1/dp-feta"].method, Quoted)
    assert found["mnist/10/dp-feta"].source == "arXiv 2503.14681"
    assert found["mnist/1/dp-hp"].published is None
    assert found["mnist/1/dpsd-round"].published is None


def test_what_an_epsilon_is_about_is_what_its_accounting_has() -> None:
    found = rows()
    assert found["mnist/1/dp-merf"].method.unit is Unit.RECORD
    assert found["mnist/1/dp-gan"].method.unit is Unit.RECORD_ADDED
    assert found["mnist/1/dpdm"].method.unit is Unit.RECORD_ADDED
    assert found["mnist/1/dpsd-response"].method.unit is Unit.ANSWER
    assert found["mnist/1/dpsd-teacher"].method.unit is Unit.RECORD


def test_other_data_sets_have_no_quoted_rows() -> None:
    assert not [row for row in rows("cifar10").values() if row.published is not None]


def test_a_share_is_of_our_queries_and_of_nothing_else() -> None:
    whole, tenth = rows(), rows(share=0.1)
    changed = {key for key, row in whole.items() if tenth[key].method != row.method}
    assert changed == {
        f"mnist/{epsilon}/dpsd-{adjacency}"
        for epsilon in (1, 10)
        for adjacency in ("response", "round")
    }


def test_the_note_says_what_accuracy_is_of() -> None:
    assert "no real image trains it" in SUITE.note

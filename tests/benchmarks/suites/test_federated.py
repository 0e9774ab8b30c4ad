"""The federated suite has the same rows on every partition, and names them without data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dpsd.benchmarks.methods import PublishedTask
from dpsd.benchmarks.rows import Quoted, Row
from dpsd.benchmarks.suites.federated import SUITE, federated


def rows(data: str = "mnist", share: float = 1.0) -> list[Row]:
    return list(federated(PublishedTask(data=data, teachers=Path("teachers")), share))


def test_every_partition_has_the_same_methods() -> None:
    found = [row for row in rows() if not isinstance(row.method, Quoted)]
    assert len({row.key for row in found}) == len(found)
    panels = Counter(row.panel for row in found)
    assert panels.pop("") == 1
    assert len(panels) == 9
    assert len(set(panels.values())) == 1
    for row in found[1:]:
        clients, alpha = row.method.clients, row.method.alpha  # type: ignore[union-attr]
        assert row.panel == f"{clients} clients, Dirichlet {alpha:g}"
        assert row.key.startswith(f"mnist/{clients}-{alpha:g}/")


def test_published_figures_stand_beside_the_same_method() -> None:
    published = {row.key: row.published for row in rows() if row.published}
    assert published["mnist/5-0.3/dense"] == 0.765
    assert published["mnist/5-0.1/fedavg"] == 0.482
    assert "mnist/5-0.3/fedavg-10" not in published
    cifar = {row.key: row for row in rows("cifar10-jpeg")}
    assert cifar["cifar10-jpeg/5-0.5/feddpsd"].published == 0.7112
    assert cifar["cifar10-jpeg/20-0.5/dense"].source.endswith("on cifar10")


def test_a_share_is_of_our_queries_and_of_nothing_else() -> None:
    whole = {row.key: row.method for row in rows()}
    tenth = {row.key: row.method for row in rows(share=0.1)}
    changed = {key for key, method in whole.items() if tenth[key] != method}
    assert changed == {key for key in whole if "dpsd-" in key}


def test_bytes_have_columns_of_their_own() -> None:
    assert [column.name for column in SUITE.columns if "kB" in column.name] == [
        "down (kB)",
        "up (kB)",
    ]

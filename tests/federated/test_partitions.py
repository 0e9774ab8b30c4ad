"""Dirichlet partitions: each record once, the same each time, even for a large alpha."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd.errors import ConfigError
from dpsd.federated.partitions import Partition, dirichlet_partition


def drawn(*, alpha: float, clients: int = 5, seed: int = 0, least: int = 1) -> Partition:
    labels = torch.arange(10).repeat(120)[torch.randperm(1200, generator=torch.manual_seed(1))]
    return dirichlet_partition(
        labels, num_classes=10, clients=clients, alpha=alpha, seed=seed, least=least
    )


@settings(deadline=None, max_examples=40)
@given(
    labels=st.lists(st.integers(0, 4), min_size=60, max_size=200),
    clients=st.integers(2, 6),
    alpha=st.floats(0.2, 1e4),
    seed=st.integers(0, 2**32),
)
def test_each_record_is_with_one_client_and_none_has_too_few(
    labels: list[int], clients: int, alpha: float, seed: int
) -> None:
    classes = torch.tensor(labels)
    partition = dirichlet_partition(
        classes, num_classes=6, clients=clients, alpha=alpha, seed=seed, least=2
    )
    rows = torch.cat([partition.rows(client) for client in range(clients)])
    assert torch.equal(rows.sort().values, torch.arange(len(labels)))
    assert int(partition.counts.sum(1).min()) >= 2
    assert torch.equal(partition.counts.sum(0), torch.bincount(classes, minlength=6))


@given(alpha=st.floats(0.1, 10), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=10)
def test_a_seed_means_the_same_partition(alpha: float, seed: int) -> None:
    one, same = drawn(alpha=alpha, seed=seed), drawn(alpha=alpha, seed=seed)
    assert torch.equal(one.client, same.client)
    assert one.digest == same.digest
    assert one.digest != drawn(alpha=alpha, seed=seed + 1).digest


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_parts_are_nearly_equal_for_a_large_alpha(seed: int) -> None:
    counts = drawn(alpha=1e7, seed=seed).counts
    assert int((counts - 24).abs().max()) <= 1


def test_clients_know_fewer_classes_the_smaller_alpha_is() -> None:
    def largest(alpha: float) -> float:
        """The mean share of a client's records that are of its largest class."""
        counts = [drawn(alpha=alpha, seed=seed).counts.double() for seed in range(20)]
        return float(torch.stack([(c.amax(1) / c.sum(1)).mean() for c in counts]).mean())

    assert largest(0.1) > largest(0.5) + 0.1 > largest(100.0) + 0.2


def test_the_proportions_of_a_class_are_those_of_a_dirichlet() -> None:
    counts = torch.stack([drawn(alpha=0.5, seed=seed).counts for seed in range(200)]).double() / 120
    # The variance of a proportion: (1/M)(1 - 1/M) / (M alpha + 1).
    assert float(counts.var()) == pytest.approx(0.2 * 0.8 / 3.5, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clients": 1}, "clients must be at least 2"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"alpha": float("nan")}, "alpha must be positive"),
        ({"least": 0}, "least is 0"),
        ({"least": 241}, "allow 1 to 240"),
        ({"least": 240}, "use fewer clients or a larger alpha"),
    ],
)
def test_what_cannot_be_divided_is_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        drawn(**{"alpha": 1.0, **changes})  # type: ignore[arg-type]


def test_the_picture_comes_with_its_numbers(tmp_path: Path) -> None:
    partition = drawn(alpha=0.3)
    picture = partition.picture(["A$"] * 10)
    assert [path.suffix for path in picture.save(tmp_path)] == [".svg", ".png"]
    assert picture.headings[1] == "A$"
    assert [row[-1] for row in picture.rows] == [
        f"{count:,}" for count in partition.counts.sum(1).tolist()
    ]
    assert f"{int(partition.counts.sum(1).max()):,}" in picture.finding

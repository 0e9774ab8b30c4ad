"""Measures have their closed forms, and say nothing where there is nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpsd.attacks.inversion.measures import (
    chance_of_success,
    frechet_distance,
    nearer_to_training,
    precision_recall,
    share_of,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=25)
@given(count=st.integers(1, 500), part=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(
    count: int, part: float, confidence: float
) -> None:
    hits = round(part * count)
    share = share_of(hits, count, confidence=confidence)
    exact = stats.binomtest(hits, count).proportion_ci(confidence, method="exact")
    assert (share.low, share.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_fewer_independent_cases_give_a_wider_interval() -> None:
    wide, narrow = share_of(80, 100, effective=10), share_of(80, 100)
    assert wide.share == narrow.share == 0.8
    assert wide.low < narrow.low < 0.8 < narrow.high < wide.high
    assert (wide.low, wide.high) == pytest.approx((share_of(8, 10).low, share_of(8, 10).high))


def test_copies_of_training_records_are_nearer_to_training() -> None:
    inside, outside = torch.rand((60, 9), generator=seeded()), torch.rand((60, 9))
    labels = torch.arange(60) % 3
    made = nearer_to_training(inside + 1e-3, labels, (inside, labels), (outside, labels))
    assert (made.share, made.count, made.effective) == (1.0, 60, 60.0)
    other = nearer_to_training(outside + 1e-3, labels, (inside, labels), (outside, labels))
    assert other.share == 0.0


def test_reconstructions_that_are_all_alike_are_one_piece_of_evidence() -> None:
    inside, outside = torch.zeros((5, 4)), torch.ones((5, 4))
    inside[0] = 0.4
    one_class = torch.zeros(5, dtype=torch.long)
    made = torch.full((200, 4), 0.39)
    share = nearer_to_training(
        made, torch.zeros(200, dtype=torch.long), (inside, one_class), (outside, one_class)
    )
    assert (share.share, share.count, share.effective) == (1.0, 200, 1.0)
    assert share.low < 0.5


def test_ties_and_classes_without_records_are_left_out() -> None:
    records, one_class = torch.zeros((2, 4)), torch.zeros(2, dtype=torch.long)
    made, classes = torch.ones((6, 4)), torch.tensor([0, 0, 0, 1, 1, 1])
    share = nearer_to_training(made, classes, (records, one_class), (records, one_class))
    assert (share.count, share.low, share.high) == (0, 0.0, 1.0)


@pytest.mark.parametrize("looks", [1, 5, 40])
def test_under_the_null_the_interval_holds_however_alike_reconstructions_are(looks: int) -> None:
    """A plain binomial interval would miss one half in most of these worlds."""
    missed, plain = 0, 0
    for world in range(60):
        random = seeded(world)
        records = torch.rand((2, 40, 6), generator=random)
        labels = torch.arange(40) % 2
        made = torch.rand((2 * looks, 6), generator=random).repeat(80 // looks, 1)
        classes = torch.arange(len(made)) % 2
        share = nearer_to_training(made, classes, (records[0], labels), (records[1], labels))
        missed += not share.low <= 0.5 <= share.high
        usual = share_of(round(share.share * share.count), share.count)
        plain += not usual.low <= 0.5 <= usual.high
    assert missed <= 7
    assert looks > 5 or plain > 18


def test_success_is_measured_against_classes_given_out_at_random() -> None:
    classes = torch.arange(10).repeat(20)
    assert chance_of_success(classes, classes, num_classes=10) < 1e-3
    # All of a class look alike, and two of ten are what they should be: chance does that often.
    found = torch.tensor([0, 1, 3, 4, 5, 6, 7, 8, 9, 2])[classes]
    assert chance_of_success(classes, found, num_classes=10) > 0.1
    assert chance_of_success(classes, torch.full_like(classes, -1), num_classes=10) == 1.0


def test_the_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    noise = torch.randn((20_000, 2), generator=seeded(), dtype=torch.float64)
    one, other = noise, 3 * noise + torch.tensor([4.0, 0.0])
    # |m - m'|² + Σ (s - s')² for commuting covariances.
    assert frechet_distance(one, other) == pytest.approx(16 + 2 * 4, rel=0.02)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_precision_falls_with_strange_images_and_recall_with_missing_ones() -> None:
    random = seeded()
    left, right = torch.randn((100, 2), generator=random), 50 + torch.randn((100, 2))
    both = torch.cat([left, right])
    precision, recall = precision_recall(left, both)
    assert precision == 1
    assert recall == pytest.approx(0.5, abs=0.05)
    precision, recall = precision_recall(both, left)
    assert precision == pytest.approx(0.5, abs=0.05)
    assert math.isclose(recall, 1.0)

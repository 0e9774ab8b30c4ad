"""Rates are those of scikit-learn, and their intervals cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from dpsd.attacks.membership.rates import AT, FEWEST, measured


@given(seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([2, 7, 10_000]))
@settings(max_examples=15)
def test_rates_are_those_of_scikit_learn(seed: int, levels: int) -> None:
    """Also where scores are equal, which a sort would tell apart."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(levels, size=(4, 60)).astype(float)
    first = generator.random((2, 60)) < 0.5
    is_in = np.stack([first, ~first], axis=1).reshape(4, 60)
    found = measured(scores, is_in, draws=2)

    assert found.auc.value == pytest.approx(roc_auc_score(is_in.ravel(), scores.ravel()))
    false, true, _ = roc_curve(is_in.ravel(), scores.ravel(), drop_intermediate=False)
    for rate in AT:
        assert found.caught[rate].value == pytest.approx(true[false <= rate].max())


def test_members_and_others_are_counted() -> None:
    is_in = np.zeros((2, 5_000), dtype=bool)
    is_in[0] = True
    found = measured(np.zeros((2, 5_000)), is_in, draws=2)
    assert (found.members, found.others, found.models, found.records) == (5_000, 5_000, 2, 5_000)
    assert found.false_positives == {0.01: 50, 0.001: 5}
    assert found.shows(0.01)
    assert not found.shows(0.001)
    assert FEWEST == 10


def test_what_a_rate_rests_on_has_the_interval_of_the_binomial() -> None:
    is_in = np.zeros((2, 2_000), dtype=bool)
    is_in[0] = True
    found = measured(np.zeros((2, 2_000)), is_in, draws=2)
    among = stats.binomtest(2, 2_000).proportion_ci(0.95)
    said = found.rests_on(0.001)
    assert "2 false positives among 2,000" in said
    assert f"{100 * among.low:.2f}% to {100 * among.high:.2f}%" in said


def test_equal_scores_are_guessing() -> None:
    is_in = np.array([[True, False], [False, True]])
    found = measured(np.ones((2, 2)), is_in, draws=10)
    assert found.auc.value == 0.5
    assert found.caught[0.01].value == 0.0


def test_intervals_are_wider_where_records_vary_together() -> None:
    """Of forty records, each with a score of its own in all models, a thousand pairs are forty."""
    generator = np.random.default_rng(0)
    first = generator.random((1, 40)) < 0.5
    is_in = np.concatenate([first, ~first]).repeat(10, axis=0)
    own = generator.normal(size=40) + first[0]
    shared = measured(np.where(is_in, own, -own).astype(float), is_in)
    apart = measured(generator.normal(size=is_in.shape) + is_in, is_in)
    assert shared.auc.high - shared.auc.low > 2 * (apart.auc.high - apart.auc.low)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """At least so: a bootstrap over records and models is known to be somewhat too wide."""
    truth, covered = stats.norm.cdf(1 / np.sqrt(2)), 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        first = generator.random((5, 60)) < 0.5
        is_in = np.stack([first, ~first], axis=1).reshape(10, 60)
        found = measured(generator.normal(size=is_in.shape) + is_in, is_in, draws=120, seed=seed)
        covered += found.auc.low <= truth <= found.auc.high
    assert covered >= 34


def test_the_same_seed_gives_the_same_intervals() -> None:
    generator = np.random.default_rng(0)
    is_in = np.array([[True] * 30, [False] * 30])
    scores = generator.normal(size=(2, 30))
    first, again, other = (measured(scores, is_in, draws=50, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_members_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="as well as others"):
        measured(np.zeros((2, 3)), np.ones((2, 3), dtype=bool))

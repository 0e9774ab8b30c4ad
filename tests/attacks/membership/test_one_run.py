"""The bound from one run proves what the paper says, and never more than there is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpsd.attacks.membership.controls import told_bound_control
from dpsd.attacks.membership.one_run import (
    all_right,
    chance,
    guessed,
    lower_bound,
    require_enough,
)
from dpsd.errors import ConfigError


@pytest.mark.parametrize(("pairs", "epsilon"), [(100, 3.5), (1_000, 5.8)])
def test_perfect_guesses_prove_what_the_binomial_allows(pairs: int, epsilon: float) -> None:
    found = lower_bound(pairs, pairs, pairs=pairs, delta=0.0)
    assert found == pytest.approx(epsilon, abs=0.02)
    # At the bound, all guesses are right with just the probability of a mistake.
    assert (1 / (1 + math.exp(-found))) ** pairs == pytest.approx(0.05)


def test_null_guesses_prove_nothing() -> None:
    generator = np.random.default_rng(0)
    for _ in range(40):
        first, second = generator.normal(size=(2, 200))
        found = guessed(first, second, generator.random(200) < 0.5, delta=1e-5)
        # Each of forty bounds may be wrong with a probability of 5 %, and then by little.
        assert found.epsilon < 1.0
    assert lower_bound(100, 200, pairs=200, delta=0.0) == 0.0


@given(right=st.integers(50, 100), delta=st.floats(0, 1e-2))
@settings(max_examples=20)
def test_a_larger_delta_proves_less(right: int, delta: float) -> None:
    without = lower_bound(right, 100, pairs=100, delta=0.0)
    assert 0 <= lower_bound(right, 100, pairs=100, delta=delta) <= without + 1e-9


def test_the_term_in_delta_is_the_theorem_written_out() -> None:
    right, guesses, pairs, delta, epsilon = 8, 10, 25, 1e-3, 0.7
    share = 1 / (1 + math.exp(-epsilon))
    number = stats.binom(guesses, share)
    at_least = [1 - number.cdf(v - 1) for v in range(guesses + 1)]
    slope = max((at_least[right - i] - at_least[right]) / i for i in range(1, right + 1))
    expected = at_least[right] + 2 * pairs * delta * slope
    found = chance(right, guesses, epsilon=epsilon, pairs=pairs, delta=delta)
    assert found == pytest.approx(expected)


def test_randomised_response_is_bounded_below_its_epsilon() -> None:
    """The worst case of ε itself: each coin is told truly with probability e^ε / (1 + e^ε)."""
    epsilon, generator, bounds = 2.0, np.random.default_rng(1), []
    for _ in range(40):
        is_first = generator.random(1_000) < 0.5
        told = np.where(generator.random(1_000) < 1 / (1 + math.exp(-epsilon)), is_first, ~is_first)
        bounds.append(guessed(told * 1.0, ~told * 1.0, is_first, delta=0.0).epsilon)
    assert np.mean(np.array(bounds) > epsilon) <= 0.1
    assert float(np.mean(bounds)) > 0.6 * epsilon


def test_the_surest_guesses_prove_most_where_few_canaries_leak() -> None:
    generator = np.random.default_rng(0)
    is_first = generator.random(500) < 0.5
    leak = np.where(np.arange(500) < 50, 10.0, 0.0)
    first = generator.normal(size=500) + leak * is_first
    second = generator.normal(size=500) + leak * ~is_first
    found = guessed(first, second, is_first, delta=0.0)
    assert (found.guesses, found.right, found.pairs) == (50, 50, 500)
    assert found.epsilon > 2


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be right"):
        lower_bound(11, 10, pairs=20, delta=0.0)


@pytest.mark.parametrize(("leak", "is_caught"), [(10.0, True), (0.0, False)])
def test_an_audit_that_misses_a_told_student_fails_its_control(
    leak: float, is_caught: bool
) -> None:
    generator = np.random.default_rng(0)
    is_first = generator.random(60) < 0.5
    first, second = generator.normal(size=(2, 60))
    bound = guessed(first + leak * is_first, second + leak * ~is_first, is_first, delta=1e-5)
    control = told_bound_control(bound, delta=1e-5)
    assert control.found == is_caught
    assert "adjacency teacher, replace-one, δ = 1e-05) was claimed to be 0.88" in control.sentence
    assert f"at least {bound.epsilon:.2f}" in control.sentence


@pytest.mark.parametrize(
    ("pairs", "delta", "wrong"),
    [(14, 0.0, 1), (15, 1e-3, 1), (20, 1e-5, 2), (60, 1e-5, 9), (20, 3e-3, 1)],
)
def test_as_few_pairs_as_are_allowed_leave_room_for_wrong_guesses(
    pairs: int, delta: float, wrong: int
) -> None:
    require_enough(pairs, delta=delta)
    # The wrong guesses are among the surest half, and not where they would do no harm.
    is_first = np.arange(pairs) >= wrong
    margin = np.linspace(2, 1, pairs)
    bound = guessed(margin, np.zeros(pairs), is_first, delta=delta)
    assert bound.right == bound.guesses - wrong
    assert told_bound_control(bound, delta=delta).found


@pytest.mark.parametrize(
    ("pairs", "delta", "mend"),
    [
        (13, 1e-5, "give 14, which need 56 records"),
        (0, 0.0, "give 14, which need 56 records"),
        (14, 1e-3, "give 15, which need 60 records"),
        (200, 3e-3, "give 20, which need 80 records"),
        (60, 1e-2, "no number of pairs is enough, so transcribe with a smaller δ"),
    ],
)
def test_pairs_that_prove_nothing_useful_are_refused(pairs: int, delta: float, mend: str) -> None:
    assert pairs == 0 or all_right(pairs, delta=delta) < 1
    with pytest.raises(ConfigError, match=f"^pairs are {pairs}, .* δ = {delta:g} .*: {mend}$"):
        require_enough(pairs, delta=delta)

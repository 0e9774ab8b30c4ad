"""The bound from one run proves what the paper says, and never more than there is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpsd.attacks.membership.controls import told_bound_control
from dpsd.attacks.membership.one_run import chance, guessed, lower_bound


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
    control = told_bound_control(bound)
    assert control.found == is_caught
    assert "claimed ε = 1" in control.sentence
    assert f"at least {bound.epsilon:.2f}" in control.sentence


def test_too_few_pairs_to_refute_anything_fail_the_control() -> None:
    everything = np.ones(8, dtype=bool)
    assert not told_bound_control(guessed(np.ones(8), np.zeros(8), everything, delta=0.0)).found

"""What counts prove: right as often as they say, and no more is proven than there is."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from dpsd.attacks import bounds

BOUNDS: list[Callable[[int, int, int], float]] = [
    partial(bounds.through_rates, delta=1e-5),
    partial(bounds.through_curve, delta=1e-5),
    lambda false, true, total: bounds.impossible([false, true], total, delta=1e-5),
]
EACH = pytest.mark.parametrize("bound", BOUNDS, ids=["rates", "curve", "impossible"])


@EACH
def test_the_chances_of_a_mistake_add_up_to_what_is_said(
    bound: Callable[[int, int, int], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the union bound, whatever the counts depend on."""
    exact, spent = special.betaincinv, []

    def noted(first: float, second: float, chance: float) -> float:
        spent.append(chance)
        return float(exact(first, second, chance))

    monkeypatch.setattr("dpsd.attacks.bounds.special.betaincinv", noted)
    bound(300, 700, 1_000)
    assert 0 < sum(spent) <= bounds.MISTAKE == 1e-6


@pytest.mark.parametrize("count", [0, 1, 40, 999, 1_000])
def test_rates_are_bounded_as_the_binomial_says(count: int) -> None:
    """At the bound, so many successes or more are exactly as likely as a mistake may be."""
    each = bounds.MISTAKE / 4
    least, most = bounds._at_least(count, 1_000), bounds._at_most(count, 1_000)
    assert least <= count / 1_000 <= most
    if count:
        assert stats.binom.sf(count - 1, 1_000, least) == pytest.approx(each, rel=1e-6)
    if count < 1_000:
        assert stats.binom.cdf(count, 1_000, most) == pytest.approx(each, rel=1e-6)


@given(epsilon=st.floats(0.01, 3), false=st.floats(0.01, 0.5), seed=st.integers(0, 2**32 - 1))
def test_no_more_is_proven_of_rates_than_there_is(epsilon: float, false: float, seed: int) -> None:
    """A million guesses in each of two worlds that ε allows for."""
    true = min(false * math.exp(epsilon), 1 - (1 - false) * math.exp(-epsilon))
    counts = np.random.default_rng(seed).binomial(1_000_000, [false, true])
    found = bounds.through_rates(int(counts[0]), int(counts[1]), 1_000_000, delta=0.0)
    assert found <= epsilon


@pytest.mark.parametrize("signal", [0.0, 0.3, 1.5])
def test_no_more_is_proven_of_a_signal_than_there_is_and_not_much_less(signal: float) -> None:
    counts = np.random.default_rng(0).binomial(
        1_000_000, [stats.norm.sf(0.5), stats.norm.sf(0.5 - signal)]
    )
    found = bounds.least_signal(int(counts[0]), int(counts[1]), 1_000_000)
    assert found <= signal
    assert found >= signal - 0.03


def test_what_delta_allows_for_proves_nothing() -> None:
    """Of a million releases, ten are what δ = 1e-5 lets pass; fifty are not."""
    assert bounds.impossible([10, 0], 1_000_000, delta=1e-5) == 0
    assert bounds.impossible([0, 50], 1_000_000, delta=1e-5) == math.inf
    assert bounds.impossible([0, 50], 1_000_000, delta=1e-4) == 0

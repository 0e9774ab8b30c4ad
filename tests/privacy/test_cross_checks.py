"""Different arithmetic, the same ε: PLD, RDP, PRV, closed forms, and the grid of the noise."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from opacus.accountants import PRVAccountant
from scipy import stats
from scipy.optimize import brentq

from dpsd.privacy.accounting import pld_epsilon, rdp_epsilon

GRID = pytest.mark.parametrize(
    ("noise", "count", "delta"),
    [
        (noise, count, delta)
        for noise in (0.8, 2.0, 8.0, 40.0)
        for count in (1, 8, 500)
        for delta in (1e-5, 1e-7)
    ],
)


def closed_form_delta(epsilon: float, noise: float) -> float:
    """Balle & Wang, "Improving the Gaussian Mechanism", ICML 2018, theorem 8."""
    shift = 1 / (2 * noise)
    return float(
        stats.norm.cdf(shift - epsilon * noise)
        - math.exp(epsilon) * stats.norm.cdf(-shift - epsilon * noise)
    )


def closed_form_epsilon(noise: float, count: int, delta: float) -> float:
    composed = noise / math.sqrt(count)
    if closed_form_delta(0.0, composed) <= delta:
        return 0.0
    return float(brentq(lambda at: closed_form_delta(at, composed) - delta, 0, 600, xtol=1e-9))


@GRID
def test_gaussians_agree_with_the_closed_form(noise: float, count: int, delta: float) -> None:
    event = dp_accounting.GaussianDpEvent(noise)
    found = pld_epsilon(event, count=count, delta=delta)
    assert found == pytest.approx(closed_form_epsilon(noise, count, delta), rel=1e-5, abs=1e-6)


@GRID
def test_gaussians_agree_with_opacus(noise: float, count: int, delta: float) -> None:
    found = pld_epsilon(dp_accounting.GaussianDpEvent(noise), count=count, delta=delta)
    if found > 30:
        pytest.skip("Opacus's grid does not reach so far")
    accountant = PRVAccountant()
    accountant.history = [(noise, 1.0, count)]
    # Its result is an upper bound, by its own error bound of 0.01.
    assert found <= accountant.get_epsilon(delta, eps_error=0.01) <= found + 0.025


@GRID
def test_rdp_is_an_upper_bound_and_not_far_off(noise: float, count: int, delta: float) -> None:
    event = dp_accounting.GaussianDpEvent(noise)
    found, loose = (
        account(event, count=count, delta=delta) for account in (pld_epsilon, rdp_epsilon)
    )
    assert found <= loose <= 1.35 * found + 0.03


@pytest.mark.parametrize("buckets", [2, 5])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("count", [1, 6, 40])
def test_randomized_responses_agree_with_exact_composition(
    buckets: int, epsilon: float, count: int
) -> None:
    """For two classes, the number of truths is binomial, and δ(ε) a finite sum."""
    event = dp_accounting.RandomizedResponseDpEvent(
        noise_parameter=buckets / (math.exp(epsilon) + buckets - 1), num_buckets=buckets
    )
    found = pld_epsilon(event, count=count, delta=1e-5)
    truth = math.exp(epsilon) / (math.exp(epsilon) + buckets - 1)
    lie = truth * math.exp(-epsilon)
    losses = _convolved({epsilon: truth, -epsilon: lie, 0.0: max(0.0, 1 - truth - lie)}, count)

    def delta(at: float) -> float:
        return sum(mass * max(0.0, 1 - math.exp(at - loss)) for loss, mass in losses.items())

    exact = brentq(lambda at: delta(at) - 1e-5, 0, epsilon * count + 1e-9) if count else 0.0
    assert found == pytest.approx(exact, rel=1e-4, abs=1e-6)
    assert found <= rdp_epsilon(event, count=count, delta=1e-5) * (1 + 1e-9)


def _convolved(one: dict[float, float], count: int) -> dict[float, float]:
    total = {0.0: 1.0}
    for _ in range(count):
        summed: dict[float, float] = {}
        for loss, mass in total.items():
            for more, chance in one.items():
                key = round(loss + more, 9)
                summed[key] = summed.get(key, 0.0) + mass * chance
        total = summed
    return total


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.7, 20.0])
@pytest.mark.parametrize("steps", [4096.0, 8191.0])
def test_on_the_grid_delta_is_that_of_the_continuous_gaussian(noise: float, steps: float) -> None:
    """The discrete Gaussian has ``steps`` grid points to a standard deviation, as mechanisms do."""
    reach = int(14 * steps)
    points = np.arange(-reach, reach + 1, dtype=np.float64)
    weights = np.exp(-(points**2) / (2 * steps**2))
    weights /= weights.sum()
    sensitivity = round(steps / noise)  # a whole number of steps, at that ratio of noise
    exact_noise = steps / sensitivity
    moved = np.zeros_like(weights)
    moved[sensitivity:] = weights[:-sensitivity]
    for epsilon in (0.1, 1.0, 5.0):
        on_grid = float(np.clip(weights - math.exp(epsilon) * moved, 0, None).sum())
        continuous = closed_form_delta(epsilon, exact_noise)
        if continuous > 1e-9:
            assert on_grid == pytest.approx(continuous, rel=1e-5)

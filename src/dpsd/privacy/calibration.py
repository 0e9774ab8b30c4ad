"""Calibration: the least noise that meets a budget, found with the accountant itself."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from typing import TypeVar

from scipy.optimize import brentq

from dpsd.errors import BudgetError, Setting
from dpsd.privacy.accounting import Spending, pld_epsilon, spent_under
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.targets import Budget, Exposure

#: Calibration never chooses noise so small that two answers are more than this many standard
#: deviations apart: ε is above 60 for one answer there, and the noise's table reaches far enough.
_MOST_APART = 8.0
#: Above this δ, the case in which nothing is promised is no longer a rare accident.
_LARGE_DELTA = 0.01

MechanismT = TypeVar("MechanismT", bound=Mechanism)


def calibrate(mechanism: MechanismT, budget: Budget, exposure: Exposure) -> MechanismT:
    """Return the mechanism with the least noise that meets a budget, found with the accountant.

    Args:
        mechanism: the mechanism, whose noise level is replaced.
        budget: the privacy target.
        exposure: the exposure of everything that will be asked.

    Raises:
        BudgetError: no noise level meets the target.

    >>> from dpsd.privacy.mechanisms import Gaussian
    >>> budget = Budget(epsilon=10.0, delta=1e-5, adjacency="round")
    >>> asked = Exposure.of_rounds([60_000] * 3)
    >>> round(calibrate(Gaussian(), budget, asked).noise_multiplier, 2)
    1.73
    """
    count = exposure.under(budget.adjacency)

    def excess(strength: float) -> float:
        noisy = mechanism.with_strength(strength)
        spending = Spending(event=noisy.event(), mean_event=noisy.mean_event(), exposure=exposure)
        noise = getattr(noisy.event(), "noise_multiplier", math.inf)
        if noise < 1 / _MOST_APART:
            return sys.float_info.max  # finite, as the search for a root fails at infinity
        spent = spent_under([spending], budget.adjacency, delta=budget.delta)
        return min(spent, sys.float_info.max) - budget.epsilon

    strength = _strongest(excess, *mechanism.strengths)
    if strength is None:
        raise BudgetError(
            f"no noise level of {type(mechanism).__name__} gives epsilon {budget.epsilon:g} at "
            f"delta {budget.delta:g} under {budget.adjacency.value!r} over {count} events; raise ",
            *(Setting("epsilon"), " or ", Setting("delta"), ", or ask for fewer "),
            *(Setting("rounds"), " or ", Setting("queries")),
        )
    if budget.epsilon <= strength <= budget.epsilon * (1 + 1e-3):
        # For a single randomised response, δ adds so little to its ε that the round number is used.
        strength = budget.epsilon
    calibrated = mechanism.with_strength(strength)
    is_pure = math.isfinite(pld_epsilon(calibrated.event(), count=1, delta=0))
    if not is_pure and budget.delta > 1 / exposure.teacher:
        warnings.warn(
            f"delta {budget.delta:g} is above one over the {exposure.teacher} answers: at that "
            "delta, a mechanism may publish some answers outright; lower delta",
            stacklevel=2,
        )
    elif budget.delta > _LARGE_DELTA:
        warnings.warn(
            f"delta {budget.delta:g} is the chance with which epsilon {budget.epsilon:g} may be "
            f"exceeded by any amount; lower delta to {_LARGE_DELTA:g} or less",
            stacklevel=2,
        )
    return calibrated  # type: ignore[return-value]


def _strongest(excess: Callable[[float], float], least: float, most: float) -> float | None:
    """Return the largest strength in a range whose excess ε, which rises with it, is not positive.

    The result is exact to a relative 1e-6, and errs on the side that keeps the promise.
    """
    if excess(least) > 0:
        return None
    if excess(most) <= 0:
        return most

    def strength(logarithm: float) -> float:
        return min(math.exp(logarithm), most)

    start, end = math.log(least), math.log(least) + 2.0
    while excess(strength(end)) <= 0:
        start, end = end, end + 2.0
    root = brentq(lambda at: excess(strength(at)), start, end, xtol=1e-7, rtol=1e-9)
    while excess(strength(root)) > 0:
        root -= 1e-6
    return strength(root)

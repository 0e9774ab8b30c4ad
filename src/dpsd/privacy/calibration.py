"""How loud the noise has to be for a budget, found on the accountant itself."""

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

#: How many standard deviations of the noise two answers may be apart, if a budget is to choose it:
#: ε is then above 60 for one answer, and the table that noise is drawn from reaches far enough.
_MOST_APART = 8.0
#: At a δ above it, what nothing is promised with is no longer a rare accident.
_LARGE_DELTA = 0.01

MechanismT = TypeVar("MechanismT", bound=Mechanism)


def calibrate(mechanism: MechanismT, budget: Budget, exposure: Exposure) -> MechanismT:
    """The mechanism with the least noise that meets the budget, found on the accountant itself.

    Args:
        mechanism: its noise level is replaced.
        budget: the target.
        exposure: what will be asked.

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
            return sys.float_info.max  # of infinity no root is found
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
        # One randomised response: what δ adds to its own ε is not worth an odd number.
        strength = budget.epsilon
    calibrated = mechanism.with_strength(strength)
    is_pure = math.isfinite(pld_epsilon(calibrated.event(), count=1, delta=0))
    if not is_pure and budget.delta > 1 / exposure.teacher:
        warnings.warn(
            f"delta {budget.delta:g} is above one over the {exposure.teacher} answers: at that "
            "delta a mechanism may publish some answers outright; lower delta",
            stacklevel=2,
        )
    elif budget.delta > _LARGE_DELTA:
        warnings.warn(
            f"delta {budget.delta:g} is the chance with which epsilon {budget.epsilon:g} may be "
            f"exceeded by any amount; lower delta to {_LARGE_DELTA:g} at most",
            stacklevel=2,
        )
    return calibrated  # type: ignore[return-value]


def _strongest(excess: Callable[[float], float], least: float, most: float) -> float | None:
    """The largest strength in that range whose excess ε (rising with strength) is not positive.

    Exact to a relative 1e-6, from the side that keeps the promise.
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

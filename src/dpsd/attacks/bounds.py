"""Lower bounds on ε from counted guesses, which hold with confidence 1 - 1e-6.

>>> through_rates(100, 300, 1_000, delta=0.0)  # guessed in 10 % of one world, in 30 % of the other
0.396...
>>> through_rates(100, 100, 1_000, delta=0.0) < 0  # nothing was revealed
True
>>> impossible([0, 200], 1_000, delta=1e-5), impossible([0, 0], 1_000, delta=1e-5)
(inf, 0.0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import dp_accounting
from scipy import special

from dpsd.privacy.accounting import pld_epsilon

#: The probability that a bound on ε is wrong.
MISTAKE = 1e-6
#: The most one-sided Clopper-Pearson bounds that one bound on ε may rest on.
_SIDES = 4
_EACH = MISTAKE / _SIDES


def through_rates(false: int, true: int, total: int, *, delta: float) -> float:
    """Bound ε by its definition: apart from δ, no guess is ``e^ε`` times likelier in one world.

    Args:
        false: the number of guesses of the second world in the first.
        true: the number of guesses of the second world in the second.
        total: the number of games in each world.
        delta: the δ at which ε is bounded.
    """
    best = -math.inf
    for rare, common in ((false, true), (total - true, total - false)):
        surely = _at_least(common, total) - delta
        if surely > 0:
            best = max(best, math.log(surely / _at_most(rare, total)))
    return best


def through_curve(false: int, true: int, total: int, *, delta: float) -> float:
    """Bound ε by the smallest μ, for a claim that is a Gaussian's whole trade-off curve."""
    least = least_signal(false, true, total)
    if least <= 0:
        return 0.0
    return pld_epsilon(dp_accounting.GaussianDpEvent(1 / least), count=1, delta=delta)


def least_signal(false: int, true: int, total: int) -> float:
    """Return the least distance μ of unit Gaussians that can be told apart this well, or 0."""
    least = float(special.ndtri(_at_least(true, total)) - special.ndtri(_at_most(false, total)))
    return max(0.0, least) if math.isfinite(least) else 0.0


def impossible(counts: Sequence[int], total: int, *, delta: float) -> float:
    """Return infinity if releases that are impossible in the other world exceed δ, else 0.

    Args:
        counts: for each world, the number of releases that the other could never make.
        total: the number of games in each world.
        delta: the probability of such releases that (ε, δ) allows for any ε.
    """
    return math.inf if max(_at_least(count, total) for count in counts) > delta else 0.0


def _at_least(count: int, total: int) -> float:
    return float(special.betaincinv(count, total - count + 1, _EACH)) if count else 0.0


def _at_most(count: int, total: int) -> float:
    return 1 - _at_least(total - count, total)

"""Privacy loss distributions that hold at any δ, for any number of answers.

What a run reveals is described by a distribution of *privacy losses*: the loss ``L`` is the
logarithm of how many times likelier a release is in one world than in the other. Then
``δ(ε) = E[max(0, 1 - e^(ε - L))]``, and ε at a given δ is where this falls to δ.

For ``n`` randomised responses between two classes, ``L = ε₀ (2x - n)``, where ``x`` of the ``n``
answers are true. As ``x`` is binomial, the distribution is known exactly. ``dp_accounting``
composes such losses by Fourier transforms, whose rounding errors are as large as δ from 1e-8
downwards, and its Rényi divergences are rounding errors near order 1. Here, nothing but SciPy's
binomial probabilities is added up, and every term is positive, so a small δ is as exact as a large
one.

Several distributions are added up on a shared grid. A loss between two points of the grid is split
between them so that its probability is kept in both worlds. This only makes the worlds easier to
tell apart (joining the two points again undoes it), so δ is never understated; and losses are off
by half a step squared in their variance instead of by a step each.

>>> import dp_accounting
>>> one = dp_accounting.RandomizedResponseDpEvent(noise_parameter=2 / (math.e + 1), num_buckets=2)
>>> losses = of_responses(one, count=1)
>>> losses.losses.round(6).tolist(), losses.chances.round(3).tolist()
([-1.0, 1.0], [0.269, 0.731])
>>> round(losses.epsilon(1e-3), 4)
0.9986

Source: Sommer, Meiser & Mohammadi, "Privacy Loss Classes", PETS 2019, for the distributions;
Doroshenko et al., "Connect the Dots", PETS 2022, for the split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import dp_accounting
import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.optimize import brentq

Numbers = NDArray[np.float64]

#: The relative amount added to probabilities; SciPy's are off by a relative 3e-11 for 1e8 answers,
#: and by 1.1e-9 for 1e12.
_SLACK = 1e-8
#: The number of standard deviations around the mean beyond which probabilities are below the
#: smallest representable number, and the margin in whole numbers for very narrow distributions.
_DEVIATIONS, _WHOLE_NUMBERS = 40, 400
#: The relative width of the parts into which a random number of answers is divided.
_PART = 1e-3
#: The number of points of the grid on which several distributions are added up.
_POINTS = 1 << 13
#: The smallest width of the grid, relative to the largest loss.
_FINEST = 1e-6
#: The number of losses that represent a Gaussian's; each is the largest of its cell.
_CELLS = 1 << 16
#: The share of δ that may be given up at either end of each distribution that is added up.
_GIVEN_UP = 1e-7


@dataclass(frozen=True, eq=False)
class Losses:
    """A privacy loss distribution, or one that dominates it.

    Args:
        losses: the losses in ascending order, in nats, ``(n,)``.
        chances: the probability of each loss, in the world where it is likelier, ``(n,)``.
        infinite: the probability of a release that only one world can produce.
    """

    losses: Numbers
    chances: Numbers
    infinite: float = 0.0

    def delta(self, epsilon: float) -> float:
        """Return δ at ε ≥ 0, never too small."""
        above = int(np.searchsorted(self.losses, epsilon, side="right"))
        excess = -np.expm1(epsilon - self.losses[above:])
        return self.infinite + (1 + _SLACK) * float(self.chances[above:] @ excess)

    def epsilon(self, delta: float) -> float:
        """Return ε ≥ 0 at δ > 0, never too small; infinite if no ε has that δ."""
        if self.infinite >= delta:
            return math.inf
        if self.delta(0.0) <= delta:
            return 0.0
        # Between losses, δ is convex, so the search for a root needs few steps.
        found = brentq(
            lambda at: self.delta(at) - delta, 0.0, float(self.losses[-1]), xtol=1e-14, rtol=1e-12
        )
        while self.delta(found) > delta:
            found += 1e-12 * max(found, 1e-6)
        return float(found)

    def on_grid(self, step: float, *, spared: float) -> tuple[int, Numbers, float]:
        """Return the distribution on whole multiples of ``step``.

        Args:
            step: the step of the grid, in nats.
            spared: the probability that may be moved up at the lower end, and to infinity at the
                upper end.

        Returns:
            The first multiple, the probabilities from there on, and that of an infinite loss.
        """
        low, high = self._range(spared)
        infinite = self.infinite + float(self.chances[high:].sum())
        losses, chances = self.losses[low:high], self.chances[low:high].copy()
        chances[0] += self.chances[:low].sum()
        cells = np.floor(losses / step)
        # Let a and b be the points around a loss. Its probability p, and its probability in the
        # other world, p e^-loss, are both kept if b gets this share of p.
        upper = np.expm1(cells * step - losses) / math.expm1(-step)
        first = int(cells[0])
        places = (cells - first).astype(np.int64)
        size = int(places[-1]) + 2
        found = np.bincount(places, chances * (1 - upper), size)
        found += np.bincount(places + 1, chances * upper, size)
        return first, found.clip(min=0.0), infinite

    def width(self, *, spared: float) -> float:
        """Return the distance between the extreme losses that :meth:`on_grid` keeps."""
        low, high = self._range(spared)
        return float(self.losses[high - 1] - self.losses[low])

    def _range(self, spared: float) -> tuple[int, int]:
        below = np.cumsum(self.chances)
        above = np.cumsum(self.chances[::-1])
        low = int(np.searchsorted(below, spared, side="right"))
        high = len(self.losses) - int(np.searchsorted(above, spared, side="right"))
        return min(low, high - 1), high


def added_up(parts: Sequence[Losses], *, delta: float) -> Losses:
    """Return the joint losses of several independent releases, for use at this δ > 0."""
    spared = _GIVEN_UP * delta / len(parts)
    width = sum(part.width(spared=spared) for part in parts)
    # A nearly certain loss has almost no width, but its size must still be exact.
    width = max(width, _FINEST * max(float(np.abs(part.losses).max()) for part in parts))
    step = width / _POINTS
    first, chances, infinite = 0, np.ones(1), 0.0
    for part in parts:
        start, more, lost = part.on_grid(step, spared=spared)
        # Convolved directly, not by a Fourier transform: sums of positive terms keep small ones
        # exact.
        first, chances = first + start, np.convolve(chances, more)
        infinite += lost
    losses = step * np.arange(first, first + len(chances), dtype=np.float64)
    return Losses(losses, chances, infinite)


def response_epsilon(event: dp_accounting.RandomizedResponseDpEvent) -> float:
    """Return ε of one randomised response, plus what rounding may have taken from its event."""
    lie = event.noise_parameter / event.num_buckets
    truth = 1 - event.noise_parameter * (event.num_buckets - 1) / event.num_buckets
    return float(math.log(truth) - math.log(lie) + 4 * event.num_buckets * math.ulp(1.0))


@lru_cache(maxsize=16)
def of_responses(event: dp_accounting.RandomizedResponseDpEvent, *, count: int) -> Losses:
    """Return the losses of ``count`` randomised responses.

    Between two classes, the losses are exact. Between more, an answer that is neither world's class
    reveals nothing, so the number of answers that reveal something is binomial too. If there are
    few such numbers, they are summed over one by one. If there are many, they are grouped into
    parts, and each part counts at its largest number, as more answers never reveal less.
    """
    own = response_epsilon(event)
    truth = 1 / (1 + math.exp(-own))
    lie = event.noise_parameter / event.num_buckets
    telling = min(1.0, lie * (1 + math.exp(own)))
    if event.num_buckets == 2:
        counts, shares = np.array([count]), np.ones(1)
    else:
        numbers, chances = _binomial(count, telling)
        starts = np.arange(0, len(numbers), max(1, int(_PART * count * telling)))
        counts, shares = (
            numbers[np.append(starts[1:], len(numbers)) - 1],
            np.add.reduceat(chances, starts),
        )
    # Every loss is a whole multiple of ε₀: the true answers minus the false ones.
    parts = [_binomial(int(most), truth) for most in counts]
    low = min(int(2 * truths[0] - most) for (truths, _), most in zip(parts, counts, strict=True))
    high = max(int(2 * truths[-1] - most) for (truths, _), most in zip(parts, counts, strict=True))
    found = np.zeros(high - low + 1)
    for (truths, chances), most, share in zip(parts, counts, shares, strict=True):
        first = int(2 * truths[0] - most) - low
        found[first : first + 2 * len(truths) - 1 : 2] += share * chances
    (possible,) = found.nonzero()
    return Losses(own * (low + possible).astype(np.float64), found[possible])


def of_gaussian(event: dp_accounting.GaussianDpEvent) -> Losses:
    """Return the losses of a Gaussian of sensitivity one, each rounded up to its cell's end."""
    mu = 1 / event.noise_multiplier
    ends = np.linspace(-_DEVIATIONS, _DEVIATIONS, _CELLS)
    # Each is computed from its nearer tail, so that small differences stay exact.
    below = np.diff(special.ndtr(ends), prepend=0.0)
    above = -np.diff(special.ndtr(-ends), prepend=1.0)
    return Losses(mu**2 / 2 + mu * ends, np.where(ends > 0, above, below))


def _binomial(count: int, chance: float) -> tuple[NDArray[np.int64], Numbers]:
    """Return all numbers of successes with representable probabilities, and the probabilities."""
    mean, reach = count * chance, _DEVIATIONS * math.sqrt(count * chance * (1 - chance))
    low = max(0, math.floor(mean - reach) - _WHOLE_NUMBERS)
    high = min(count, math.ceil(mean + reach) + _WHOLE_NUMBERS)
    numbers = np.arange(low, high + 1, dtype=np.int64)
    return numbers, stats.binom.pmf(numbers, count, chance)

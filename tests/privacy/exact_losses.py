"""ε by arithmetic that has nothing in common with dpsd's.

Few answers are summed over in forty digits: a function gives δ at ε, and :func:`epsilon_at` finds
its root. Of many answers, :func:`many_responses` finds the losses by a Fourier transform of their
characteristic function, tilted towards the ε in question so that its rounding errors are small
against what matters there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath as mp
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

#: Digits. Sums of a hundred thousand terms lose five of them at most.
mp.mp.dps = 40

Delta = Callable[[mp.mpf], mp.mpf]


def responses(epsilon: float, *, count: int, buckets: int = 2) -> list[tuple[mp.mpf, mp.mpf]]:
    """The losses of so many randomised responses, and their chances."""
    own = mp.mpf(epsilon)
    truth = mp.exp(own) / (mp.exp(own) + buckets - 1)
    lie = 1 / (mp.exp(own) + buckets - 1)
    if buckets == 2:
        return [
            (
                own * (2 * truths - count),
                mp.binomial(count, truths) * truth**truths * lie ** (count - truths),
            )
            for truths in range(count + 1)
        ]
    rest = 1 - truth - lie
    found: dict[int, mp.mpf] = {}
    for truths in range(count + 1):
        for lies in range(count + 1 - truths):
            chance = (
                mp.binomial(count, truths)
                * mp.binomial(count - truths, lies)
                * truth**truths
                * lie**lies
                * rest ** (count - truths - lies)
            )
            found[truths - lies] = found.get(truths - lies, mp.mpf(0)) + chance
    return [(own * net, chance) for net, chance in found.items()]


def delta_of_losses(losses: list[tuple[mp.mpf, mp.mpf]]) -> Delta:
    """δ(ε) of a finite distribution of losses."""
    return lambda at: mp.fsum(
        chance * (1 - mp.exp(at - loss)) for loss, chance in losses if loss > at
    )


def together(one: list[tuple[mp.mpf, mp.mpf]], other: Delta) -> Delta:
    """δ(ε) of a finite distribution of losses and of another release."""
    return lambda at: mp.fsum(chance * other(at - loss) for loss, chance in one)


def delta_of_gaussian(noise: float, *, count: int = 1) -> Delta:
    """δ(ε) of Gaussians of sensitivity one, for any real ε (Balle & Wang, ICML 2018)."""
    mu = mp.sqrt(count) / mp.mpf(noise)

    def delta(at: mp.mpf) -> mp.mpf:
        return mp.ncdf(mu / 2 - at / mu) - mp.exp(at) * mp.ncdf(-mu / 2 - at / mu)

    return delta


def epsilon_at(delta_at: Delta, delta: float) -> float:
    """ε ≥ 0 at which δ(ε) falls to δ, by halving."""
    if delta_at(mp.mpf(0)) <= delta:
        return 0.0
    low, high = mp.mpf(0), mp.mpf(1)
    while delta_at(high) > delta:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_at(middle) > delta else (low, middle)
    return float(high)


def epsilon_of_many(epsilon: float, *, count: int, buckets: int, delta: float) -> float:
    """ε ≥ 0 of thousands of randomised responses and more, at δ.

    Right to a relative 1e-9 between two classes, and to 1e-6 between more.
    """
    if buckets == 2:
        return _root(*_many_between_two(epsilon, count=count), delta)
    near = _of_a_gaussian(epsilon, count, buckets, delta)
    for _ in range(3):  # the tilt is best at the ε that is looked for
        near = _root(*_many_between(epsilon, count=count, buckets=buckets, near=near), delta)
    return near


def _root(losses: NDArray[np.float64], chances: NDArray[np.float64], delta: float) -> float:
    def excess(at: float) -> float:
        above = losses > at
        return float(chances[above] @ -np.expm1(at - losses[above])) - delta

    return 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, float(losses[-1]), xtol=1e-16))


def _many_between_two(
    epsilon: float, *, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses and chances, each from the one before in extended precision, divided by their sum."""
    own = np.longdouble(epsilon)
    truth = 1 / (1 + np.exp(-own))
    reach = math.ceil(40 * math.sqrt(count * float(truth * (1 - truth)))) + 400
    middle = round(count * float(truth))
    truths = np.arange(max(0, middle - reach), min(count, middle + reach) + 1).astype(np.longdouble)
    steps = np.log((count - truths[:-1]) / truths[1:]) + own
    logarithms = np.concatenate([np.zeros(1, np.longdouble), np.cumsum(steps)])
    chances = np.exp(logarithms - logarithms.max())
    losses = own * (2 * truths - count)
    return losses.astype(np.float64), (chances / chances.sum()).astype(np.float64)


def _many_between(
    epsilon: float, *, count: int, buckets: int, near: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses around ``near`` and their chances, by a Fourier transform of tilted steps."""
    weight = math.exp(epsilon)
    truth, lie = weight / (weight + buckets - 1), 1 / (weight + buckets - 1)
    steps, chances = np.array([1.0, -1.0, 0.0]), np.array([truth, lie, (buckets - 2) * lie])

    def tilted(tilt: float) -> NDArray[np.float64]:
        raised = chances * np.exp(tilt * steps)
        own: NDArray[np.float64] = raised / raised.sum()
        return own

    wanted = near / (epsilon * count)
    tilt = float(brentq(lambda at: float(tilted(at) @ steps) - wanted, -40, 40, xtol=1e-14))
    own = tilted(tilt)
    centre = round(count * float(own @ steps))
    mean = centre / count
    spread = math.sqrt(count * float(own @ steps**2 - (own @ steps) ** 2))
    reach = min(2 * count, math.ceil(40 * spread) + 400)
    size = 1 << (2 * reach + 1).bit_length()
    angle = 2 * np.pi * np.fft.fftfreq(size)[:, None] * (steps - mean)
    # The characteristic function of one step, less 1, without cancellation.
    less_one = (-2 * np.sin(angle / 2) ** 2) @ own + 1j * (np.sin(angle) @ own)
    found = np.fft.fft(np.exp(count * np.log1p(less_one))).real / size
    nets = np.arange(-reach, reach + 1)
    found = found[nets]  # negative ones from the end
    with mp.workdps(60):
        sums = mp.fsum(
            mp.mpf(c) * mp.exp(mp.mpf(tilt) * s) for c, s in zip(chances, steps, strict=True)
        )
        shift = float(count * mp.log(sums) - mp.mpf(tilt) * centre)
    inside = (np.abs(centre + nets) <= count) & (found > 1e-13 * found.max())
    nets, found = nets[inside], found[inside]
    return epsilon * (centre + nets), found * np.exp(shift - tilt * nets)


def _of_a_gaussian(epsilon: float, count: int, buckets: int, delta: float) -> float:
    """Roughly the ε of a Gaussian with the losses' mean and variance."""
    weight = math.exp(epsilon)
    mean = count * epsilon * (weight - 1) / (weight + buckets - 1)
    deviation = epsilon * math.sqrt(count * (weight + 1) / (weight + buckets - 1))
    most = 0.99 * count * epsilon
    return min(mean + deviation * math.sqrt(2 * math.log(1 / delta)), most)

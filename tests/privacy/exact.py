"""ε by arithmetic that has nothing in common with dpsd's: sums in forty digits.

Each function gives δ at ε, of which :func:`epsilon_at` finds the root. They are slow, and meant for
few answers; ``benchmarks/privacy.py`` goes on from here to many.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp

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

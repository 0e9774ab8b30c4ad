"""A lower bound on ε from a single run, by guesses about many independent pairs of canaries.

One record of each pair is in the training data, chosen by a fair coin; the attacker guesses which.
Two worlds that differ in one coin differ by one replaced record, so ε is that of the replace-one
relation. If ε holds, a guess is right with probability at most ``e^ε / (1 + e^ε)`` whatever the
other coins, and the number of right guesses is stochastically below a binomial one, up to a term
in δ. The ε at which so many right guesses would be too lucky is a lower bound.

>>> round(lower_bound(100, 100, pairs=100, delta=0.0), 2)
3.49
>>> round(lower_bound(1_000, 1_000, pairs=1_000, delta=0.0), 2)
5.81
>>> lower_bound(50, 100, pairs=100, delta=0.0)
0.0

Source: Steinke, Nasr & Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023,
theorem 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from dpsd.attacks.membership.scores import Flags, Numbers
from dpsd.errors import ConfigError, Setting

#: The version of the bound, as findings state it.
VERSION = 1
#: The confidence of the paper.
CONFIDENCE = 0.95
#: The shares of the pairs that are guessed, the surest first; fixed before anything is measured.
SHARES = (0.1, 0.3, 1.0)
#: An ε that no number of guesses reaches.
_LARGEST = 50.0
#: The ε that guesses must prove if all of them are right; less would leave no room for a wrong one.
_USEFUL = 1.0
#: The most pairs of which it is tried whether they are enough. More prove no more where δ is large.
_MOST_TRIED = 200


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What the guesses prove.

    Args:
        epsilon: the lower bound on ε under the replace-one relation, for a record.
        guesses: the number of pairs that were guessed.
        right: how many of the guesses were right.
        pairs: the number of pairs.
        confidence: the confidence of the bound.
    """

    epsilon: float
    guesses: int
    right: int
    pairs: int
    confidence: float


def lower_bound(
    right: int, guesses: int, *, pairs: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Return the largest ε that so many right guesses refute, at least 0.

    Args:
        right: the number of right guesses.
        guesses: the number of guesses, which must not depend on which were right.
        pairs: the number of pairs of canaries, guessed or not.
        delta: the δ of the claim, in [0, 1).
        confidence: the confidence of the bound, in (0, 1).

    Raises:
        ValueError: there are more right guesses than guesses, or more guesses than pairs.
    """
    if not 0 <= right <= guesses <= pairs:
        raise ValueError(f"{right} of {guesses} guesses about {pairs} pairs cannot be right")

    def excess(epsilon: float) -> float:
        return chance(right, guesses, epsilon=epsilon, pairs=pairs, delta=delta) - (1 - confidence)

    if guesses == 0 or excess(0.0) >= 0:
        return 0.0
    return float(optimize.brentq(excess, 0.0, _LARGEST))


def chance(right: int, guesses: int, *, epsilon: float, pairs: int, delta: float) -> float:
    """Return the most probable that so many right guesses can be if (ε, δ) holds.

    >>> round(chance(9, 10, epsilon=0.0, pairs=10, delta=0.0), 4)  # 11 of 1,024
    0.0107
    """
    share = special.expit(epsilon)
    certain = float(stats.binom.sf(right - 1, guesses, share))
    if delta == 0:
        return certain
    # P[right - i <= B < right] for i = 1, …, right, divided by i.
    within = np.cumsum(stats.binom.pmf(np.arange(right - 1, -1, -1), guesses, share))
    slope = float((within / np.arange(1, right + 1)).max()) if right else 0.0
    return min(1.0, certain + 2 * pairs * delta * slope)


def guessed(
    first: Numbers,
    second: Numbers,
    is_first: Flags,
    *,
    delta: float,
    shares: Sequence[float] = SHARES,
    confidence: float = CONFIDENCE,
) -> Bound:
    """Guess that the record with the higher score is in, and return the best bound.

    The surest guesses are made alone, for each of several shares; as the best bound is taken, each
    holds with a part of the risk (Bonferroni).

    Args:
        first: the scores of the first record of each pair, ``(pairs,)``.
        second: the scores of the second record of each pair, ``(pairs,)``.
        is_first: whether the first was in, ``(pairs,)``, by a fair coin each.
        delta: the δ of the claim.
        shares: the shares of the pairs that are guessed.
        confidence: the confidence of the bound.
    """
    pairs, margin = len(first), first - second
    surest = np.argsort(-np.abs(margin), kind="stable")
    is_right = ((margin > 0) == is_first)[surest].cumsum()
    each = 1 - (1 - confidence) / len(shares)
    found = []
    for share in shares:
        guesses = max(1, round(share * pairs))
        right = int(is_right[guesses - 1])
        bound = lower_bound(right, guesses, pairs=pairs, delta=delta, confidence=each)
        found.append((bound, guesses, right))
    epsilon, guesses, right = max(found)
    return Bound(epsilon=epsilon, guesses=guesses, right=right, pairs=pairs, confidence=confidence)


def all_right(pairs: int, *, delta: float) -> float:
    """Return the most that so many pairs can prove: the bound if all guesses are right.

    Args:
        pairs: the number of pairs, at least 1.
        delta: the δ of the claim.

    >>> [round(all_right(pairs, delta=1e-5), 2) for pairs in (10, 14, 300)]
    [0.68, 1.08, 4.27]
    """
    everything = np.ones(pairs)
    return guessed(everything, 0 * everything, everything > 0, delta=delta).epsilon


def require_enough(pairs: int, *, delta: float) -> None:
    """Refuse a number of pairs that proves nothing useful, even if all guesses are right.

    Args:
        pairs: the number of pairs.
        delta: the δ of the claim.

    Raises:
        ConfigError: there are too few pairs, or δ is too large for any number of them.

    >>> require_enough(10, delta=1e-5)
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: pairs are 10, which prove too little at δ = 1e-05 even if all ...
    """

    def is_enough(count: int) -> bool:
        return count > 0 and all_right(count, delta=delta) >= _USEFUL

    if is_enough(pairs):
        return
    enough = next((count for count in range(1, _MOST_TRIED) if is_enough(count)), None)
    mend = (
        f"give {enough}, which need {4 * enough} records"
        if enough
        else "no number of pairs is enough, so transcribe with a smaller δ"
    )
    raise ConfigError(
        Setting("pairs"),
        f" are {pairs}, which prove too little at δ = {delta:g} even if all guesses about them are "
        f"right: {mend}",
    )

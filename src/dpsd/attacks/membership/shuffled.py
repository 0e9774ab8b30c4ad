"""What scores find where membership was drawn anew, and how likely chance alone does as much.

For each pair of models, the membership of all records is drawn independently of the models, and the
two are scored with it. Their scores rest on the membership of the *other* pairs, so which of the
two has a record is a fair coin that the scores cannot know. As every pair has a draw of its own,
all coins are independent of all scores that are judged, and binomial laws are exact whatever the
models are like. (Of one draw for all pairs they would not be: a student that leaks gives several
models of a record high scores together.)

>>> scores, is_in = np.array([[3.0, 1.0], [2.0, 2.0]]), np.array([[True, False], [False, True]])
>>> found = Shuffled.of(scores, is_in)
>>> found.higher, found.coins, found.found, found.false_positives, found.p_higher, found.p_found
(2, 2, 1, 0, 0.5, 0.5)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dpsd.attacks.membership.scores import Flags, Numbers
from dpsd.streams import stream_seed

#: The false-positive rate at which members are counted.
RATE = 0.01
#: The fewest coins that are thrown.
_COINS = 4_000


@dataclass(frozen=True, kw_only=True)
class Shuffled:
    """What one score finds of a membership that was drawn anew.

    Args:
        higher: how often, of the two models of a pair, the one with the record scores higher.
        coins: the number of pairs of models and records whose two scores differ.
        found: the members with a higher score than all others but the false positives.
        false_positives: the number of others that may be taken for members.
        members: the number of members, and of others.
    """

    higher: int
    coins: int
    found: int
    false_positives: int
    members: int

    @classmethod
    def of(cls, scores: Numbers, is_in: Flags) -> Shuffled:
        """Count what scores find.

        Args:
            scores: the scores, ``(M, N)`` for M models and N records; models ``2 j`` and
                ``2 j + 1`` are a pair.
            is_in: which records each model has, ``(M, N)``: of each pair, one.
        """
        one, other = scores[::2], scores[1::2]
        differ = one != other
        others = np.sort(scores[~is_in])[::-1]
        allowed = int(RATE * len(others) + 1e-9)
        return cls(
            higher=int(((one > other) == is_in[::2])[differ].sum()),
            coins=int(differ.sum()),
            found=int((scores[is_in] > others[allowed]).sum()),
            false_positives=allowed,
            members=int(is_in.sum()),
        )

    @property
    def p_higher(self) -> float:
        """How likely fair coins are as far from a half, on either side."""
        return float(stats.binomtest(self.higher, self.coins).pvalue) if self.coins else 1.0

    @property
    def p_found(self) -> float:
        """How likely, at most, fair coins put as many members before one false positive more.

        A record of which both models are among them has one member for certain, which can only
        make so many members less likely.
        """
        ranked = self.found + self.false_positives
        return float(stats.binom.cdf(self.false_positives, ranked, 0.5))

    @property
    def p(self) -> float:
        """How likely, at most, chance alone is as odd as the odder of the two."""
        return min(1.0, 2 * min(self.p_higher, self.p_found))


def drawn_anew(
    scored: Callable[[Flags], Numbers], *, models: int, records: int, seed: int
) -> Shuffled:
    """Draw a membership for each pair of models, and count what a score finds of it.

    It is drawn again until there are some thousand coins: so few false positives as a hundred
    records allow would hide what a score finds.

    Args:
        scored: scores all models under a membership, both ``(M, N)``.
        models: the number of models, an even one.
        records: the number of records.
        seed: the seed of all draws.
    """
    generator = np.random.default_rng(stream_seed(seed, 0, "shuffled membership"))
    found, of_pairs = [], []
    pairs = models // 2
    for pair in list(range(pairs)) * math.ceil(_COINS / (pairs * records)):
        first = generator.random((pairs, records)) < 0.5
        is_in = np.stack([first, ~first], axis=1).reshape(models, records)
        own = slice(2 * pair, 2 * pair + 2)
        found.append(scored(is_in)[own])
        of_pairs.append(is_in[own])
    return Shuffled.of(np.concatenate(found), np.concatenate(of_pairs))

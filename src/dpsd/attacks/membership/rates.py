"""How well scores tell members from others: ROC, AUC, and true positives at few false ones.

Intervals come from a bootstrap over records *and* models, each drawn with replacement: confidences
of one model, or in one record, vary together, so pairs of both are not independent. Models of a
pair, which were trained on complementary halves, are drawn together.

>>> scores = np.array([[2.0, 1.0], [1.0, 2.0]])
>>> found = measured(scores, np.array([[True, False], [False, True]]), draws=50)
>>> found.auc.value, found.members, found.others
(1.0, 2, 2)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_curve

from dpsd.attacks.membership.scores import Flags, Numbers

#: The false-positive rates at which true positives are counted, as sentences write them.
AT = {0.01: "1%", 0.001: "0.1%"}
#: The fewest false positives on which a rate of true positives may rest, to be called shown.
FEWEST = 10

_CONFIDENCE = 0.95
#: The numbers of a bootstrap that are in memory at once.
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval.

    Args:
        value: the estimate.
        low: the lower end.
        high: the upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def percent(self) -> str:
        """Return a share in percent.

        >>> Interval(0.123, 0.1, 0.15).percent()
        '12.3% (10.0% to 15.0%)'
        """
        value, low, high = (100 * share for share in (self.value, self.low, self.high))
        return f"{value:.1f}% ({low:.1f}% to {high:.1f}%)"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What an attacker's scores achieve.

    Args:
        auc: the area under the ROC curve; 0.5 is guessing, and higher is worse for privacy.
        caught: the share of members found at each false-positive rate of :data:`AT`.
        false_positives: the number of false positives that it rests on.
        deviation: the standard error of the area.
        members: the number of pairs of a model and a record that it was trained on.
        others: the number of pairs of a model and a record that it was not trained on.
        models: the number of models.
        records: the number of records.
    """

    auc: Interval
    caught: Mapping[float, Interval]
    false_positives: Mapping[float, int]
    deviation: float
    members: int
    others: int
    models: int
    records: int

    def shows(self, rate: float) -> bool:
        """Whether there are enough non-members for this false-positive rate."""
        return self.false_positives[rate] >= FEWEST

    def rests_on(self, rate: float) -> str:
        """Return what a false-positive rate rests on, with the interval of the rate itself.

        >>> scores = np.linspace(0, 1, 4_000).reshape(2, 2_000)
        >>> is_in = np.stack([np.arange(2_000) % 2 == 0, np.arange(2_000) % 2 == 1])
        >>> measured(scores, is_in, draws=20).rests_on(0.001)
        '2 false positives among 2,000 non-members, so a rate of 0.01% to 0.36%'
        """
        count = self.false_positives[rate]
        among = stats.binomtest(count, self.others).proportion_ci(_CONFIDENCE)
        return (
            f"{count:,} false positive{'s' * (count != 1)} among {self.others:,} non-members, so a "
            f"rate of {100 * among.low:.2f}% to {100 * among.high:.2f}%"
        )


def measured(
    scores: Numbers, is_in: Flags, *, draws: int = 500, seed: int = 0, together: int = 2
) -> Rates:
    """Measure how well scores tell members from others, all models pooled.

    Args:
        scores: the scores, ``(M, N)`` for M models and N records.
        is_in: which records each model was trained on, ``(M, N)``.
        draws: the number of bootstrap samples.
        seed: the seed of the bootstrap.
        together: the number of consecutive models that are drawn together.

    Raises:
        ValueError: there is no member, or no other.
    """
    models, records = scores.shape
    members = int(is_in.sum())
    others = is_in.size - members
    if not members or not others:
        raise ValueError("there must be members as well as others")
    curves = _Curves(scores, is_in)
    whole = curves.summary(np.ones((1, models)), np.ones((1, records)))[0]
    generator = np.random.default_rng(seed)
    groups = models // together
    step = max(1, _AT_ONCE // scores.size)
    drawn = []
    for start in range(0, draws, step):
        count = min(step, draws - start)
        of_groups = generator.multinomial(groups, np.full(groups, 1 / groups), size=count)
        of_records = generator.multinomial(records, np.full(records, 1 / records), size=count)
        drawn.append(curves.summary(of_groups.repeat(together, axis=1), of_records))
    sample = np.concatenate(drawn)
    low, high = np.quantile(sample, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2], axis=0)
    intervals = [Interval(*map(float, ends)) for ends in zip(whole, low, high, strict=True)]
    return Rates(
        auc=intervals[0],
        caught=dict(zip(AT, intervals[1:], strict=True)),
        false_positives={rate: int(rate * others + 1e-9) for rate in AT},
        deviation=float(sample[:, 0].std()),
        members=members,
        others=others,
        models=models,
        records=records,
    )


def curve(scores: Numbers, is_in: Flags) -> tuple[Numbers, Numbers]:
    """Return the false-positive and true-positive rates of all thresholds, each ``(T,)``."""
    false, true, _ = roc_curve(is_in.ravel(), scores.ravel(), drop_intermediate=False)
    return false, true


class _Curves:
    """ROC curves of one set of scores under many weights of models and records."""

    def __init__(self, scores: Numbers, is_in: Flags) -> None:
        order = np.argsort(-scores, axis=None, kind="stable")
        self._model, self._record = np.unravel_index(order, scores.shape)
        self._is_in = is_in.ravel()[order]
        ranked = scores.ravel()[order]
        # Equal scores are guessed alike, so a threshold lies only where the next one differs.
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))

    def summary(self, models: NDArray[Any], records: NDArray[Any]) -> Numbers:
        """Return area and true-positive rates, ``(B, 1 + len(AT))``, under B sets of weights."""
        weight = models[:, self._model].astype(np.float64) * records[:, self._record]
        true = self._rising(weight * self._is_in)
        false = self._rising(weight * ~self._is_in)
        area = ((true[:, 1:] + true[:, :-1]) / 2 * np.diff(false, axis=1)).sum(1)
        at = [
            # The last threshold with no more false positives; the curve never falls.
            np.where(false <= rate + 1e-12, true, 0.0).max(1)
            for rate in AT
        ]
        found: Numbers = np.stack([area, *at], axis=1)
        return found

    def _rising(self, weight: Numbers) -> Numbers:
        summed = weight.cumsum(1)[:, self._ends]
        share = summed / np.maximum(summed[:, -1:], 1e-12)
        found: Numbers = np.concatenate([np.zeros((len(share), 1)), share], axis=1)
        return found

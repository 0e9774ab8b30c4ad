"""An attacker's scores of membership: the higher, the more a record looks like a training record.

All are functions of confidences alone: for each model and record, ``φ = log(p / (1 - p))``, where
``p`` is the probability that the model gives to the record's label. Reference models were trained
by the attacker, each on some of the records. A score is named and numbered, and findings with
another number of the same score are not comparable.

>>> seen = Seen(
...     target=np.array([3.0, -2.0]),
...     references=np.array([[3.0, 2.9], [0.1, 0.0], [2.8, 3.1], [0.0, 0.2]]),
...     is_in=np.array([[True, True], [False, False], [True, True], [False, False]]),
... )
>>> [bool(score.of(seen)[0] > score.of(seen)[1]) for score in SCORES]
[True, True, True, True, True]

Sources: Carlini et al., "Membership Inference Attacks From First Principles", S&P 2022 (LiRA);
Zarifzadeh, Liu & Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024 (RMIA);
Brännvall, "Exponential-Family Membership Inference: From LiRA and RMIA to BaVarIA", 2026.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from dpsd.errors import ConfigError

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: The least standard deviation of confidences, so that equal reference models divide by no zero.
_LEAST_DEVIATION = 1e-6
#: How much likelier a record must have become than another one, for RMIA; as in the paper.
_RMIA_RATIO = 2.0
#: The weight of BaVarIA's prior on a variance: its inverse-gamma shape, which must exceed 1.
_PRIOR_SHAPE = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What an attacker sees of one target model.

    Args:
        target: the target's confidences, ``(N,)`` for N records.
        references: the confidences of R reference models, ``(R, N)``.
        is_in: which records each reference model was trained on, ``(R, N)``.

    Raises:
        ConfigError: a record was in all reference models, or in none, so that they say nothing of
            it; or there are fewer than three reference models.
    """

    target: Numbers
    references: Numbers
    is_in: Flags

    def __post_init__(self) -> None:
        models, inside = len(self.is_in), self.is_in.sum(0)
        if models < 3 or inside.min() < 1 or inside.max() >= models:
            raise ConfigError(
                f"{models} reference models do not have each record both in and out, with two "
                "models on one side: train more shadows"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """The confidences of the models that were trained on a record, or of the others.

    Args:
        count: the number of models, ``(N,)``.
        mean: their mean confidence in each record, ``(N,)``.
        squares: the sum of squared deviations from it, ``(N,)``.
        variance: the mean squared deviation over all records, without bias.
    """

    count: Numbers
    mean: Numbers
    squares: Numbers
    variance: float

    @classmethod
    def of(cls, seen: Seen, chosen: Flags) -> _Side:
        count = chosen.sum(0).astype(np.float64)
        mean = np.where(chosen, seen.references, 0.0).sum(0) / count
        squares = np.where(chosen, np.square(seen.references - mean), 0.0).sum(0)
        freedom = max(1.0, float((count - 1).sum()))
        variance = max(_LEAST_DEVIATION**2, float(squares.sum()) / freedom)
        return cls(count=count, mean=mean, squares=squares, variance=variance)


def lira_online(seen: Seen) -> Numbers:
    """Return the log-likelihood ratio of two Gaussians of one variance a side, ``(N,)``.

    Each record has its own means, estimated from the models that were and were not trained on it.
    The variances are those of all records together, as few models do not tell a record's own.
    """
    inside, outside = _Side.of(seen, seen.is_in), _Side.of(seen, ~seen.is_in)
    found: Numbers = _gaussian(seen.target, inside) - _gaussian(seen.target, outside)
    return found


def lira_offline(seen: Seen) -> Numbers:
    """Return how unlikely it is that a non-member's confidence is as high, ``(N,)``, ``-log P``.

    Reference models that were trained on a record are left out. The logarithm of the upper tail
    tells apart confidences for which one minus a distribution function is exactly zero.
    """
    outside = _Side.of(seen, ~seen.is_in)
    found: Numbers = -stats.norm.logsf(seen.target, outside.mean, np.sqrt(outside.variance))
    return found


def bavaria_t(seen: Seen) -> Numbers:
    """Return the log-likelihood ratio of two Student-t predictive distributions, ``(N,)``.

    Mean and variance of each record have a normal-inverse-gamma prior, whose centre, variance and
    weight on the mean are those of all records together (empirical Bayes); its shape is 2. The
    paper's own choice of these may differ.
    """
    inside, outside = _Side.of(seen, seen.is_in), _Side.of(seen, ~seen.is_in)
    found: Numbers = _student(seen.target, inside) - _student(seen.target, outside)
    return found


def rmia(seen: Seen) -> Numbers:
    """Return the share of other records than which a record became likelier by a ratio, ``(N,)``.

    A record's probability under the target is divided by its mean probability under reference
    models, in and out with equal weight. The other records are the sample of the population.
    """
    probability = special.expit(seen.references)
    inside = np.where(seen.is_in, probability, 0.0).sum(0) / seen.is_in.sum(0)
    outside = np.where(seen.is_in, 0.0, probability).sum(0) / (~seen.is_in).sum(0)
    # Logarithms, as probabilities of wrong labels may be too small for a ratio.
    risen = -np.logaddexp(0.0, -seen.target) - np.log((inside + outside) / 2 + 1e-300)
    beaten = np.searchsorted(np.sort(risen), risen - np.log(_RMIA_RATIO), side="right")
    found: Numbers = beaten / max(1, len(risen) - 1)
    return found


def threshold(seen: Seen) -> Numbers:
    """Return the confidence itself, ``(N,)``: the attack that needs no reference models."""
    return seen.target


@dataclass(frozen=True)
class Score:
    """A score with its name and version.

    Args:
        name: the name, as tables show it.
        version: a number that changes whenever the score of the same confidences does.
        of: the function.
    """

    name: str
    version: int
    of: Callable[[Seen], Numbers]


#: All scores. The first is the one that verdicts state, chosen before anything was measured.
SCORES = (
    Score("fixed-variance LiRA", 1, lira_online),
    Score("offline fixed-variance LiRA", 1, lira_offline),
    Score("BaVarIA-t", 1, bavaria_t),
    Score("RMIA", 1, rmia),
    Score("threshold", 1, threshold),
)


#: What the scores are, for tables.
SCORED = (
    "Scores: LiRA, the likelihood ratio of a model's confidence with and without the record, by "
    "the other shadows (offline: by those without it alone); BaVarIA-t, the same with Student's t "
    "distributions; RMIA, how many other records became less likely; threshold, the confidence "
    "itself, without any shadow."
)


def left_out(confidences: Numbers, is_in: Flags, score: Score) -> Numbers:
    """Score every model with the others as references, leaving out the model and its complement.

    Models ``2 j`` and ``2 j + 1`` were trained on complementary halves. If only the model itself
    were left out, its complement would tell where it was trained, and so would the number of
    models that a record is in. Without the pair, each record is in exactly half of the references.

    Args:
        confidences: the confidences of M models in N records, ``(M, N)``.
        is_in: which records each model was trained on, ``(M, N)``.
        score: the score.

    Returns:
        The scores, ``(M, N)``.

    Raises:
        ValueError: two models of a pair are not complementary.
    """
    if len(is_in) % 2 or not (is_in[::2] ^ is_in[1::2]).all():
        raise ValueError("models 2 j and 2 j + 1 must be trained on complementary halves")
    pair = np.arange(len(is_in)) // 2
    return np.stack(
        [
            score.of(
                Seen(
                    target=confidences[model],
                    references=confidences[pair != pair[model]],
                    is_in=is_in[pair != pair[model]],
                )
            )
            for model in range(len(is_in))
        ]
    )


def _gaussian(values: Numbers, side: _Side) -> Numbers:
    found: Numbers = stats.norm.logpdf(values, side.mean, np.sqrt(side.variance))
    return found


def _student(values: Numbers, side: _Side) -> Numbers:
    """Return the log-density of the posterior predictive distribution of a normal's values."""
    centre = side.mean.mean()
    # The means of records vary by their own spread and by chance; only the former is the prior's.
    chance = side.variance * float((1 / side.count).mean())
    spread = max(_LEAST_DEVIATION**2, float(side.mean.var()) - chance)
    weight = side.variance / spread
    after = weight + side.count
    mean = (weight * centre + side.count * side.mean) / after
    shape = _PRIOR_SHAPE + side.count / 2
    scale = (
        (_PRIOR_SHAPE - 1) * side.variance
        + side.squares / 2
        + weight * side.count * np.square(side.mean - centre) / (2 * after)
    )
    deviation = np.sqrt(scale * (after + 1) / (shape * after))
    found: Numbers = stats.t.logpdf(values, 2 * shape, mean, deviation)
    return found

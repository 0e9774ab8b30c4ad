"""Three ways to tell copies from likenesses, each with what chance alone would do.

All are one-sided: a small p says that samples are nearer to training records than held-out records
are, or than to held-out records. Samples that are far from everything are no copies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import nhypergeom, rankdata

from dpsd.reporting.evaluations import wilson

Numbers = NDArray[np.float64]
Rows = NDArray[np.int64]

#: The version of each score; those of different versions are not compared.
SCORES = {"near-copies": 1, "three-sample test": 1, "nearer to training": 1}
#: A p below this raises an alarm, as the planted leaks must.
LEVEL = 5e-4
#: The fewest samples, and the fewest held-out records, of a cell of the three-sample test.
_FEWEST_IN_CELL = 5


@dataclass(frozen=True, kw_only=True)
class NearCopies:
    """Samples that are nearer to a training record than held-out records are.

    Args:
        count: the number of near-copies.
        of: the number of samples.
        threshold: the ratio below which a sample is a near-copy.
        expected: the number of near-copies to expect if the samples were held-out records.
        p: the probability that held-out records would give at least as many.
    """

    count: int
    of: int
    threshold: float
    expected: float
    p: float

    @property
    def share(self) -> float:
        """The share of the samples that are near-copies."""
        return self.count / self.of


def near_copies(ratios: Numbers, calibration: Numbers, *, rate: float) -> NearCopies:
    """Count the samples whose distance to the nearest training record is unusually small.

    The threshold is an order statistic of held-out records, so that the number of other held-out
    records below it has a known law, the negative hypergeometric one, whatever the data. A sample
    at distance 0 is always counted.

    Source of the ratio: Carlini et al., "Extracting Training Data from Diffusion Models", USENIX
    Security 2023.

    Args:
        ratios: the distance of each sample to the nearest training record, over its mean distance
            to the nearest 50, ``(N,)``.
        calibration: the same for held-out records, ``(M,)``.
        rate: the share of held-out records that may be below the threshold, if there are enough of
            them; otherwise the threshold is the smallest of their ratios.

    >>> near_copies(np.zeros(5), np.ones(9), rate=0.01).share
    1.0
    """
    place = max(1, math.floor(rate * (len(calibration) + 1)))
    threshold = float(np.sort(calibration)[place - 1])
    below = int((ratios < threshold).sum())
    total = len(ratios) + len(calibration)
    return NearCopies(
        count=int(((ratios < threshold) | (ratios == 0)).sum()),
        of=len(ratios),
        threshold=threshold,
        expected=len(ratios) * place / (len(calibration) + 1),
        p=float(np.clip(nhypergeom.sf(below - 1, total, len(ratios), place), 0, 1)),
    )


@dataclass(frozen=True, kw_only=True)
class ThreeSample:
    """The three-sample test of data copying.

    Args:
        statistic: the mean over cells of the z of Mann and Whitney's U; ``None`` if samples and
            held-out records share no cell. It is far below 0 for copies, near 0 for samples that
            are as near to training records as held-out ones, and above 0 for others.
        p: the probability of a statistic as low or lower if samples were held-out records; 1
            without a statistic.
    """

    statistic: float | None
    p: float


def three_sample(samples: Numbers, held_out: Numbers, *, cells: tuple[Rows, Rows]) -> ThreeSample:
    """Test whether samples are nearer to training records than held-out records are.

    Source: Meehan, Chaudhuri & Dasgupta, "A Non-Parametric Test to Detect Data-Copying in
    Generative Models", AISTATS 2020. Their cells come from clustering; here the cell of an image is
    the class of the training record that is nearest to it.

    Args:
        samples: the distance of each sample to the nearest training record, ``(N,)``.
        held_out: the same for held-out records, ``(M,)``.
        cells: the cell of each sample, ``(N,)``, and of each held-out record, ``(M,)``.
    """
    scores, weights = [], []
    for cell in np.intersect1d(*cells):
        ours, theirs = samples[cells[0] == cell], held_out[cells[1] == cell]
        if min(len(ours), len(theirs)) >= _FEWEST_IN_CELL:
            scores.append(_z_of_u(ours, theirs))
            weights.append(len(theirs))
    if not scores:
        return ThreeSample(statistic=None, p=1.0)
    shares = np.array(weights) / sum(weights)
    statistic = float(shares @ np.array(scores))
    # The z of different cells are independent, so that of their mean has this deviation.
    return ThreeSample(
        statistic=statistic, p=float(ndtr(statistic / math.sqrt(float(shares @ shares))))
    )


def _z_of_u(ours: Numbers, theirs: Numbers) -> float:
    """Return the z of the number of pairs in which ours is the larger; below 0 if ours are less."""
    one, other = len(ours), len(theirs)
    joined = np.concatenate([ours, theirs])
    ranks = rankdata(joined)
    pairs = ranks[:one].sum() - one * (one + 1) / 2
    total = one + other
    _, tied = np.unique(joined, return_counts=True)
    ties = (tied.astype(float) ** 3 - tied).sum() / (total * (total - 1))
    deviation = math.sqrt(one * other * (total + 1 - ties) / 12)
    return float((pairs - one * other / 2) / deviation) if deviation else 0.0


@dataclass(frozen=True, kw_only=True)
class Nearer:
    """The share of samples that are nearer to a training record than to any held-out one.

    Args:
        share: the share, where 50 % means that training makes no difference; ties count half.
        low: the lower end of its interval of 95 %.
        high: the upper end.
        records: the number of samples that this is as certain as, as samples that are nearest to
            the same record are not independent.
        p: the probability of such a share or a larger one if training makes no difference.
    """

    share: float
    low: float
    high: float
    records: float
    p: float


def nearer(
    training: Numbers, held_out: Numbers, *, nearest_training: Rows, nearest_held_out: Rows
) -> Nearer:
    """Compare distances to training records with those to as many held-out ones.

    If training made no difference, a fair coin might have decided which records it used. All
    samples that are nearest to the same record then hang on the same coin, so they count as fewer.

    Args:
        training: the distance of each sample to the nearest training record, ``(N,)``.
        held_out: the distance to the nearest held-out record, ``(N,)``.
        nearest_training: the row of that training record, ``(N,)``.
        nearest_held_out: the row of that held-out record, ``(N,)``.
    """
    is_nearer = training < held_out
    share = float((is_nearer + 0.5 * (training == held_out)).mean())
    coins = np.where(is_nearer, nearest_training, -1 - nearest_held_out)
    _, counts = np.unique(coins, return_counts=True)
    records = float(counts.sum() ** 2 / (counts**2).sum())
    low, high = wilson(share, records)
    z = (share - 0.5) * 2 * math.sqrt(records)
    return Nearer(share=share, low=low, high=high, records=records, p=float(ndtr(-z)))

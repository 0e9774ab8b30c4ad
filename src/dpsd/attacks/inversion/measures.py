"""What reconstructions are worth: success, nearness to training records, and distributions.

Reconstructions that fool the target may fool an evaluator alike, and a stranger's "3" counts as a
success, so success says nothing of records. Whether something of the *records* came back is a
question of its own: a reconstruction should be nearer to a record that the target was trained on
than to one that it was not, more often than in half of the cases.

Many reconstructions share their nearest record, and then they are one piece of evidence. So the
interval of that share rests on the effective number ``(Σ c)² / Σ c²``, where ``c`` counts how many
reconstructions each record is the nearest of: with equal sets, each record is a training one with
probability 1/2 under the null, whatever the reconstructions are. That null supposes that records
were split at random: a published test set that differs from the training set may move the share.

>>> share_of(5, 10)
Share(share=0.5, low=0.18..., high=0.81..., count=10, effective=10.0)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

#: The number of neighbours in precision and recall, as Kynkäänniemi et al. have it.
_NEIGHBOURS = 3
#: The number of permutations of classes in the test of success.
_PERMUTATIONS = 10_000
#: The least probability that so many permutations tell.
LEAST_CHANCE = 1 / (1 + _PERMUTATIONS)


@dataclass(frozen=True)
class Share:
    """A share with its Clopper-Pearson interval.

    Args:
        share: the share, in [0, 1].
        low: the lower end of the interval.
        high: its upper end.
        count: the number of cases.
        effective: the number of independent cases that the interval rests on.
    """

    share: float
    low: float
    high: float
    count: int
    effective: float


def share_of(
    hits: float, count: int, *, effective: float | None = None, confidence: float = 0.95
) -> Share:
    """Return a share with its interval.

    Args:
        hits: the number of cases in which something holds.
        count: the number of cases, at least 1.
        effective: the number of independent cases; all by default.
        confidence: the confidence of the interval.
    """
    total = float(count) if effective is None else effective
    share, side = hits / count, (1 - confidence) / 2
    held, failed = share * total, (1 - share) * total
    return Share(
        share=share,
        low=float(special.betaincinv(held, failed + 1, side)) if held > 0 else 0.0,
        high=float(special.betaincinv(held + 1, failed, 1 - side)) if failed > 0 else 1.0,
        count=count,
        effective=total,
    )


def chance_of_success(classes: Tensor, found: Tensor, *, num_classes: int, seed: int = 0) -> float:
    """Return how likely a success as large would be if classes had been given out at random.

    All reconstructions of a class change their class together, as they may all be of one look.

    Args:
        classes: the intended classes, int64 ``(N,)``.
        found: the classes that evaluators found, int64 ``(N,)``; -1 where they found none.
        num_classes: the number of classes.
        seed: the seed of the permutations.
    """
    known = found >= 0
    pairs = classes[known] * num_classes + found[known]
    counts = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
    occurring = torch.unique(classes)
    random = torch.Generator().manual_seed(seed)
    order = torch.rand((_PERMUTATIONS, len(occurring)), generator=random).argsort(1)
    permuted = counts[occurring, occurring[order]].sum(1)
    as_large = int((permuted >= counts.diag().sum()).sum())
    return (1 + as_large) / (1 + _PERMUTATIONS)


def nearer_to_training(
    made: Tensor,
    classes: Tensor,
    inside: tuple[Tensor, Tensor],
    outside: tuple[Tensor, Tensor],
    *,
    confidence: float = 0.95,
) -> Share:
    """Return how many reconstructions are nearer to a training record than to a held-out one.

    Each is compared with the training and held-out records of its class. Ties are left out.

    Args:
        made: the features of the reconstructions, ``(N, D)``.
        classes: their classes, int64 ``(N,)``.
        inside: the features ``(M, D)`` and the classes ``(M,)`` of training records.
        outside: those of equally many held-out records of each class.
        confidence: the confidence of the interval.
    """
    hits, counts = 0, [np.zeros(1)]
    for label in torch.unique(classes):
        mine = made[classes == label]
        members, others = (features[labels == label] for features, labels in (inside, outside))
        if len(members) == 0:
            continue
        near, row = distances(mine, members).min(1)
        near_other, row_other = distances(mine, others).min(1)
        is_member, is_other = near < near_other, near > near_other
        hits += int(is_member.sum())
        counts += [
            torch.bincount(rows).double().numpy() for rows in (row[is_member], row_other[is_other])
        ]
    each = np.concatenate(counts)
    total = int(each.sum())
    if total == 0:
        return Share(share=0.5, low=0.0, high=1.0, count=0, effective=0.0)
    effective = total**2 / float(np.square(each).sum())
    return share_of(hits, total, effective=effective, confidence=confidence)


def frechet_distance(made: Tensor, real: Tensor) -> float:
    """Return the Fréchet distance of Gaussians fitted to features ``(N, D)`` and ``(M, D)``.

    Source: Heusel et al., NeurIPS 2017, for features of another network.

    >>> features = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> [round(frechet_distance(features, features + shift), 2) for shift in (0, 2)]
    [0.0, 12.0]
    """
    (mean, covariance), (other_mean, other_covariance) = _moments(made), _moments(real)
    # The trace of the root of a product, by the root of the symmetric matrix that has the same
    # eigenvalues.
    root = _root(covariance)
    mixed = np.linalg.eigvalsh(root @ other_covariance @ root).clip(0)
    spread = np.trace(covariance) + np.trace(other_covariance) - 2 * np.sqrt(mixed).sum()
    return float(np.square(mean - other_mean).sum() + max(spread, 0.0))


def precision_recall(made: Tensor, real: Tensor) -> tuple[float, float]:
    """Return the share of ``made`` among ``real``, and of ``real`` among ``made``.

    A feature vector is among others if it is as near to one of them as that one's third nearest
    neighbour (Kynkäänniemi et al., NeurIPS 2019).

    >>> features = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> precision_recall(features, features), precision_recall(features, features + 50)
    ((1.0, 1.0), (0.0, 0.0))
    """
    between = distances(made, real)
    precision = (between <= _reach(real)).any(1).double().mean()
    recall = (between <= _reach(made).unsqueeze(1)).any(0).double().mean()
    return float(precision), float(recall)


def _reach(features: Tensor) -> Tensor:
    nearest = min(_NEIGHBOURS + 1, len(features))
    return distances(features, features).kthvalue(nearest, dim=1).values


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the Euclidean distances of rows ``(N, D)`` from rows ``(M, D)``, ``(N, M)``."""
    # Not by a matrix product, whose rounding would part equal images.
    return torch.cdist(one.float(), other.float(), compute_mode="donot_use_mm_for_euclid_dist")


def _moments(features: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = features.double().cpu().numpy()
    return rows.mean(0), np.cov(rows, rowvar=False).reshape(rows.shape[1], rows.shape[1])


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    found: NDArray[np.float64] = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return found

"""How many teachers disagree, estimated from noisy sums of their answers alone.

A sum over teachers is linear in their vote shares ``v``: a release has the mean
``n Σ_j v_j g_j``, where ``g_j`` is what one teacher adds that says class ``j``. If most teachers
say class ``c``, a share ``a_c`` of them does and the rest is spread evenly; how far shares stray
from that is one more variance beside the noise. :class:`Disagreement` holds both, and
:meth:`Disagreement.fitted` finds them by expectation-maximisation over the releases:
post-processing, free of privacy.

>>> votes = torch.tensor([[7.0, 2.0, 1.0], [1.0, 8.0, 1.0]])
>>> seen = Projections.of_votes(votes / 10, variance=0.01)
>>> Disagreement.assumed(3).log_likelihood(seen).argmax(-1).tolist()
[0, 1]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Projections:
    """All that the likelihood of noisy sums needs, everything divided by the number of teachers.

    Args:
        seen: release · g_c for every class, ``(N, K)``.
        size: release · release, ``(N, 1)``.
        own: g_c · g_c, ``(N, K)``.
        cross: g_c · Σ_j g_j, ``(N, K)``.
        total: Σ_i Σ_j g_i · g_j, ``(N, 1)``.
        dimensions: of a release.
        variance: of the noise in each.
    """

    seen: Tensor
    size: Tensor
    own: Tensor
    cross: Tensor
    total: Tensor
    dimensions: int
    variance: float

    @classmethod
    def of_votes(cls, shares: Tensor, *, variance: float) -> Projections:
        """Of noisy vote shares ``(N, K)``, where ``g_c`` is one at ``c``."""
        one = torch.ones_like(shares)
        return cls(
            seen=shares,
            size=shares.square().sum(-1, keepdim=True),
            own=one,
            cross=one,
            total=one.sum(-1, keepdim=True),
            dimensions=shares.shape[-1],
            variance=variance,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Disagreement:
    """What share of the teachers says the class that most of them say, and how that varies.

    Args:
        agreement: a_c, ``(K,)``, each above ``1 / K``.
        spread: standard deviation of vote shares around that.
    """

    agreement: Tensor
    spread: float

    @classmethod
    def assumed(cls, classes: int) -> Disagreement:
        """Before anything is known."""
        return cls(agreement=torch.full((classes,), 0.6, dtype=torch.float64), spread=0.15)

    def log_likelihood(self, seen: Projections) -> Tensor:
        """``log P(release | most teachers say class c)``, ``(N, K)``."""
        variance = seen.variance + self.spread**2
        constant = 0.5 * seen.dimensions * math.log(2 * math.pi * variance)
        return -self._distance(seen) / (2 * variance) - constant

    def fitted(
        self, parts: Callable[[], Iterable[Projections]], *, iterations: int = 20
    ) -> Disagreement:
        """The estimate from releases, by expectation-maximisation from this one.

        Args:
            parts: makes the releases' projections, some rows at a time; called again and again, as
                all of them may be more than memory holds.
            iterations: of expectation and maximisation.
        """
        current = self
        classes = len(self.agreement)
        shares = torch.full((classes,), 1 / classes, dtype=torch.float64)
        for _ in range(iterations):
            believed, along, length = torch.zeros((3, classes), dtype=torch.float64)
            rows = 0
            for seen in parts():
                belief = current._belief(seen, shares)
                # One teacher of class c adds `u`, one that disagrees adds `v` on average.
                others = classes - 1
                u_v = (seen.cross - seen.own) / others
                v_v = (seen.total - 2 * seen.cross + seen.own) / others**2
                r_v = (seen.seen.sum(-1, keepdim=True) - seen.seen) / others
                believed += belief.sum(0)
                along += (belief * (seen.seen - r_v - u_v + v_v)).sum(0)
                length += (belief * (seen.own - 2 * u_v + v_v)).sum(0)
                rows += len(belief)
            agreement = (along / length.clamp_min(1e-12)).clamp(1.05 / classes, 1.0)
            moved = Disagreement(agreement=agreement, spread=current.spread)
            left = 0.0
            for seen in parts():
                belief = current._belief(seen, shares)
                left += float((belief * moved._distance(seen)).sum(-1).sum())
            shares = (believed / rows).clamp_min(1e-6)
            spread = math.sqrt(max(left / rows / seen.dimensions - seen.variance, 1e-6))
            current = Disagreement(agreement=agreement, spread=spread)
        return current

    def _belief(self, seen: Projections, shares: Tensor) -> Tensor:
        """The chance that most teachers say each class, ``(N, K)``, if ``shares`` of all do."""
        return (shares.log() + self.log_likelihood(seen)).softmax(-1)

    def _distance(self, seen: Projections) -> Tensor:
        """Squared distance of each release from the mean under each class, ``(N, K)``."""
        rest = (1 - self.agreement) / (len(self.agreement) - 1)
        more = self.agreement - rest
        projection = more * seen.seen + rest * seen.seen.sum(-1, keepdim=True)
        norm = more**2 * seen.own + 2 * more * rest * seen.cross + rest**2 * seen.total
        return seen.size - 2 * projection + norm

"""The disagreement of teachers, estimated from noisy sums of their answers alone.

A sum over teachers is linear in their vote shares ``v``: a release has the mean
``n Σ_j v_j g_j``, where ``g_j`` is what a teacher that says class ``j`` adds. If most teachers say
class ``c``, the model is that a share ``a_c`` of them does and that the rest is spread evenly; how
far shares stray from this is one more variance in addition to the noise. :class:`Disagreement`
holds both, and :meth:`Disagreement.fitted` estimates them by expectation-maximisation over the
releases. This is post-processing and costs no privacy.

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
    """The inputs to the likelihood of noisy sums, for releases divided by the number of teachers.

    Args:
        seen: release · g_c for every class, ``(N, K)``.
        size: release · release, ``(N, 1)``.
        own: g_c · g_c, ``(N, K)``.
        cross: g_c · Σ_j g_j, ``(N, K)``.
        total: Σ_i Σ_j g_i · g_j, ``(N, 1)``.
        dimensions: the number of dimensions of a release.
        variance: the variance of the noise in each dimension.
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
        """Return the projections of noisy vote shares ``(N, K)``, where ``g_c`` is one at ``c``."""
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
    """The share of teachers that say the majority's class, and how much vote shares vary.

    Args:
        agreement: the share a_c for each majority class c, ``(K,)``, each above ``1 / K``.
        spread: the standard deviation of vote shares around their mean.
    """

    agreement: Tensor
    spread: float

    @classmethod
    def assumed(cls, classes: int) -> Disagreement:
        """Return the values to assume before there are releases to estimate them from."""
        return cls(agreement=torch.full((classes,), 0.6, dtype=torch.float64), spread=0.15)

    def log_likelihood(self, seen: Projections) -> Tensor:
        """``log P(release | most teachers say class c)``, ``(N, K)``."""
        variance = seen.variance + self.spread**2
        constant = 0.5 * seen.dimensions * math.log(2 * math.pi * variance)
        return -self._distance(seen) / (2 * variance) - constant

    def fitted(
        self, parts: Callable[[], Iterable[Projections]], *, iterations: int = 20
    ) -> Disagreement:
        """Return the estimate from releases, by expectation-maximisation starting at this one.

        Args:
            parts: makes the releases' projections, some rows at a time. It is called repeatedly, as
                all of them together may not fit in memory.
            iterations: the number of steps of expectation and maximisation.
        """
        current = self
        classes = len(self.agreement)
        shares = torch.full((classes,), 1 / classes, dtype=torch.float64)
        for _ in range(iterations):
            believed, along, length = torch.zeros((3, classes), dtype=torch.float64)
            rows = 0
            for seen in parts():
                belief = current._belief(seen, shares)
                # A teacher that says class c adds `u`; one that disagrees adds `v` on average.
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
        """The posterior that most teachers say each class, ``(N, K)``, with ``shares`` as prior."""
        return (shares.log() + self.log_likelihood(seen)).softmax(-1)

    def _distance(self, seen: Projections) -> Tensor:
        """Squared distance of each release from the mean under each class, ``(N, K)``."""
        rest = (1 - self.agreement) / (len(self.agreement) - 1)
        more = self.agreement - rest
        projection = more * seen.seen + rest * seen.seen.sum(-1, keepdim=True)
        norm = more**2 * seen.own + 2 * more * rest * seen.cross + rest**2 * seen.total
        return seen.size - 2 * projection + norm

"""Votes with a share of the noise, for a server that is trusted to use nothing but their sum.

The noise of one client is then less than its promise to everybody else needs, and the sum of all
clients has enough.

>>> share = SharedNoiseVotes(noise_multiplier=3.0, teachers=1, clients=5)
>>> share.event(), share.event_against_others()  # relative to the sensitivity, √2
(GaussianDpEvent(noise_multiplier=2.12...), GaussianDpEvent(noise_multiplier=4.24...))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import dp_accounting
from torch import Tensor

from dpsd.privacy.mechanisms.sums import NoisyVotes

#: The most teachers of a client, and the finest step of the grid: that many votes take 22 bits, and
#: the noise, which is added to them, fewer. float32 holds 24. The step depends on the noise alone,
#: so that clients whose noise is alike share a grid.
_MOST_TEACHERS, _FINEST_STEP = 10_000, 2.0**-8

#: The relative amount by which the noise of two clients may differ and still counts as alike, as
#: calibration is exact to 1e-6.
ALIKE = 1e-5

#: The fewest clients whose sum hides more than one client's own noise does.
FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class SharedNoiseVotes(NoisyVotes):
    """The votes of one client's teachers, with a share of the noise on the sum over clients.

    A server that is trusted to do so adds up what at least ``clients`` clients release about an
    image, and keeps the sum alone. Each of them adds noise of the same standard deviation, so that
    of the sum is larger by the square root of their number.

    :meth:`event` is the cost against whoever sees the release itself, which is the server. So what
    a ledger records bounds what anybody learns, and trusts nobody. :meth:`event_against_others` is
    the smaller cost against whoever sees sums alone. It counts the noise of one client less than
    there are, as another client knows its own; clients that join to subtract theirs are not
    covered.

    The sum of ``n`` discrete Gaussians is not quite a discrete Gaussian: the logarithms of their
    probabilities differ by up to :func:`sum_divergence`. The noise is at least 16 steps of the grid
    here, for which that is 0 in double precision. Releases are whole steps that float32 holds
    exactly, so the sum is not rounded.

    Args:
        noise_multiplier: the standard deviation of this client's noise, in votes, at least 0.1;
            ``None`` until calibrated to a budget.
        teachers: the number of this client's teachers, from 1 to 10,000; ``None`` until known.
        clients: the fewest clients whose releases are summed, at least 3.
        noise: the source of randomness.

    Source: Kairouz, Liu & Steinke, "The Distributed Discrete Gaussian Mechanism for Federated
    Learning with Secure Aggregation", ICML 2021, on sums of discrete Gaussians.
    """

    clients: int = FEWEST

    _fewest_teachers: ClassVar[int] = 1
    _most_teachers: ClassVar[float] = _MOST_TEACHERS
    strengths: ClassVar[tuple[float, float]] = (1e-4, 10.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clients < FEWEST:
            raise ValueError(f"clients must be at least {FEWEST}, not {self.clients}")
        if self.noise_multiplier is not None and self.noise_multiplier < 0.1:
            raise ValueError(f"noise_multiplier must be at least 0.1, not {self.noise_multiplier}")

    def parameters(self) -> dict[str, object]:
        return {**super().parameters(), "clients": self.clients}

    def event_against_others(self) -> dp_accounting.DpEvent:
        """The cost of one answer against whoever sees sums alone, and adds to them at most once."""
        noise = self._noise_multiplier * (1 - ALIKE) * math.sqrt(self.clients - 1)
        return dp_accounting.GaussianDpEvent(noise / self.sensitivity)

    def is_like(self, other: SharedNoiseVotes) -> bool:
        """Whether another client adds as much noise, to sums over as many clients."""
        own, theirs = self._noise_multiplier, other._noise_multiplier
        return self.clients == other.clients and math.isclose(own, theirs, rel_tol=ALIKE)

    def pooled(self, *, shares: int, teachers: int) -> NoisyVotes:
        """The mechanism that a sum is read by.

        Args:
            shares: the number of clients whose releases were added up.
            teachers: the number of their teachers together.
        """
        noise = self._noise_multiplier * math.sqrt(shares)
        return NoisyVotes(noise_multiplier=noise, teachers=teachers)

    def _counted(self, labels: Tensor, prior: Tensor) -> Tensor:
        return super()._counted(labels if labels.ndim == 2 else labels.unsqueeze(0), prior)

    def _step(self, deviation: float) -> float:
        return max(_FINEST_STEP, super()._step(deviation))


def sum_divergence(scale: float, shares: int) -> float:
    """Bound the max divergence between a sum of discrete Gaussians and one discrete Gaussian.

    Args:
        scale: the scale of each, in steps, at least 0.71.
        shares: their number, at least 1.

    Source: Kairouz, Liu & Steinke (2021), on sums of discrete Gaussians.

    >>> sum_divergence(1.0, 2) < 1e-3, sum_divergence(16.0, 1_000)
    (True, 0.0)
    """
    parts = (index / (index + 1) for index in range(1, shares))
    return 10 * sum(math.exp(-2 * (math.pi * scale) ** 2 * part) for part in parts)

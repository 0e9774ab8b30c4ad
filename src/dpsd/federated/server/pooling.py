"""Adding up what clients release, on a server that they trust to use the sums alone.

A client's release about an image has too little noise for others to see. It is in memory until the
round's answers are added up; what is stored, and all that the student learns from, are the sums.
An image that too few clients answered has no sum.

>>> pool = Pool(fewest=3, num_classes=2)
>>> share = SharedNoiseVotes(noise_multiplier=0.5, teachers=1, clients=3)
>>> said = torch.tensor([[0.9, 0.2], [1.1, -0.3]])  # each of three clients says class 0
>>> pool.summed({key: said for key in "abc"}, {key: share for key in "abc"})[:, 0].argmax(-1)
tensor([0, 0])
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpsd.distillation.panel import evidence
from dpsd.federated.requests import Reply, Request
from dpsd.federated.server.reading import GarbageError, release_of
from dpsd.privacy.mechanisms import Mechanism, SharedNoiseVotes

#: The standard deviations of noise beyond which a number is none of a mechanism's, and those by
#: which the spread of many numbers may fall short by chance.
_IMPOSSIBLE, _UNLIKELY = 25.0, 7.0


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Sums over clients, which are read like the noisy votes of one ensemble.

    Args:
        fewest: the fewest clients that are summed.
        num_classes: the number of classes, K.
    """

    fewest: int
    num_classes: int

    def unlike(self, mechanism: Mechanism, others: Iterable[Mechanism]) -> str:
        """Return why the other clients cannot count on a client's noise, or nothing.

        Args:
            mechanism: what the client states.
            others: what the others stated.
        """
        if not isinstance(mechanism, SharedNoiseVotes) or mechanism.clients != self.fewest:
            return f"it does not add a share of the noise on sums over {self.fewest} clients"
        for other in others:
            if isinstance(other, SharedNoiseVotes) and not mechanism.is_like(other):
                return (
                    f"its noise is {mechanism.noise_multiplier:.6g} votes, and that of the others, "
                    f"who count on it, {other.noise_multiplier:.6g}: all must choose the same "
                    "epsilon, delta, adjacency, rounds and queries"
                )
        return ""

    def read(self, reply: Reply, request: Request, mechanism: Mechanism) -> Tensor:
        """Return a client's release about each image, float32 ``(N, K)``; NaN where it has none.

        Raises:
            GarbageError: the release cannot be what the mechanism makes of this request.
        """
        release, answered = release_of(reply, len(request), columns=(self.num_classes,))
        share = _required(mechanism)
        teachers, seen = share.teachers or 1, release[answered]
        reach = teachers / 2 + _IMPOSSIBLE * (share.noise_multiplier or 0.0)
        if not ((seen - teachers / 2).abs() <= reach).all():  # nor is NaN
            raise GarbageError("a release is no votes with such noise")
        # Votes only add to the spread of the noise, on which the other clients count.
        short = _UNLIKELY * math.sqrt(2 / max(1, seen.numel()))
        if (
            seen.numel() > 1
            and seen.double().var() < (1 - short) * (share.noise_multiplier or 0.0) ** 2
        ):
            raise GarbageError("its releases have less noise than it states")
        return release.masked_fill(~answered.unsqueeze(-1), torch.nan)

    def summed(self, shares: Mapping[str, Tensor], mechanisms: Mapping[str, Mechanism]) -> Tensor:
        """Add up releases, and return what the sums say, float16 ``(N, 1, K)``.

        Args:
            shares: the release of each client, by its key, as :meth:`read` returns it.
            mechanisms: the mechanism of each client, by its key.

        Returns:
            ``log P(sum | most teachers say class c)`` up to a constant in each row, and zeros for
            images that fewer than ``fewest`` clients answered.
        """
        said = torch.stack([shares[key] for key in shares]).double()
        answered = ~said.isnan().any(-1)
        total = said.nan_to_num(0.0).sum(0)
        found = torch.zeros(total.shape, dtype=torch.float16)
        prior = torch.full((1, self.num_classes), 1 / self.num_classes)
        # The clients that answered an image decide how much noise its sum has.
        for present in torch.unique(answered, dim=1).T:
            keys = [key for key, is_in in zip(shares, present.tolist(), strict=True) if is_in]
            if len(keys) < self.fewest:
                continue
            rows = (answered == present.unsqueeze(-1)).all(0)
            own = [_required(mechanisms[key]) for key in keys]
            teachers = sum(one.teachers or 1 for one in own)
            mechanism = own[0].pooled(shares=len(own), teachers=teachers)
            sums, flat = total[rows], prior.expand(int(rows.sum()), -1)
            found[rows] = evidence(mechanism.informed(sums, flat).log_likelihood(sums, flat))
        return found.unsqueeze(1)


def _required(mechanism: Mechanism) -> SharedNoiseVotes:
    """Return a mechanism of a client that takes part, which the roster has let in."""
    assert isinstance(mechanism, SharedNoiseVotes)
    return mechanism

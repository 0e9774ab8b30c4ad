"""What the server believes of its clients, from all releases.

The student is the prior: what it says of an image weighs how the clients' answers about it are
read, and so tells which client takes which class for which. Everything here is post-processing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpsd.distillation.objectives import posterior
from dpsd.distillation.panel import Panel
from dpsd.distillation.releases import RoundReleases, aligned
from dpsd.streams import stream

#: The most images of all rounds together that the panel, and what rounds say, are estimated from.
_MOST_ROWS = 60_000
#: The most numbers of their releases: images × clients × classes.
_MOST_SAMPLED = 1 << 25
#: The most numbers of releases that are in memory at once.
_MOST_NUMBERS = 1 << 22
#: The steps of expectation and maximisation that estimate the shares of the classes.
_ITERATIONS = 50
#: How often the shares and the confusions are estimated in turn.
_TURNS = 6


@dataclass(frozen=True, kw_only=True)
class RoundEvidence:
    """What a round's releases say, in the light of all that is known of the clients now.

    Args:
        label_shares: the estimated share of each class among the answers.
        clarity: how much a release of the panel says of the class, from 0, nothing, to 1, the class
            itself.
    """

    label_shares: list[float]
    clarity: float


class History:
    """All rounds of a federation, and a bounded sample of their images.

    A round puts its images into an order of its own, once, and with each round that is added fewer
    of them are used, so what a round costs does not grow with the number of rounds. The sample
    depends on what is stored alone: rounds that are read back together have the same one as rounds
    that were added one by one.

    Args:
        num_classes: the number of classes, K.
        seed: the seed of the orders.
    """

    def __init__(self, *, num_classes: int, seed: int) -> None:
        self.rounds: list[RoundReleases] = []
        self._num_classes, self._seed = num_classes, seed
        self._orders: list[Tensor] = []
        self._total = 0
        self._sample: tuple[Tensor, Tensor, Tensor] | None = None
        self._panels: dict[int, Panel] = {}

    def add(self, releases: RoundReleases) -> None:
        """Add the releases of a round, float16 ``(N, M, K)``."""
        random = stream(self._seed, releases.index, "panel")
        self.rounds.append(releases)
        self._orders.append(torch.randperm(len(releases), generator=random))
        self._total += len(releases)
        self._sample = None
        self._panels = {}
        members = max(one.release.shape[1] for one in self.rounds)
        most = min(_MOST_ROWS, _MOST_SAMPLED // max(1, members * self._num_classes))
        for number, one in enumerate(self.rounds):
            used = max(1, len(one) * most // max(self._total, most))
            self._orders[number] = self._orders[number][:used].clone()

    def sample(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the releases, priors and rounds, from 0, of the images of the sample.

        Returns:
            float16 ``(S, M, K)``, float32 ``(S, K)`` and int64 ``(S,)``, in the order of rounds.
            Clients that joined later did not answer before. It is drawn once after each round.
        """
        if self._sample is None:
            self._sample = self._drawn()
        return self._sample

    def _drawn(self) -> tuple[Tensor, Tensor, Tensor]:
        rows = [order.sort().values for order in self._orders]
        pairs = list(zip(self.rounds, rows, strict=True))
        release = aligned([one.release[chosen] for one, chosen in pairs])
        prior = torch.cat([one.prior[chosen] for one, chosen in pairs]).float()
        counts = torch.tensor([len(chosen) for chosen in rows])
        return release, prior, torch.arange(len(rows)).repeat_interleave(counts)

    def estimated(self, members: int) -> Panel:
        """Return the panel, with confusions estimated from the sample.

        The prior of an image is what the student said of it when it was asked, before it learned
        from the answers. What it says later would confirm what it was taught.

        The student favours no class (logit adjustment), and the images of a round do, so what it
        said is weighed by the shares of the classes. Otherwise a common class that it takes in part
        for a rare one would become that one: clients that tell the two apart would seem to err.

        Args:
            members: the number of clients, M; those of whom there are no releases are assumed to
                agree with the panel more often than not.
        """
        if members not in self._panels:  # a round is read, and the next one asked, by the same
            self._panels[members] = self._estimated(members)
        return self._panels[members]

    def _estimated(self, members: int) -> Panel:
        panel = Panel.assumed(members, self._num_classes)
        if not self.rounds or not members:
            return panel
        release, prior, number = self.sample()
        if len(self.rounds) == 1:
            # Without a student, shares would rest on confusions that are assumed.
            return replace(panel, weights=_moderate(release)).informed(release, prior)
        for _ in range(_TURNS):
            shares = self._shares(self._said(panel))
            # Never by nothing, as an image may be of no other class to the student.
            weighed = prior * shares[number].clamp_min(1e-6)
            weighed /= weighed.sum(-1, keepdim=True)
            panel = panel.refined(release, weighed)
        return panel

    def evidence(self, panel: Panel) -> list[RoundEvidence]:
        """Return what the sample says of each round, in the order of rounds.

        Args:
            panel: the panel, as it is known now.
        """
        _, _, number = self.sample()
        said, classes, counts = self._said(panel), self._num_classes, torch.bincount(number)
        sharpness = said.softmax(-1).square().sum(-1)
        clarity = (torch.bincount(number, sharpness) / counts - 1 / classes) / (1 - 1 / classes)
        return [
            RoundEvidence(label_shares=of, clarity=clear)
            for of, clear in zip(self._shares(said).tolist(), clarity.tolist(), strict=True)
        ]

    def _said(self, panel: Panel) -> Tensor:
        """What the releases of the sample say of each class, log-likelihoods ``(S, K)``."""
        release, prior, _ = self.sample()
        size = max(1, _MOST_NUMBERS // release[:1].numel())
        parts = zip(torch.split(release, size), torch.split(prior, size), strict=True)
        return torch.cat([panel.log_likelihood(*part) for part in parts])

    def _shares(self, said: Tensor) -> Tensor:
        """The shares of the classes in each round, ``(rounds, K)``."""
        _, _, number = self.sample()
        counts = torch.bincount(number)
        shares = torch.full((len(counts), self._num_classes), 1 / self._num_classes)
        for _ in range(_ITERATIONS):
            beliefs = posterior(shares[number], said)
            shares = torch.zeros_like(shares).index_add_(0, number, beliefs) / counts[:, None]
        return shares


def _moderate(release: Tensor) -> Tensor:
    """Return weights with which no client's releases count for more than the median client's.

    Before there is a student, nothing tells who lies. A client weighs as much as its stated noise
    lets it, so one that states next to none would define the classes, the student would learn
    them, and confirm them ever after.
    """
    sharpness = release.float().amax(-1) - release.float().amin(-1)
    answered = (sharpness > 0).sum(0)
    mean = sharpness.sum(0) / answered.clamp_min(1)
    if not answered.any():
        return torch.ones_like(mean)
    return (mean[answered > 0].median() / mean.clamp_min(1e-6)).clamp_max(1.0)


def clarity_of_clients(panel: Panel, releases: RoundReleases) -> list[float]:
    """Return how much each client's answers say of the panel's class, from 0, nothing, to 1.

    It is the mean over a round's images of ``(Σ_c q_c² - 1/K) / (1 - 1/K)``, where q is the
    posterior of the client's answer alone under a flat prior; images that the client did not answer
    count as saying nothing. A client whose answers do not depend on the class has 0.
    """
    classes = releases.prior.shape[-1]
    flat = torch.full((len(releases), classes), 1 / classes)
    found = []
    for number in range(releases.release.shape[1]):
        alone = Panel(confusions=panel.confusions[number : number + 1])
        said = alone.log_likelihood(releases.release[:, number : number + 1], flat)
        sharpness = said.softmax(-1).square().sum(-1).mean()
        found.append(round(float((sharpness - 1 / classes) / (1 - 1 / classes)), 6))
    return found

"""What the server believes of its clients, from all releases.

The student is the prior: what it says of an image weighs how the clients' answers about it are
read, and so tells which client takes which class for which. Everything here is post-processing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dpsd.distillation.panel import Panel
from dpsd.distillation.releases import RoundReleases

#: The most images from which confusions are estimated.
_MOST_ROWS = 60_000


def estimated(
    rounds: Sequence[RoundReleases], *, members: int, num_classes: int, random: torch.Generator
) -> Panel:
    """Return the panel, with confusions estimated from a sample of all releases.

    The prior of an image is what the student said of it when it was asked, before it learned from
    the answers. What it says later would confirm what it was taught.

    Args:
        rounds: the releases of all rounds, float16 ``(N, M, K)`` each.
        members: the number of clients, M; those of whom there are no releases are assumed to agree
            with the panel more often than not.
        num_classes: the number of classes, K.
        random: draws the sample.
    """
    panel = Panel.assumed(members, num_classes)
    if not rounds or not members:
        return panel
    total = sum(map(len, rounds))
    parts = []
    for releases in rounds:
        count = max(1, len(releases) * _MOST_ROWS // max(total, _MOST_ROWS))
        rows = torch.randperm(len(releases), generator=random)[:count].sort().values
        parts.append((releases.release[rows], releases.prior[rows].float()))
    if len(rounds) == 1:
        panel = replace(panel, weights=_moderate(rounds[0].release))
    return panel.fitted(lambda: iter(parts))


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

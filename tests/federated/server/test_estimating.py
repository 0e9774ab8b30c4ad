"""What a server believes of its clients, and what one that lies can make it believe."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dpsd.distillation.panel import evidence
from dpsd.distillation.releases import RoundReleases
from dpsd.federated.server.estimating import clarity_of_clients, estimated
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import RandomizedResponse

CLASSES, COUNT = 10, 1_000
FLAT = torch.full((COUNT, CLASSES), 1 / CLASSES)


def said(answers: Tensor, epsilon: float) -> Tensor:
    """What a client's releases of these answers say, float16 ``(N, K)``."""
    mechanism = RandomizedResponse(epsilon=epsilon, candidates="all")
    scores = torch.nn.functional.one_hot(answers, CLASSES).float()
    release = mechanism.privatize(RawAnswers(scores), FLAT)
    return evidence(mechanism.log_likelihood(release, FLAT))


def first_round(*clients: Tensor) -> RoundReleases:
    return RoundReleases(
        index=1,
        queries=torch.zeros((COUNT, 1, 8, 8), dtype=torch.uint8),
        prior=FLAT.half(),
        predicted=torch.zeros(COUNT),
        source=torch.zeros(COUNT),
        release=torch.stack(clients, dim=1),
    )


def right(releases: RoundReleases, truth: Tensor) -> float:
    """How often the panel's likeliest class is right after the first round."""
    panel = estimated(
        [releases],
        members=releases.release.shape[1],
        num_classes=CLASSES,
        random=torch.Generator().manual_seed(0),
    )
    found = panel.log_likelihood(releases.release, FLAT).argmax(-1)
    return float((found == truth).float().mean())


@pytest.mark.parametrize("honest", [5, 20])
def test_a_liar_that_states_no_noise_does_not_define_the_classes(honest: int) -> None:
    truth = torch.randint(CLASSES, (COUNT,), generator=torch.Generator().manual_seed(1))
    clients = [said(truth, 1.0) for _ in range(honest)]
    lie = said((truth + 1) % CLASSES, 25.0)
    without = right(first_round(*clients), truth)
    assert without > 0.25
    assert right(first_round(*clients, lie), truth) > 0.7 * without


def test_clients_of_one_epsilon_count_fully_in_the_first_round() -> None:
    truth = torch.randint(CLASSES, (COUNT,))
    silent = torch.zeros((COUNT, CLASSES), dtype=torch.float16)
    releases = first_round(*(said(truth, 2.0) for _ in range(3)), silent)
    panel = estimated([releases], members=4, num_classes=CLASSES, random=torch.Generator())
    assert panel.weights is not None
    assert panel.weights.tolist() == pytest.approx([1.0] * 4, abs=1e-3)
    assert clarity_of_clients(panel, releases)[3] == 0


def test_a_round_that_nobody_answered_weighs_nobody_less() -> None:
    nothing = torch.zeros((COUNT, CLASSES), dtype=torch.float16)
    panel = estimated(
        [first_round(nothing)], members=1, num_classes=CLASSES, random=torch.Generator()
    )
    assert panel.weights is not None
    assert panel.weights.tolist() == [1.0]

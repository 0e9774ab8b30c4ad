"""What a server believes of its clients, and what one that lies can make it believe."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dpsd.distillation.panel import Panel, evidence
from dpsd.distillation.quality import assess
from dpsd.distillation.releases import RoundReleases
from dpsd.federated.server import estimating
from dpsd.federated.server.estimating import History, clarity_of_clients
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


def history_of(*rounds: RoundReleases) -> History:
    history = History(num_classes=CLASSES, seed=7)
    for releases in rounds:
        history.add(releases)
    return history


def estimated(releases: RoundReleases) -> Panel:
    """The panel after the first round."""
    return history_of(releases).estimated(releases.release.shape[1])


def right(releases: RoundReleases, truth: Tensor) -> float:
    """How often the panel's likeliest class is right after the first round."""
    panel = estimated(releases)
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
    panel = estimated(releases)
    assert panel.weights is not None
    assert panel.weights.tolist() == pytest.approx([1.0] * 4, abs=1e-3)
    assert clarity_of_clients(panel, releases)[3] == 0


def test_a_round_that_nobody_answered_weighs_nobody_less() -> None:
    nothing = torch.zeros((COUNT, CLASSES), dtype=torch.float16)
    panel = estimated(first_round(nothing))
    assert panel.weights is not None
    assert panel.weights.tolist() == [1.0]


def test_a_common_class_does_not_become_a_rare_one_that_the_student_takes_it_for() -> None:
    # Ten times as many images are of class 8 as of class 3. A client takes 8s for 3s, and the
    # student, which favours no class, cannot tell them apart. Two other clients can.
    random = torch.Generator().manual_seed(3)
    often = torch.ones(CLASSES)
    often[8], often[3] = 3.0, 0.3
    made = []
    for index in range(1, 4):
        truth = torch.multinomial(often, COUNT * 4, replacement=True, generator=random)
        unsure = torch.nn.functional.one_hot(truth, CLASSES).float()
        unsure[(truth == 8) | (truth == 3)] = 0.5 * torch.eye(CLASSES)[[8, 3]].sum(0)
        answers = [truth, truth, truth.where(truth != 8, torch.tensor(3))]
        made.append(
            RoundReleases(
                index=index,
                queries=torch.zeros((len(truth), 1, 8, 8), dtype=torch.uint8),
                prior=FLAT[:1].expand_as(unsure).half() if index == 1 else unsure.half(),
                predicted=truth,
                source=torch.zeros(len(truth)),
                release=torch.stack([evidence(5 * torch.eye(CLASSES)[of]) for of in answers], 1),
            )
        )
    panel = history_of(*made).estimated(3)
    assert panel.confusions[:2, 3, 3].min() > 0.7
    assert panel.confusions[:2, 8, 8].min() > 0.8
    assert panel.confusions[2, 8, 3] > 0.8
    by_student_alone = Panel.assumed(3, CLASSES).informed(*history_of(*made).sample()[:2])
    assert by_student_alone.confusions[:2, 3, 3].max() < 0.5


def test_a_class_that_no_client_ever_says_leaves_no_image_without_a_class() -> None:
    always = evidence(60 * torch.eye(CLASSES)[torch.zeros(COUNT, dtype=torch.int64)])
    first = first_round(*[always] * 60)
    sure = torch.eye(CLASSES)[torch.full((COUNT,), 3)].half()
    history = history_of(first, replace(first, index=2, prior=sure))
    panel = history.estimated(60)
    assert panel.confusions.isfinite().all()
    assert all(math.isfinite(one.clarity) for one in history.evidence(panel))


@st.composite
def rounds(draw: st.DrawFn) -> list[RoundReleases]:
    """Rounds of several sizes, whose clients become more and may be silent."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    members, found = 1, []
    for index in range(1, draw(st.integers(1, 6)) + 1):
        count = draw(st.integers(1, 60))
        members += draw(st.integers(0, 1))
        release = evidence(4 * torch.randn((count, members, CLASSES), generator=random))
        release[torch.rand((count, members), generator=random) < 0.2] = 0
        found.append(
            RoundReleases(
                index=index,
                queries=torch.zeros((count, 1, 8, 8), dtype=torch.uint8),
                prior=torch.rand((count, CLASSES), generator=random).softmax(-1).half(),
                predicted=torch.randint(CLASSES, (count,), generator=random),
                source=torch.zeros(count),
                release=release,
            )
        )
    return found


@given(rounds(), st.sampled_from([20, 60_000]), st.sampled_from([500, 1 << 25]))
@settings(max_examples=30, deadline=None)
def test_rounds_added_one_by_one_say_what_rounds_added_together_say(
    made: list[RoundReleases], most: int, numbers: int
) -> None:
    members = made[-1].release.shape[1]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(estimating, "_MOST_ROWS", most)
        patched.setattr(estimating, "_MOST_SAMPLED", numbers)
        growing = History(num_classes=CLASSES, seed=7)
        for number, releases in enumerate(made, start=1):
            growing.add(releases)
            panel = growing.estimated(members)
            whole = history_of(*made[:number])
            assert torch.equal(panel.confusions, whole.estimated(members).confusions)
            assert growing.evidence(panel) == whole.evidence(panel)
            sample = growing.sample()[0]
            assert len(sample) <= most + number, "what a round costs does not grow"
            assert sample.numel() <= numbers + number * sample[0].numel(), "nor with the clients"
            assert growing.sample()[0] is sample, "it is drawn once"
    if (
        min(most, numbers) > 500
    ):  # nothing is left out, so it is what looking at every image of a round gives
        for evident, releases in zip(growing.evidence(panel), made, strict=True):
            quality = assess(releases, panel)
            assert evident.label_shares == pytest.approx(quality.label_shares, abs=2e-3)
            assert evident.clarity == pytest.approx(quality.clarity, abs=1e-3)

"""Which student a run settles for, and when it stops, by the releases of a probe."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.distillation.probe import Probe
from dpsd.distillation.releases import RoundReleases
from dpsd.privacy.mechanisms import RandomizedResponse
from dpsd.transcription.choosing import Choice

CLASSES, IMAGES = 4, 400
EXECUTION = Execution.of("cpu", "float32")
ANSWERS = torch.arange(IMAGES) % CLASSES


class Saying(nn.Module):
    """A student that reads its class off an image's first pixel, but is wrong about some images."""

    def __init__(self, wrong: int) -> None:
        super().__init__()
        self.wrong = nn.Parameter(torch.tensor(float(wrong)))

    def forward(self, images: Tensor) -> Tensor:
        number = (255 * images[:, 0, 0, :2]).round().long() @ torch.tensor([200, 1])
        said = torch.where(number < self.wrong, number + 1, number) % CLASSES
        return nn.functional.one_hot(said, CLASSES).float() + 0 * self.wrong


def probe() -> Probe:
    """A probe whose releases are true."""
    images = torch.zeros((IMAGES, 1, 8, 8), dtype=torch.uint8)
    images[:, 0, 0, 0] = (torch.arange(IMAGES) // 200).byte()
    images[:, 0, 0, 1] = (torch.arange(IMAGES) % 200).byte()
    prior = torch.full((IMAGES, CLASSES), 1 / CLASSES).half()
    releases = RoundReleases(
        index=1, queries=images, prior=prior, predicted=ANSWERS, source=ANSWERS, release=ANSWERS
    )
    return Probe(releases, RandomizedResponse(epsilon=20.0))


def choice(*, until: float | None = None) -> Choice:
    return Choice(probe(), EXECUTION, until=until)


def test_agreement_is_how_often_the_student_is_right() -> None:
    quality = choice().consider(Saying(wrong=100), 1)
    assert quality.agreement is not None
    assert quality.agreement.mean == pytest.approx(0.75, abs=1e-3)
    assert quality.class_shares == pytest.approx([0.25] * 4, abs=1e-3)
    assert all(found and found.mean == pytest.approx(0.75, abs=1e-3) for found in quality.recall)


@pytest.mark.parametrize(
    ("wrong", "chosen", "left"),
    [
        ([200, 40, 160], 2, 40),  # the last is clearly worse
        ([200, 40, 42], 3, 42),  # the last is worse by less than the noise
        ([200, 160, 40], 3, 40),
        ([200], 1, 200),
    ],
)
def test_a_last_student_that_is_clearly_worse_gives_way_to_the_best(
    wrong: list[int], chosen: int, left: int
) -> None:
    choosing = choice()
    student = Saying(0)
    for number, count in enumerate(wrong, start=1):
        student.wrong.data.fill_(count)
        choosing.consider(student, number)
    number, quality = choosing.settle(student, len(wrong))
    assert number == chosen
    assert quality.agreement is not None
    assert quality.agreement.mean == pytest.approx(1 - left / IMAGES, abs=1e-3)
    assert student.wrong.item() == left


@pytest.mark.parametrize(
    ("wrong", "is_over"),
    [
        ([300, 200, 100, 50, 20], [False] * 5),
        ([200, 198, 196], [False, False, True]),
        ([300, 298, 200, 198, 197], [False, False, False, False, True]),
        ([100, 200, 300], [False, False, True]),
    ],
)
def test_a_run_is_over_after_two_rounds_in_a_row_without_gain(
    wrong: list[int], is_over: list[bool]
) -> None:
    choosing = choice(until=0.02)
    found = []
    for number, count in enumerate(wrong, start=1):
        choosing.consider(Saying(count), number)
        found.append(choosing.is_over)
    assert found == is_over


def test_nothing_stops_a_run_that_was_not_told_to() -> None:
    choosing = choice()
    for number in range(1, 9):
        choosing.consider(Saying(100), number)
    assert not choosing.is_over


def test_what_a_checkpoint_keeps_is_all_that_matters() -> None:
    before = choice(until=0.02)
    for number, count in enumerate([200, 40, 160], start=1):
        before.consider(Saying(count), number)
    after = choice(until=0.02)
    after.restore(*before.state())
    student = Saying(160)
    assert after.is_over == before.is_over
    assert after.settle(student, 3)[0] == 2
    assert student.wrong.item() == 40


def held(answers: Tensor) -> Choice:
    """A choice by true releases of other answers."""
    releases = replace(probe().releases, release=answers)
    return Choice(Probe(releases, RandomizedResponse(epsilon=20.0)), EXECUTION, until=0.02)


def test_a_run_does_not_stop_at_what_always_saying_one_class_agrees_on() -> None:
    """The student says class 1 for all images, as the teacher does for nearly all."""
    answers = torch.ones(IMAGES, dtype=torch.long)
    answers[:16] = 0
    choosing = held(answers)
    head = nn.Linear(64, CLASSES)
    nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor([0.0, 1.0, 0.0, 0.0])
    constant = nn.Sequential(nn.Flatten(), head)
    told = []
    for number in range(1, 6):
        quality = choosing.consider(constant, number)
        told.append(list(choosing.warnings(quality, number)))
        assert not choosing.is_over
    assert quality.agreement == quality.constant
    assert "round 1: the probe shows nearly one class" in told[0][0]
    assert "round 3: agreement on the probe no longer rises, but it is not clearly" in told[2][0]
    assert told[1] == told[3] == told[4] == []


def test_a_run_that_has_stopped_stays_so() -> None:
    """Also one of an earlier version, which stopped at any agreement."""
    choosing = held(torch.ones(IMAGES, dtype=torch.long))
    choosing.close()
    assert choosing.is_over

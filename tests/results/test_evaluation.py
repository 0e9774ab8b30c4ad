"""Accuracy that a student cannot reach by saying the most frequent class."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

import dpsd
from dpsd.datasets import LabelledImages
from dpsd.results.evaluation import evaluate

LABELS = torch.tensor([0] * 90 + [1] * 6 + [2] * 4)


class Says(nn.Module):
    """A student whose answer is the number of bright pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        bright = images.flatten(1).sum(1).round().clamp(0, 3).long()
        return 9.0 * torch.eye(4)[bright] + self.weight


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dpsd.RunDirectory:
    def scores(images: Tensor) -> Tensor:
        return Says().forward(images)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dpsd.transcribe(
            dpsd.load_teacher(scores, input_shape=(1, 8, 8), scores="logits"),
            student=Says(),
            mechanism=dpsd.RandomizedResponse(),
            budget=dpsd.Budget(epsilon=2.0),
            out=tmp_path_factory.mktemp("runs") / "run",
            recipe=dpsd.Recipe(
                rounds=1, queries=16, batch_size=8, generator_steps=0, epochs=1, device="cpu"
            ),
        ).directory


def said(answers: Tensor) -> LabelledImages:
    """Images for which the student says these answers."""
    images = torch.zeros(len(answers), 1, 8, 8, dtype=torch.uint8)
    for place in range(3):
        images[:, 0, 0, place] = 255 * (answers > place)
    return LabelledImages(
        images=images,
        labels=LABELS,
        class_names=("normal", "ill", "very ill", "absent"),
        name="scans",
        split="test",
    )


def test_always_the_most_frequent_class_is_no_better_than_chance(run: dpsd.RunDirectory) -> None:
    data = said(torch.zeros(100))
    found = evaluate(run, data, student=Says())
    assert found.student_accuracy == 0.9
    # The class that does not occur has no recall to count.
    assert found.student_balanced_accuracy == pytest.approx(1 / 3)
    assert found.teacher_balanced_accuracy is None
    most = found.dominant()
    assert most is not None
    assert (most.predicted, most.images) == (100, 90)
    assert [row.predicted for row in found.classes] == [100, 0, 0, 0]
    assert found.to_dict()["student_balanced_accuracy"] == found.student_balanced_accuracy


def test_a_student_that_knows_every_class_is_not_said_to_know_one(run: dpsd.RunDirectory) -> None:
    found = evaluate(run, said(LABELS), student=Says())
    assert found.student_balanced_accuracy == found.student_accuracy == 1
    assert found.dominant() is None
    assert [row.predicted for row in found.classes] == [90, 6, 4, 0]


def test_every_share_has_the_error_of_its_images(run: dpsd.RunDirectory) -> None:
    constant = evaluate(run, said(torch.zeros(100)), student=Says()).standard_errors
    assert constant["student_accuracy"] == pytest.approx(math.sqrt(92 * 12 / 104**2 / 103))
    # Each class counts a third, and the rare ones are known the least, though all of them fare
    # alike: as 2 of 94, of 10 and of 8.
    balanced = (
        math.hypot(*(math.sqrt(2 * (n + 2) / (n + 4) ** 2 / (n + 3)) for n in (90, 6, 4))) / 3
    )
    assert constant["student_balanced_accuracy"] == pytest.approx(balanced)
    assert constant.keys() == {"student_accuracy", "student_balanced_accuracy"}
    perfect = evaluate(run, said(LABELS), student=Says()).standard_errors
    assert all(0 < error < 0.1 for error in perfect.values())

"""Data-free learning sees no data, and leaves the teacher as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dpsd.benchmarks.baselines.data_free import DataFreeLearning
from dpsd.benchmarks.baselines.distillation import Distillation
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.datasets import LabelledImages


class WithoutTrainingData(Task):
    """A task whose training images nobody may look at."""

    @property
    def train(self) -> LabelledImages:
        raise AssertionError("the training images were looked at")


def test_data_free_learning_sees_no_training_image(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    blind = WithoutTrainingData(data="digits", teachers=task.teachers)
    outcome = measured(DataFreeLearning(steps=150, batch_size=128), blind)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.6
    with pytest.raises(AssertionError, match="looked at"):
        measured(Distillation(epochs=1), blind)


def test_data_free_learning_leaves_the_teacher_as_it_was(
    task: Task, monkeypatch: pytest.MonkeyPatch, measured: Callable[..., Outcome]
) -> None:
    module = task.white_box()
    before = {name: part.clone() for name, part in module.state_dict().items()}
    monkeypatch.setattr(Task, "white_box", lambda _: module)
    measured(DataFreeLearning(steps=2, batch_size=16), task)
    assert all(torch.equal(part, before[name]) for name, part in module.state_dict().items())

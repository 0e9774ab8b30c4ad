"""Distillation with the data: from the teacher's answers, and as defined."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dpsd.benchmarks.baselines.distillation import Distillation, softened_divergence
from dpsd.benchmarks.methods import Outcome, Task


def test_distillation_comes_close_to_the_teacher(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    outcome = measured(Distillation(), task)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.93
    assert not outcome.epsilon


def test_distillation_learns_from_the_teacher_and_not_from_labels(
    task: Task, monkeypatch: pytest.MonkeyPatch, measured: Callable[..., Outcome]
) -> None:
    class Shifted(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.module(images)
            return logits.roll(1, dims=-1)

    module = task.white_box()
    monkeypatch.setattr(Task, "white_box", lambda _: Shifted(module))
    outcome = measured(Distillation(epochs=3), task)
    assert outcome.accuracy is not None
    assert outcome.accuracy < 0.1


def test_the_divergence_is_that_of_the_definition() -> None:
    random = torch.Generator().manual_seed(0)
    logits, wanted = torch.randn(2, 5, 3, generator=random, dtype=torch.float64)
    p, q = (wanted / 2).softmax(-1), (logits / 2).softmax(-1)
    by_hand = 4 * (p * (p / q).log()).sum(-1).mean()
    assert softened_divergence(logits, wanted, temperature=2.0) == pytest.approx(float(by_hand))

"""DP-MERF and DP-HP learn from their release alone, and keep nothing else of the records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from dpsd.benchmarks.baselines.embedding_generators import DpHp, DpMerf, EmbeddingGenerator
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.privacy.targets import Budget

SMALL: dict[str, Any] = {"steps": 80, "batch_size": 50, "images": 640}


@pytest.mark.parametrize(
    "method",
    [
        DpMerf(features=300, **SMALL),
        pytest.param(DpHp(order=8, **SMALL), marks=pytest.mark.thorough),
    ],
    ids=lambda method: method.name,
)
def test_a_classifier_learns_from_the_images_within_the_budget(
    task: Task, method: EmbeddingGenerator, measured: Callable[..., Outcome]
) -> None:
    outcome = measured(method, task, epsilon=20.0)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.5
    assert outcome.epsilon["replace-one"] == pytest.approx(20.0)


@pytest.mark.thorough
@pytest.mark.parametrize("method", [DpMerf(features=300, **SMALL), DpHp(order=8, **SMALL)])
def test_at_a_tiny_epsilon_nothing_is_learned(
    task: Task, method: EmbeddingGenerator, measured: Callable[..., Outcome]
) -> None:
    accuracy = measured(method, task, epsilon=0.01).accuracy
    assert accuracy is not None
    assert accuracy < 0.4


@pytest.mark.parametrize("method", [DpMerf(features=20), DpHp(order=2)])
def test_what_is_kept_is_the_same_for_other_records(task: Task, method: EmbeddingGenerator) -> None:
    method = replace(method, steps=2, batch_size=10, images=20)
    target = Budget(epsilon=1.0, delta=1e-5)
    other = replace(
        task.train, images=255 - task.train.images, labels=torch.zeros_like(task.train.labels)
    )
    one, two = (method.made(data, target=target, seed=0) for data in (task.train, other))
    assert not torch.equal(one.images, two.images)
    assert torch.equal(one.labels, two.labels)
    assert (one.epsilon, one.details) == (two.epsilon, two.details)

"""PATE: its budget, and what it may ask about."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dpsd.benchmarks.baselines.pate import Pate
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.errors import ConfigError


@pytest.mark.thorough
def test_pate_keeps_its_budget_and_its_held_out_images_apart(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    outcome = measured(Pate(shards=20, queries=200), task, epsilon=50.0)
    assert outcome.epsilon["teacher"] == pytest.approx(50.0, rel=1e-3)
    assert outcome.details["measured_on"] == len(task.measured_on) - 200
    assert outcome.details["label_accuracy"] > 0.85
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.75
    noisy = measured(Pate(shards=20, queries=200), task, epsilon=0.1)
    assert noisy.details["label_accuracy"] < 0.4


def test_pate_asks_about_public_images_alone(task: Task, measured: Callable[..., Outcome]) -> None:
    with pytest.raises(ConfigError, match="images are public"):
        measured(Pate(shards=20, queries=len(task.measured_on)), task, epsilon=1.0)

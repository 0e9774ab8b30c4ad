"""A federated transcription is measured on the same clients, and its bytes are counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dpsd.benchmarks.federated.transcribing import FederatedTranscribing
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Adjacency, Budget

METHOD = FederatedTranscribing(
    name="dpsd, labels",
    protect="labels",
    adjacency=Adjacency.RESPONSE,
    recipe={
        "rounds": 2,
        "queries": 1_000,
        "first_queries": 1_500,
        "epochs": 2.0,
        "generator_steps": 2,
        "sources": ("noise", "strokes"),
    },
    clients=3,
    alpha=0.7,
    teacher_epochs=5,
)


def test_clients_teach_one_student_within_their_budgets(task: Task) -> None:
    target = Budget(epsilon=8.0, adjacency=Adjacency.RESPONSE)
    outcome = METHOD.measure(task, target=target, seed=0)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.4
    assert outcome.epsilon["response"] <= 8.0 + 1e-6
    assert outcome.details["queries"] == 2_500
    # A byte an answer, and little besides; images are compressed.
    assert 2_000 < outcome.details["bytes_up"] < 2_500 * 1.4
    assert 2_500 < outcome.details["bytes_down"] < 2_500 * 80


def test_gradients_of_clients_are_transcribed_too(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    method = replace(METHOD, protect="data", adjacency=Adjacency.ROUND)
    recipe = {**METHOD.recipe, "rounds": 1}
    outcome = measured(replace(method, recipe=recipe), task, epsilon=100.0)
    assert outcome.details["bytes_up"] >= 1_500 * 40
    with pytest.raises(ConfigError, match="needs a privacy target"):
        measured(method, task)


def test_sums_of_clients_are_transcribed_within_the_budget_against_all_but_the_server(
    task: Task,
) -> None:
    target = Budget(epsilon=8.0, adjacency=Adjacency.RESPONSE)
    outcome = replace(METHOD, name="sums", sums=True).measure(task, target=target, seed=0)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.3
    assert outcome.epsilon["response"] == pytest.approx(8.0, rel=1e-3)
    assert outcome.epsilon["response"] <= 8.0 + 1e-6
    # A client's own noise is less than that of all but one by the square root of two.
    assert 1.3 * 8 < outcome.details["against_server"] < 2 * 8

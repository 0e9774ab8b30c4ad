"""A transcription's synthetic records are scored, at no more ε than the transcription's."""

from __future__ import annotations

import pytest

from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.sampling import SyntheticTranscribing
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Adjacency, Budget

SMALL = {
    "rounds": 1,
    "queries": 400,
    "sources": ("noise", "strokes"),
    "generator_steps": 20,
    "generator_batch_size": 64,
    "replay": 0.0,
    "consolidate": False,
}


def test_the_records_of_a_run_are_scored_and_cost_nothing_more(task: Task) -> None:
    method = SyntheticTranscribing(
        name="dpsd", protect="labels", adjacency=Adjacency.ROUND, recipe=SMALL, images=500
    )
    target = Budget(epsilon=10.0, adjacency=Adjacency.ROUND)
    outcome = method.measure(task, target=target, seed=0)
    assert outcome.epsilon["round"] == pytest.approx(10.0, rel=1e-3)
    assert sum(outcome.details["class_counts"]) == 500
    assert outcome.details["queries"] == 400
    assert outcome.accuracy is not None
    assert 0 <= outcome.accuracy <= 1
    assert outcome.details["student"] > 0.1


def test_a_target_and_images_are_needed(task: Task) -> None:
    method = SyntheticTranscribing(name="dpsd", protect="labels", adjacency=Adjacency.ROUND)
    with pytest.raises(ConfigError, match="give a target"):
        method.measure(task, target=None, seed=0)
    with pytest.raises(ConfigError, match="images must be positive"):
        SyntheticTranscribing(name="dpsd", protect="labels", adjacency="round", images=0)  # type: ignore[arg-type]

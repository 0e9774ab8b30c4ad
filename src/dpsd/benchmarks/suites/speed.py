"""Seconds to an accuracy, beside DP-SGD's."""

from __future__ import annotations

from typing import Any

from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.racing import Race
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.suites.label_sensitive import many_rounds
from dpsd.benchmarks.suites.queries import FEATURES, sources_for
from dpsd.benchmarks.suites.suite import EPSILONS, Suite, row_of, shortened
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.privacy.targets import Adjacency

#: What a race is to.
REACH = 0.95


def speed(task: Task, share: float) -> list[Row]:
    """Seconds to an accuracy of 95 %, beside DP-SGD's, who has the data.

    Both are calibrated to the same ε at the end of all steps; who stops before has spent less.
    """
    rows = []
    sizes: dict[float, dict[str, Any]] = {
        1.0: {"rounds": 14},
        10.0: {"rounds": 4, "queries": 20_000, "first_queries": None},  # clean, so few will do
    }
    for epsilon in EPSILONS:
        labels = Transcribing(
            name="dpsd, labels",
            protect="labels",
            adjacency=Adjacency.RESPONSE,
            recipe=shortened(many_rounds(task, epsilon) | sizes[epsilon], share),
        )
        rows.append(row_of(task, epsilon, "dpsd", Race(labels, reach=REACH)))
        if task.data in FEATURES:
            start = _on_features(task, epsilon, share)
            rows.append(row_of(task, epsilon, "dpsd-features", Race(start, reach=REACH)))
        rows.append(row_of(task, epsilon, "dp-sgd", Race(PrivateSGD(stop_at=REACH), reach=REACH)))
    # At ε = 1 it takes a single round of an hour, and there is nothing before its end.
    short = {"rounds": 1, "queries": 60_000, "first_epochs": 4.0, "generator_steps": 0}
    data = Transcribing(
        name="dpsd, data",
        protect="data",
        adjacency=Adjacency.ROUND,
        recipe=shortened(short, share) | {"sources": sources_for(task)},
    )
    rows.append(row_of(task, 10.0, "dpsd-data", Race(data, reach=REACH)))
    return rows


def _on_features(task: Task, epsilon: float, share: float) -> Transcribing:
    """A student that is linear on a public backbone, which learns from few noisy answers.

    The backbone's training, once and from public images alone, is not part of the seconds. The
    rates were chosen on validation images of MNIST.
    """
    sizes = {"rounds": 4, "queries": 30_000, "first_queries": 60_000, "first_epochs": 4.0}
    learning = {"batch_size": 1024, "learning_rate": 0.001, "generator_steps": 0}
    features, asked = FEATURES[task.data]
    return Transcribing(
        name=f"dpsd, labels, on {features}",
        protect="labels",
        adjacency=Adjacency.RESPONSE,
        recipe=shortened(sizes | learning, share) | {**asked},
        features=features,
    )


SUITE = Suite(
    title="Seconds to 95 %, beside DP-SGD, which is given the data",
    data=("mnist",),
    figure="curves",
    rows=speed,
)

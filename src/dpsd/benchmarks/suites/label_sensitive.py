"""Randomised response, against ε."""

from __future__ import annotations

from typing import Any

from dpsd.benchmarks.baselines.label_privacy import PriorLabels, RandomizedLabels
from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.suites.field import (
    FIELD,
    FIELD_BESIDES,
    generator_alone,
    published_methods,
    references,
)
from dpsd.benchmarks.suites.queries import sources_for, suited
from dpsd.benchmarks.suites.suite import EPSILONS, Suite, row_of, shortened
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.privacy.targets import Adjacency


def label_sensitive(task: Task, share: float) -> list[Row]:
    """Randomised response, against ε, beside label privacy on the original images."""
    rows = references(task)
    for epsilon in EPSILONS:
        rows += published_methods(task, "labels", epsilon, share)
        many = Transcribing(
            name="dpsd, many rounds",
            protect="labels",
            adjacency=Adjacency.RESPONSE,
            recipe=many_rounds(task, epsilon, share),
        )
        one = Transcribing(
            name="dpsd, one round",
            protect="labels",
            adjacency=Adjacency.ROUND,
            recipe=_one_round_of_labels(task, epsilon, share),
        )
        rows += [
            row_of(task, epsilon, "dpsd-many-rounds", many),
            row_of(task, epsilon, "dpsd-one-round", one),
            generator_alone(task, many, epsilon),
            row_of(task, epsilon, "randomized-labels", RandomizedLabels()),
            row_of(task, epsilon, "prior-labels", PriorLabels()),
        ]
    return rows


def many_rounds(task: Task, epsilon: float, share: float = 1.0) -> dict[str, Any]:
    """Under ``response`` rounds cost nothing, so there are many; fewer where answers are clean."""
    clean = epsilon >= 3
    if task.data == "mnist":
        sizes = {"rounds": 14 if clean else 24, "queries": 30_000, "first_queries": 60_000}
        learning: dict[str, Any] = {"generator_share": 0.6}
    else:
        sizes = {"rounds": 6 if clean else 14, "queries": 60_000, "first_queries": 150_000}
        learning = {"replay": 0.5, "generator_share": 0.3}
    learning |= {"first_epochs": 4.0, "selection": 1.0}
    return shortened(sizes | learning | {"sources": sources_for(task)}, share)


def _one_round_of_labels(task: Task, epsilon: float, share: float) -> dict[str, Any]:
    if epsilon < 3:
        sizes: dict[str, Any] = {"rounds": 1, "queries": 1_200_000, "first_epochs": 2.5}
    else:
        sizes = {"rounds": 1, "queries": 240_000, "first_epochs": 5.0}
    return shortened(sizes | suited(task), share)


SUITE = Suite(
    title="Label-sensitive protection: randomised response",
    data=FIELD,
    besides=FIELD_BESIDES,
    figure="dots",
    rows=label_sensitive,
)

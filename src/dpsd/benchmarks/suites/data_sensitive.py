"""Gaussian noise on gradients, against ε."""

from __future__ import annotations

import math
from typing import Any

from dpsd.benchmarks.baselines.pate import Pate
from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
from dpsd.benchmarks.methods import Task, Unit
from dpsd.benchmarks.rows import Quoted, Row
from dpsd.benchmarks.suites.field import (
    FIELD,
    FIELD_BESIDES,
    PUBLISHED,
    generator_alone,
    published_methods,
    references,
)
from dpsd.benchmarks.suites.queries import FEATURES, sources_for, suited
from dpsd.benchmarks.suites.suite import EPSILONS, Suite, row_of, shortened
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.privacy.targets import Adjacency

#: What many teachers on features are asked where noise is small, if it is not 12,000.
_QUERIES = {"fashion-mnist": 24_000}

#: The most pixels of a photograph whose wavelet maps are held for all records at once.
_SMALL = 32 * 32

#: DP-SGD for photographs, after Tramèr & Boneh, ICLR 2021; chosen on validation images at ε = 3.
_PHOTOGRAPHS = PrivateSGD(
    network="scattering-maps", epochs=60, batch_size=8192, learning_rate=4.0, averaging=0.0
)


def data_sensitive(task: Task, share: float) -> list[Row]:
    """Gaussian noise on gradients, against ε, beside what else makes a private model."""
    rows = references(task)
    for epsilon in EPSILONS:
        own = Transcribing(
            name="dpsd",
            protect="data",
            adjacency=Adjacency.ROUND,
            recipe=one_round(task, epsilon, share),
        )
        rows += published_methods(task, "data", epsilon, share)
        rows.append(row_of(task, epsilon, "dpsd", own))
        rows.append(generator_alone(task, own, epsilon))
        if (shards := shards_for(task, epsilon)) > 1:
            many = _many_teachers(task, shards)
            votes = _votes_on_real_images(task, shards, epsilon)
            rows.append(row_of(task, epsilon, "dpsd-many", many))
            if task.data in FEATURES:
                linear = _many_on_features(task, shards, epsilon)
                rows.append(row_of(task, epsilon, "dpsd-many-features", linear))
            rows.append(row_of(task, epsilon, "pate", votes))
        rows.append(row_of(task, epsilon, "dp-sgd", PrivateSGD()))
        if task.channels == 3 and math.prod(task.size) <= _SMALL:
            rows.append(row_of(task, epsilon, "dp-sgd-maps", _PHOTOGRAPHS))
        if quoted := PUBLISHED.get((task.data, epsilon, "DataLens")):
            data_lens = Quoted(name="DataLens", unit=Unit.RECORD, given="the training data")
            rows.append(row_of(task, epsilon, "datalens", data_lens, *quoted))
    return rows


def one_round(task: Task, epsilon: float, share: float) -> dict[str, Any]:
    """Under ``round`` they cost, so there is one, in which queries are free."""
    if epsilon < 3:
        # So noisy are single answers that large batches pay.
        noisy = {"first_epochs": 1.0, "batch_size": 1024, "learning_rate": 0.01}
        sizes: dict[str, Any] = {"rounds": 1, "queries": 8_000_000} | noisy
    else:
        sizes = {"rounds": 1, "queries": 480_000, "first_epochs": 5.0}
    return shortened(sizes | suited(task), share)


def _many_teachers(task: Task, shards: int) -> Transcribing:
    return Transcribing(
        name="dpsd, many teachers",
        protect="labels",
        adjacency=Adjacency.TEACHER,
        recipe={"sources": sources_for(task)},
        shards=shards,
    )


def _many_on_features(task: Task, shards: int, epsilon: float) -> Transcribing:
    """Teachers and a student that are linear on a public backbone; chosen on validation images."""
    features, asked = FEATURES[task.data]
    queries = 6_000 if epsilon < 3 else _QUERIES.get(task.data, 12_000)
    recipe = {
        **asked,
        "learning_rate": 0.001,
        "generator_steps": 0,
        "queries": queries,
        "student_steps": queries // 6,
    }
    return Transcribing(
        name=f"dpsd, many teachers, on {features}",
        protect="labels",
        adjacency=Adjacency.TEACHER,
        recipe=recipe,
        shards=shards,
        features=features,
    )


def _votes_on_real_images(task: Task, shards: int, epsilon: float) -> Pate:
    return Pate(
        shards=shards,
        queries=min(1_000 if epsilon < 3 else 4_000, Pate.most_queries(task.measured_records)),
    )


def shards_for(task: Task, epsilon: float) -> int:
    """How many teachers share the records; where these are few, each still gets seven."""
    return min(3_000 if epsilon < 3 else 500, task.records // 7)


SUITE = Suite(
    title="Data-sensitive protection: Gaussian noise on gradients",
    data=FIELD,
    besides=FIELD_BESIDES,
    figure="dots",
    rows=data_sensitive,
)

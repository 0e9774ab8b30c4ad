"""Which public sources of queries suit a data set."""

from __future__ import annotations

from typing import Any

from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.suites.suite import Settings
from dpsd.config.recipe import NO_PROBE

#: Sources of queries that suit what is in a data set's images; others get :data:`PUBLIC`. Those of
#: MNIST and Fashion-MNIST were chosen on validation images.
SOURCES = {
    "mnist": ("noise", "strokes", "glyphs"),
    "fashion-mnist": ("silhouettes",),
    "digits": ("noise", "strokes"),
}
PUBLIC = {1: ("noise", "silhouettes"), 3: ("crops", "silhouettes")}

#: The public backbone that suits a data set, and the queries that its student learns from best.
#: Both were chosen on validation images.
FEATURES: dict[str, tuple[str, Settings]] = {
    "mnist": ("glyphs", {"sources": ("glyphs",)}),
    "fashion-mnist": (
        "cifar100",
        {"sources": ("silhouettes",), "public": "cifar100-jpeg", "probe": NO_PROBE},
    ),
}

#: What learning from queries about natural images takes besides: they mean the same mirrored.
NATURAL: Settings = {"augment": "shift-flip", "generator_steps": 0}


def sources_for(task: Task) -> tuple[str, ...]:
    """Public sources that suit a task's images."""
    return SOURCES.get(task.data) or PUBLIC[task.channels]


def suited(task: Task) -> dict[str, Any]:
    """What a recipe for a task's images chooses: sources, and how photographs are learned from."""
    sources = sources_for(task)
    return {"sources": sources, **(NATURAL if "crops" in sources else {})}

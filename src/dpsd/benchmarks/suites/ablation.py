"""One part taken out at a time."""

from __future__ import annotations

from collections.abc import Mapping

from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.suites.queries import sources_for
from dpsd.benchmarks.suites.short_runs import SHORT, TELLING
from dpsd.benchmarks.suites.suite import Settings, Suite, row_of, shortened
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.privacy.targets import Adjacency

#: Each part of the method, taken out: what differs in the recipe and in the mechanism.
ABLATIONS: Mapping[str, tuple[Settings, Settings]] = {
    "as it is": ({}, {}),
    "no public source": ({"sources": ("none",), "cold_start": False}, {}),
    "no generator": ({"generator_share": 0.0, "generator_steps": 0}, {}),
    "no exploration": ({"exploration": 0.0}, {}),
    "no class balance": ({"balance": False}, {}),
    "no replay": ({"replay": 0.0, "consolidate": False}, {}),
    "no last look at all": ({"consolidate": False}, {}),
    "no prior": ({"exploration": 1.0}, {}),
    "no choice of candidates": ({}, {"candidates": "all"}),
    "no likelihood: DKD to the posterior": ({"objective": "dkd"}, {}),
    "no likelihood: the noisy label": ({"objective": "noisy", "balance": False}, {}),
}


def ablation(task: Task, share: float) -> list[Row]:
    """One part taken out at a time, in runs long enough for each to matter."""
    rows = []
    whole = shortened(
        {**SHORT, "rounds": 5, "generator_steps": 80, "sources": sources_for(task)}, share
    )
    for name, (recipe, mechanism) in ABLATIONS.items():
        method = Transcribing(
            name=name,
            protect="labels",
            adjacency=Adjacency.RESPONSE,
            recipe={**whole, **recipe},
            mechanism=mechanism,
        )
        rows.append(row_of(task, TELLING, name.replace(" ", "-"), method))
    return rows


SUITE = Suite(title="One part taken out at a time", data=("mnist",), figure="dots", rows=ablation)

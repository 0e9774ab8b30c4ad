"""One setting at a time, in short runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.suites.queries import sources_for
from dpsd.benchmarks.suites.short_runs import SHORT, TELLING
from dpsd.benchmarks.suites.suite import Settings, Suite, row_of, shortened
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.privacy.targets import Adjacency


def sensitivity(task: Task, share: float) -> Iterator[Row]:
    """One setting varied at a time in short runs: the paper's parameter study."""
    short = shortened({**SHORT, "sources": sources_for(task)}, share)

    def row(
        panel: str,
        value: float | str,
        *,
        series: str = "",
        protect: str = "labels",
        epsilon: float = TELLING,
        recipe: Settings | None = None,
        mechanism: Settings | None = None,
    ) -> Row:
        what = f"{panel}, {series}" if series else panel
        method = Transcribing(
            name=f"{what} {value}",
            protect=protect,
            adjacency=Adjacency.RESPONSE,
            recipe={**short, **(recipe or {})},
            mechanism=mechanism or {},
        )
        found = row_of(task, epsilon, f"{what}/{value}", method, panel=panel, value=value)
        return replace(found, series=series)

    for scaling in ("normalize", "clip", "none"):
        for epsilon in (1.0, 3.0, 10.0, 30.0):
            yield row(
                "ε",
                epsilon,
                series=scaling,
                protect="data",
                epsilon=epsilon,
                mechanism={"scaling": scaling},
            )
    whole = short["first_queries"] + 2 * short["queries"]
    for count in (1, 2, 5, 10, 25, 50):  # the same answers, in so many rounds
        shared = {"rounds": count, "queries": max(1, whole // count), "first_queries": None}
        steps = {"generator_steps": max(1, 120 // count)}
        yield row("rounds", count, recipe=shared | steps)
    for count in (3_000, 6_000, 12_000, 24_000):
        queries = round(count * share)
        yield row(
            "queries a round", queries, recipe={"queries": queries, "first_queries": 2 * queries}
        )
    for kept in (2, 3, 5, 10):
        yield row("top k", kept, protect="data", epsilon=10.0, mechanism={"top_k": kept})
    for bound in (0.1, 1.0, 10.0):
        yield row("bound C", bound, protect="data", epsilon=10.0, mechanism={"bound": bound})
    for name, label, values in (
        ("alpha", "DKD α", (0.5, 1.0, 2.0)),
        ("beta", "DKD β", (1.0, 2.0, 8.0)),
        ("temperature", "DKD temperature", (1.0, 2.0, 4.0)),
    ):
        for value in values:
            yield row(label, value, recipe={"objective": "dkd", name: value})


SUITE = Suite(title="One setting at a time", data=("mnist",), figure="panels", rows=sensitivity)

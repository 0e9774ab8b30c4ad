"""What a suite is, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.tables import FIELD, Column, Summary
from dpsd.privacy.targets import Adjacency, Budget

Settings = Mapping[str, Any]

DELTA = 1e-5
EPSILONS = (1.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A table and its figure.

    Args:
        title: heads table and figure.
        data: data sets that it is about, if none are named.
        besides: more of them, where they are there; nobody misses them where they are not.
        figure: ``dots`` (a row each), ``panels`` (one for each thing that varies) or ``curves``
            (accuracy against seconds).
        rows: made for a task, with that share of the queries.
        columns: the table's columns.
        note: sentences below the table that explain columns of its own.
        finding: returns sentences below the table that its rows lead to.
    """

    title: str
    data: Sequence[str]
    besides: Sequence[str] = ()
    figure: str
    rows: Callable[[Task, float], Iterable[Row]]
    columns: Sequence[Column] = FIELD
    note: str = ""
    finding: Callable[[Sequence[Summary]], str] = lambda _: ""

    def noted(self, summaries: Sequence[Summary]) -> str:
        """The sentences below a table of these rows."""
        return f"{self.note} {self.finding(summaries)}".strip()


def shortened(recipe: Settings, share: float) -> dict[str, Any]:
    """A recipe with that share of its queries, and one at least.

    >>> shortened({"queries": 300, "rounds": 2}, 0.1)
    {'queries': 30, 'rounds': 2}
    """
    sizes = {
        name: max(1, round(recipe[name] * share))
        for name in ("queries", "first_queries")
        if recipe.get(name)
    }
    return {**recipe, **sizes}


def row_of(
    task: Task,
    epsilon: float,
    key: str,
    method: Any,
    published: float | None = None,
    source: str = "",
    panel: str = "",
    value: float | str = "",
) -> Row:
    """A row at that ε, under the adjacency of its method; its key begins with data set and ε."""
    # Others have relations of their own, which their unit names.
    adjacency = getattr(method, "adjacency", None) or Adjacency.TEACHER
    return Row(
        key=f"{task.data}/{epsilon:g}/{key}",
        task=task,
        method=method,
        target=Budget(epsilon=epsilon, delta=DELTA, adjacency=adjacency),
        published=published,
        source=source,
        panel=panel,
        value=value,
    )

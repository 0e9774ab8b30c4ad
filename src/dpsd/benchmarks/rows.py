"""A row of a table: a method on a task at a privacy target, and what was published about it.

>>> from pathlib import Path
>>> from dpsd.benchmarks.methods import Unit
>>> quoted = Quoted(name="DataLens", unit=Unit.RECORD, given="the training data")
>>> row = Row(key="datalens", task=Task(data="mnist", teachers=Path("teachers")), method=quoted,
...           target=Budget(epsilon=1.0), published=0.7123, source="CCS 2021")
>>> row.key
'datalens'
"""

from __future__ import annotations

from dataclasses import dataclass

from dpsd.benchmarks.methods import Method, Task, Unit
from dpsd.privacy.targets import Budget


@dataclass(frozen=True, kw_only=True)
class Quoted:
    """A published method that is not measured here."""

    name: str
    unit: Unit
    given: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row.

    Args:
        key: tells it from the suite's other rows, on disk too.
        task: data and teacher.
        method: what is measured, or only quoted.
        target: the privacy target; ``None`` for what is not private.
        published: accuracy that its authors report, in [0, 1]; never mixed with measured ones.
        source: where they do.
        panel: in a figure of many panels, what varies.
        series: in that panel, which curve, if there are several.
        value: on that curve, the value of what varies.
        changes: settings that differ from the suite's, as ``FIELD=VALUE``; the key names them too.
    """

    key: str
    task: Task
    method: Method | Quoted
    target: Budget | None = None
    published: float | None = None
    source: str = ""
    panel: str = ""
    series: str = ""
    value: float | str = ""
    changes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The method's, and what was changed of it."""
        return ", ".join((self.method.name, *self.changes))

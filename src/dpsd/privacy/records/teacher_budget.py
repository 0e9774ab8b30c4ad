"""A teacher's budget: a file that records what all runs asked the teacher, and what it may spend.

Privacy belongs to the teacher: two runs against it reveal more than either one, and compose. Before
it asks, each run also records its reservations here, under the teacher's content hash, so one file
may serve several teachers, and a retrained teacher starts afresh. What a teacher spent altogether
may be spread over several files; :mod:`dpsd.privacy.records.accounts` adds them up.

The file (format ``dpsd-budget``, version 1) is a chain (:mod:`dpsd.privacy.records.chain`) of three
kinds of lines:

- ``reserve`` has ``teacher``, ``run``, ``directory``, ``round``, ``answers``, ``mechanism``,
  ``event``, ``mean_event``, ``private`` and ``asking``.
- ``cap`` has ``teacher``, and ``cap``, which is an object of ``epsilon``, ``delta`` and
  ``adjacency``, or null if the cap was removed; the latest applies.
- ``count`` has ``teacher`` and ``earlier``, two content hashes of the same teacher, whose file was
  changed.

>>> import tempfile
>>> from dpsd.privacy.records.ledger import reservation
>>> from dpsd.privacy.mechanisms import RandomizedResponse
>>> with tempfile.TemporaryDirectory() as folder:
...     budget = TeacherBudget(Path(folder) / "budget.jsonl", teacher="sha256:00")
...     for run in ("monday", "tuesday"):
...         asked = reservation(round_index=1, answers=500, teacher=budget.teacher,
...                             mechanism=RandomizedResponse(epsilon=1.0))
...         budget.reserve(asked, run=run, directory=run)
...     round(budget.spent(delta=1e-5).round, 3)
2.0
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dpsd.errors import RunError
from dpsd.privacy.accounting import PrivacySpent, Spending, spent_together
from dpsd.privacy.records.chain import Chain
from dpsd.privacy.records.ledger import RESERVATION, spending_of
from dpsd.privacy.targets import Budget

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class RunSpending:
    """What one run spent.

    Args:
        run: the identity of the run.
        directory: the run directory.
        started: when the run first asked, in UTC.
        mechanism: the parameters of its mechanism.
        spending: the events, and the number of them.
        private: whether its noise was secret.
    """

    run: str
    directory: str
    started: str
    mechanism: dict[str, Any]
    spending: Spending
    private: bool


class TeacherBudget(Chain):
    """The records of one teacher in one file.

    Args:
        path: the path of the file, which is created with the first entry.
        teacher: the teacher's content hash.
    """

    name: ClassVar[str] = "budget"
    kinds: ClassVar[Mapping[str, Mapping[str, type]]] = {
        "reserve": {**RESERVATION, "run": str, "directory": str},
        "cap": {"teacher": str},
        "count": {"teacher": str, "earlier": str},
    }

    def __init__(self, path: Path, *, teacher: str) -> None:
        super().__init__(path)
        self.teacher = teacher

    def reserve(self, entry: Mapping[str, object], *, run: str, directory: str) -> None:
        """Record durably that a round of a run is about to be asked.

        Args:
            entry: the entry from :func:`dpsd.privacy.records.ledger.reservation`, or one of another
                file. Whichever teacher it names, it is recorded for this one.
            run: the identity of the run.
            directory: the run directory.
        """
        known = [*RESERVATION, *(["asking"] if "asking" in entry else [])]
        fields = {name: entry[name] for name in known} | {"teacher": self.teacher}
        self._add("reserve", run=run, directory=directory, **fields)

    def set_cap(self, cap: Budget | None) -> None:
        """Record the cap on what all runs together may spend; ``None`` removes it."""
        self._add("cap", teacher=self.teacher, cap=None if cap is None else cap.to_dict())

    def count(self, earlier: str) -> None:
        """Record that this teacher had the hash ``earlier``, and spent what that one did."""
        self._add("count", teacher=self.teacher, earlier=earlier)

    def cap(self, teachers: Collection[str] = ()) -> Budget | None:
        """The cap on what all runs together may spend, if one was set.

        Args:
            teachers: all content hashes that the teacher has had; by default, the budget's own.
        """
        about = teachers or {self.teacher}
        caps = [e["cap"] for e in self.lines() if e["entry"] == "cap" and e["teacher"] in about]
        if not caps or caps[-1] is None:
            return None
        try:
            return Budget(**caps[-1])
        except TypeError as error:
            raise RunError(f"budget {self.path}: a recorded cap is meaningless ({error})") from None

    def reservations(self, teachers: Collection[str] = ()) -> list[dict[str, Any]]:
        """The lines that spend privacy; ``teachers`` is as for :meth:`cap`."""
        about = teachers or {self.teacher}
        return [e for e in self.lines() if e["entry"] == "reserve" and e["teacher"] in about]

    def runs(self) -> list[RunSpending]:
        """Every run that asked this teacher, in the order in which they began."""
        return runs_of(self.reservations())

    def spent(self, *, delta: float) -> PrivacySpent:
        """The joint ε of all runs at ``delta``, under each adjacency."""
        return spent_together([run.spending for run in self.runs()], delta=delta)

    def lines(self) -> list[dict[str, Any]]:
        """All entries, about any teacher.

        Raises:
            RunError: the file is damaged or has another version.
        """
        entries = self.entries() if self.path.exists() else []
        for number, entry in enumerate(entries, start=1):
            if entry["entry"] == "cap" and "cap" not in entry:
                raise RunError(f"{self.line(number)}: has no value for the cap")
            if entry.get("version") != _VERSION:
                raise RunError(
                    f"{self.line(number)}: of version {entry.get('version')}; this dpsd reads "
                    f"{_VERSION}. Use the dpsd that wrote it, or a newer one"
                )
        return entries

    def _add(self, kind: str, **fields: object) -> None:
        self._append({"entry": kind, "version": _VERSION, **fields})


def runs_of(reservations: Iterable[dict[str, Any]]) -> list[RunSpending]:
    """Return what each run spent; a run with several kinds of events is listed once for each."""
    by_run: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in reservations:
        by_run.setdefault((entry["run"], _cost(entry)), []).append(entry)
    return [
        RunSpending(
            run=run,
            directory=entries[0]["directory"],
            started=entries[0]["time"],
            mechanism=entries[0]["mechanism"],
            spending=spending_of(entries),
            private=all(entry["private"] for entry in entries),
        )
        for (run, _), entries in by_run.items()
    ]


def united(records: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return what several files record together, each reservation once, in order of time.

    A run records the same reservation in several files, under one ``asking``. Reservations of
    earlier versions have none: there, a round that was asked again is the same reservation once
    more, so each counts as often as in the file that has it most often.

    >>> first = {"run": "r", "round": 1, "answers": 5, "event": {}, "mean_event": {}, "time": "1"}
    >>> [entry["time"] for entry in united([[first, first | {"time": "2"}], [first]])]
    ['1', '2']
    """
    most: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        alike: dict[str, list[dict[str, Any]]] = {}
        for entry in record:
            alike.setdefault(_identity(entry), []).append(entry)
        for identity, entries in alike.items():
            if len(entries) > len(most.get(identity, [])):
                most[identity] = entries
    return sorted((entry for group in most.values() for entry in group), key=lambda e: e["time"])


def lacking(
    record: Iterable[dict[str, Any]], whole: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the reservations of ``whole`` that ``record`` lacks, or has less often.

    >>> first = {"run": "r", "round": 1, "answers": 5, "event": {}, "mean_event": {}}
    >>> [entry["round"] for entry in lacking([first], [first, first | {"round": 2}])]
    [2]
    """
    there = Counter(map(_identity, record))
    missing = []
    for entry in whole:
        there[_identity(entry)] -= 1
        if there[_identity(entry)] < 0:
            missing.append(entry)
    return missing


def _identity(entry: Mapping[str, Any]) -> str:
    """Return what a reservation has in common in all the files that record it."""
    told = [entry.get("run"), entry["round"], entry["answers"], entry.get("asking"), _cost(entry)]
    return json.dumps(told)


def _cost(entry: Mapping[str, Any]) -> str:
    return json.dumps([entry["event"], entry["mean_event"]], sort_keys=True)

"""A teacher's budget: a file of what was asked of it in all runs, and of how much it may spend.

Privacy belongs to the teacher: two runs against it reveal more than either, and compose. Each run
writes its reservations here too, before it asks, under the teacher's content hash, so one file may
serve several teachers and a teacher that was retrained starts afresh. What a teacher spent
altogether may be in several files: :mod:`dpsd.privacy.records.accounts` adds them up.

The file (format ``dpsd-budget``, version 1) is a chain (:mod:`dpsd.privacy.records.chain`) of three
kinds of lines. ``reserve``: ``teacher``, ``run``, ``directory``, ``round``, ``answers``,
``mechanism``, ``event``, ``mean_event``, ``private`` and ``asking``. ``cap``: ``teacher``, and
``cap``, which is an object of ``epsilon``, ``delta`` and ``adjacency``, or null where a cap was
lifted; the latest holds.
``count``: ``teacher`` and ``earlier``, two hashes of what is one teacher, whose file was changed.

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
        run: its identifier.
        directory: where it was written to.
        started: when it first asked, UTC.
        mechanism: its parameters.
        spending: events and how many.
        private: whether its noise was secret.
    """

    run: str
    directory: str
    started: str
    mechanism: dict[str, Any]
    spending: Spending
    private: bool


class TeacherBudget(Chain):
    """What one file records of a teacher.

    Args:
        path: of the file; made with the first entry.
        teacher: its content hash.
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
        """Record, durably, that a round of a run is about to be asked.

        Args:
            entry: made by :func:`dpsd.privacy.records.ledger.reservation`, or another file's.
                Whichever teacher it names, it is recorded for this one.
            run: its identifier.
            directory: where it is written to.
        """
        known = [*RESERVATION, *(["asking"] if "asking" in entry else [])]
        fields = {name: entry[name] for name in known} | {"teacher": self.teacher}
        self._add("reserve", run=run, directory=directory, **fields)

    def set_cap(self, cap: Budget | None) -> None:
        """Record what all runs together may spend at most; ``None`` lifts the cap."""
        self._add("cap", teacher=self.teacher, cap=None if cap is None else cap.to_dict())

    def count(self, earlier: str) -> None:
        """Record that this teacher is the one of hash ``earlier``, and spent what that did."""
        self._add("count", teacher=self.teacher, earlier=earlier)

    def cap(self, teachers: Collection[str] = ()) -> Budget | None:
        """What all runs together may spend at most, if that was set.

        Args:
            teachers: all hashes that the teacher has had; the budget's own if none is given.
        """
        about = teachers or {self.teacher}
        caps = [e["cap"] for e in self.lines() if e["entry"] == "cap" and e["teacher"] in about]
        if not caps or caps[-1] is None:
            return None
        try:
            return Budget(**caps[-1])
        except TypeError as error:
            raise RunError(f"budget {self.path}: a cap that means nothing ({error})") from None

    def reservations(self, teachers: Collection[str] = ()) -> list[dict[str, Any]]:
        """Lines that spend; see :meth:`cap`."""
        about = teachers or {self.teacher}
        return [e for e in self.lines() if e["entry"] == "reserve" and e["teacher"] in about]

    def runs(self) -> list[RunSpending]:
        """Every run that asked this teacher, in the order in which they began."""
        return runs_of(self.reservations())

    def spent(self, *, delta: float) -> PrivacySpent:
        """ε of all runs together at ``delta``, under each adjacency."""
        return spent_together([run.spending for run in self.runs()], delta=delta)

    def lines(self) -> list[dict[str, Any]]:
        """All entries, about whichever teacher.

        Raises:
            RunError: the file is damaged, or of another version.
        """
        entries = self.entries() if self.path.exists() else []
        for number, entry in enumerate(entries, start=1):
            if entry["entry"] == "cap" and "cap" not in entry:
                raise RunError(f"{self.line(number)}: a cap that says nothing")
            if entry.get("version") != _VERSION:
                raise RunError(
                    f"{self.line(number)}: of version {entry.get('version')}; this dpsd reads "
                    f"{_VERSION}. Use the dpsd that wrote it, or a newer one"
                )
        return entries

    def _add(self, kind: str, **fields: object) -> None:
        self._append({"entry": kind, "version": _VERSION, **fields})


def runs_of(reservations: Iterable[dict[str, Any]]) -> list[RunSpending]:
    """What each run spent; one whose answers cost different events is listed once for each."""
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
    """What several files record together, each reservation once, in the order of time.

    A run writes the same reservation into several files, under one ``asking``. Those of earlier
    versions have none: there, a round that was asked again is the same reservation once more, so
    each counts as often as in the file that has it most often.

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
    """Reservations of ``whole`` that ``record`` does not have, or not as often.

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
    """What is the same of a reservation in every file that it is written to."""
    told = [entry.get("run"), entry["round"], entry["answers"], entry.get("asking"), _cost(entry)]
    return json.dumps(told)


def _cost(entry: Mapping[str, Any]) -> str:
    return json.dumps([entry["event"], entry["mean_event"]], sort_keys=True)

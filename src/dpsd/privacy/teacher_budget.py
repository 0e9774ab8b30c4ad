"""What a teacher has spent in all its runs, and how much it may.

Privacy belongs to the teacher: two runs against it reveal more than either, and compose. Each run
writes its reservations here too, before it asks, under the teacher's content hash, so one file may
serve several teachers and a teacher that was retrained starts afresh.

The file (format ``dpsd-budget``, version 1) is a chain (:mod:`dpsd.privacy.chain`) of two kinds of
lines. ``reserve``: ``teacher``, ``run``, ``directory``, ``round``, ``answers``, ``mechanism``,
``event``, ``mean_event``, ``private``. ``cap``: ``teacher``, and ``cap``, which is an object of
``epsilon``, ``delta`` and ``adjacency``, or null where a cap was lifted; the latest holds.

>>> import tempfile
>>> from dpsd.privacy.mechanisms import RandomizedResponse
>>> with tempfile.TemporaryDirectory() as folder:
...     budget = TeacherBudget(Path(folder) / "budget.jsonl", teacher="sha256:00")
...     for run in ("monday", "tuesday"):
...         budget.reserve(run=run, directory=run, round_index=1, answers=500,
...                        mechanism=RandomizedResponse(epsilon=1.0))
...     round(budget.spent(delta=1e-5).round, 3)
2.0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dpsd.errors import BudgetError, RunError
from dpsd.privacy.accounting import (
    Budget,
    Exposure,
    PrivacySpent,
    Spending,
    format_epsilon,
    spent_together,
)
from dpsd.privacy.chain import Chain
from dpsd.privacy.ledger import RESERVATION, reservation, spending_of
from dpsd.privacy.mechanisms import Mechanism

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
    """All that was asked of a teacher.

    Args:
        path: of the file; made with the first entry.
        teacher: its content hash.
    """

    name: ClassVar[str] = "budget"
    kinds: ClassVar[Mapping[str, Mapping[str, type]]] = {
        "reserve": {**RESERVATION, "run": str, "directory": str},
        "cap": {"teacher": str},
    }

    def __init__(self, path: Path, *, teacher: str) -> None:
        super().__init__(path)
        self.teacher = teacher

    def reserve(
        self, *, run: str, directory: str, round_index: int, answers: int, mechanism: Mechanism
    ) -> None:
        """Record, durably, that a round of a run is about to be asked."""
        self._append(
            {
                "entry": "reserve",
                "version": _VERSION,
                "run": run,
                "directory": directory,
                **reservation(
                    round_index=round_index,
                    answers=answers,
                    mechanism=mechanism,
                    teacher=self.teacher,
                ),
            }
        )

    def set_cap(self, cap: Budget | None) -> None:
        """Record what all runs together may spend at most; ``None`` lifts the cap."""
        limit = None if cap is None else cap.to_dict()
        self._append({"entry": "cap", "version": _VERSION, "teacher": self.teacher, "cap": limit})

    def cap(self) -> Budget | None:
        """What all runs together may spend at most, if that was set."""
        caps = [entry["cap"] for entry in self._own() if entry["entry"] == "cap"]
        if not caps or caps[-1] is None:
            return None
        try:
            return Budget(**caps[-1])
        except TypeError as error:
            raise RunError(f"budget {self.path}: a cap that means nothing ({error})") from None

    def runs(self) -> list[RunSpending]:
        """Every run that asked this teacher, in the order in which they began."""
        by_run: dict[str, list[dict[str, Any]]] = {}
        for entry in self._own():
            if entry["entry"] == "reserve":
                by_run.setdefault(entry["run"], []).append(entry)
        return [
            RunSpending(
                run=run,
                directory=entries[0]["directory"],
                started=entries[0]["time"],
                mechanism=entries[0]["mechanism"],
                spending=spending_of(entries),
                private=all(entry["private"] for entry in entries),
            )
            for run, entries in by_run.items()
        ]

    def asked(self, run: str) -> list[tuple[int, int]]:
        """Rounds that a run asked, by number, and the answers of each."""
        return [
            (entry["round"], entry["answers"])
            for entry in self._own()
            if entry["entry"] == "reserve" and entry["run"] == run
        ]

    def spent(self, *, delta: float) -> PrivacySpent:
        """ε of all runs together at ``delta``, under each adjacency."""
        return spent_together([run.spending for run in self.runs()], delta=delta)

    def with_run(
        self, run: str, *, mechanism: Mechanism, planned: Sequence[tuple[int, int]]
    ) -> list[Spending]:
        """What all runs spend once this one has asked what is ``planned``, too."""
        whole = Spending(
            event=mechanism.event(),
            mean_event=mechanism.mean_event(),
            exposure=Exposure.of_asked([*self.asked(run), *planned]),
        )
        return [*(other.spending for other in self.runs() if other.run != run), whole]

    def admit(
        self,
        *,
        run: str,
        mechanism: Mechanism,
        planned: Sequence[tuple[int, int]],
        cap: Budget | None = None,
    ) -> None:
        """Refuse a run, or the rest of one, that would exceed a cap.

        Args:
            run: its identifier.
            mechanism: calibrated.
            planned: rounds that are still to be asked, by number, and the queries of each.
            cap: of the run's own choice, beside the one on record.

        Raises:
            BudgetError: with this, more would be spent than the cap.
        """
        caps = [limit for limit in (self.cap(), cap) if limit is not None]
        if not caps:
            return
        together = self.with_run(run, mechanism=mechanism, planned=planned)
        for limit in caps:
            needed = spent_together(together, delta=limit.delta).under(limit.adjacency)
            if limit.is_exceeded_by(needed):
                spent = self.spent(delta=limit.delta).under(limit.adjacency)
                raise BudgetError(
                    f"with this run the teacher would have spent ε = {format_epsilon(needed)} "
                    f"under {limit.adjacency.value!r} at δ = {limit.delta:g}; the cap is "
                    f"{limit.epsilon:g}, and ε = {format_epsilon(spent)} is spent ({self.path}). "
                    + (
                        "Raise the cap, or leave this run as it is: what it released stays valid"
                        if self.asked(run)
                        else "Ask for a lower epsilon, for fewer rounds or queries, or raise the "
                        "cap"
                    )
                )

    def _own(self) -> list[dict[str, Any]]:
        """Entries about this teacher.

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
        return [entry for entry in entries if entry["teacher"] == self.teacher]

"""Accounts: what each teacher of a run has spent, over all the files that record it.

A run against one teacher has one account. A run against a committee has one for each member, since
the people behind a member are behind it in every committee, and also if it is asked alone. A change
of one member costs what the whole run states, so each member is charged with all of it, and a run
is admitted only if every member's caps allow it.

An account has one or more budgets (:mod:`dpsd.privacy.records.teacher_budget`): the one in the
usual place, and one that the user named. All are read, all are written, and the cap of each applies
to what all of them record together.

>>> import tempfile
>>> from dpsd.privacy.records.ledger import reservation
>>> from dpsd.privacy.mechanisms import RandomizedResponse
>>> mechanism = RandomizedResponse(epsilon=1.0)
>>> with tempfile.TemporaryDirectory() as folder:
...     named = [TeacherBudget(Path(folder) / name, teacher="sha256:00") for name in ("a", "b")]
...     accounts = Accounts([Account(named, name="the teacher")])
...     named[0].set_cap(Budget(epsilon=1.5))
...     asked = reservation(round_index=1, answers=50, mechanism=mechanism, teacher="sha256:00")
...     named[1].reserve(asked, run="monday", directory="runs/1")
...     accounts.admit(run="tuesday", mechanism=mechanism, planned=[(1, 50)], delta=1e-5)
Traceback (most recent call last):
    ...
dpsd.errors.BudgetError: with this run the teacher would have spent ε = 2 under 'round' ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dpsd.errors import BudgetError
from dpsd.privacy.accounting import (
    PrivacySpent,
    Spending,
    at_least,
    format_epsilon,
    spent_together,
)
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.ledger import described_event
from dpsd.privacy.records.teacher_budget import RunSpending, TeacherBudget, lacking, runs_of, united
from dpsd.privacy.targets import Adjacency, Budget, Exposure


@dataclass(frozen=True, kw_only=True)
class Uncounted:
    """The queries to other teachers that the budget beside a teacher records.

    Args:
        path: the path of the budget.
        teachers: the content hashes of the other teachers.
        runs: the runs that asked them.
        is_all: whether the budget records nothing of the teacher that is there now.
    """

    path: Path
    teachers: tuple[str, ...]
    runs: tuple[RunSpending, ...]
    is_all: bool

    def describe(self, *, delta: float, adjacency: Adjacency) -> str:
        """Say in a sentence what is not counted and what it cost."""
        spent = _together(tuple(run.spending for run in self.runs), delta).under(adjacency)
        several = "s" * (len(self.runs) > 1)
        return (
            f"{self.path} records {len(self.runs)} run{several} against a teacher of other content "
            f"(ε = {format_epsilon(spent)} under {adjacency.value!r} at δ = {delta:g}), which "
            f"{'are' if several else 'is'} not counted"
        )


class Account:
    """The account of one teacher: what it has spent.

    Args:
        budgets: the budgets of the teacher, at least one; all of them are written.
        name: the name of the teacher in messages.
        committees: the budgets that earlier versions kept for committees with this teacher in them;
            they are read, but no longer written.
        beside: the path of the budget beside the teacher, under the teacher's own name.
    """

    def __init__(
        self,
        budgets: Sequence[TeacherBudget],
        *,
        name: str,
        committees: Sequence[TeacherBudget] = (),
        beside: Path | None = None,
    ) -> None:
        self.budgets = list(budgets)
        self.name = name
        self.committees = list(committees)
        self._beside = beside

    @property
    def teacher(self) -> str:
        """The teacher's content hash."""
        return self.budgets[0].teacher

    def runs(self) -> list[RunSpending]:
        """Every run that asked this teacher, in the order in which they began."""
        return runs_of(self._reservations())

    def asked(self, run: str) -> list[dict[str, Any]]:
        """The reservations of a run."""
        return [entry for entry in self._reservations() if entry["run"] == run]

    def spent(self, *, delta: float) -> PrivacySpent:
        """The joint ε of all runs at ``delta``, under each adjacency."""
        return _together(tuple(run.spending for run in self.runs()), delta)

    def caps(self) -> list[tuple[Budget, Path]]:
        """The caps on what all runs together may spend, each with the file that records it."""
        known = self._hashes()
        caps = [(budget.cap(known), budget.path) for budget in self.budgets]
        caps += [(committee.cap(), committee.path) for committee in self.committees]
        return [(cap, path) for cap, path in caps if cap is not None]

    def with_run(
        self, run: str, *, mechanism: Mechanism, planned: Sequence[tuple[int, int]]
    ) -> list[Spending]:
        """The spending of all runs, once this one has also asked what is ``planned``."""
        cost = described_event(mechanism.event()), described_event(mechanism.mean_event())
        others: list[dict[str, Any]] = []
        own: list[dict[str, Any]] = []
        for entry in self._reservations():
            is_own = entry["run"] == run and (entry["event"], entry["mean_event"]) == cost
            (own if is_own else others).append(entry)
        whole = Spending(
            event=mechanism.event(),
            mean_event=mechanism.mean_event(),
            exposure=Exposure.of_asked(
                [*((entry["round"], entry["answers"]) for entry in own), *planned]
            ),
        )
        return [*(other.spending for other in runs_of(others)), whole]

    def catch_up(self, whole: Sequence[dict[str, Any]], *, run: str, directory: str) -> None:
        """Add a run's reservations to every budget that lacks them."""
        known = self._hashes()
        for budget in self.budgets:
            there = [entry for entry in budget.reservations(known) if entry["run"] == run]
            for entry in lacking(there, whole):
                budget.reserve(entry, run=run, directory=directory)

    def uncounted(self) -> Uncounted | None:
        """What the budget beside the teacher records of others; ``None`` if it records nothing."""
        if self._beside is None or not self._beside.exists():
            return None
        known = self._hashes() | {committee.teacher for committee in self.committees}
        beside = TeacherBudget(self._beside, teacher=self.teacher)
        asked = [entry for entry in beside.lines() if entry["entry"] == "reserve"]
        others = [entry for entry in asked if entry["teacher"] not in known]
        if not others:
            return None
        return Uncounted(
            path=self._beside,
            teachers=tuple(sorted({entry["teacher"] for entry in others})),
            runs=tuple(runs_of(others)),
            is_all=not any(entry["teacher"] in known for entry in asked),
        )

    def count(self, uncounted: Uncounted) -> None:
        """Record that the other teachers were this one before its file changed."""
        for budget in self.budgets:
            for earlier in uncounted.teachers:
                budget.count(earlier)

    def _reservations(self) -> list[dict[str, Any]]:
        known = self._hashes()
        records = [budget.reservations(known) for budget in self.budgets]
        return united([*records, *(committee.reservations() for committee in self.committees)])

    def _hashes(self) -> set[str]:
        """All content hashes that are recorded as belonging to this teacher."""
        pairs = [
            {entry["teacher"], entry["earlier"]}
            for budget in self.budgets
            for entry in budget.lines()
            if entry["entry"] == "count"
        ]
        known = {self.teacher}
        while more := set().union(*(pair for pair in pairs if pair & known)) - known:
            known |= more
        return known


class Accounts:
    """The accounts of all teachers that a run asks.

    Args:
        accounts: the accounts, at least one.
        unknown: the names of teachers without content to identify them by, and so without account.
    """

    def __init__(self, accounts: Sequence[Account], *, unknown: Sequence[str] = ()) -> None:
        self.accounts = list(accounts)
        self.unknown = list(unknown)

    @property
    def paths(self) -> list[Path]:
        """Every file that a run or a new cap writes to, and that the writer must lock."""
        budgets = [budget for account in self.accounts for budget in account.budgets]
        return list(dict.fromkeys(b.path for b in [*budgets, *self._capped_committees()]))

    @property
    def path(self) -> Path:
        """The first of :attr:`paths`."""
        return self.paths[0]

    def reserve(self, entry: Mapping[str, object], *, run: str, directory: str) -> None:
        """Record durably, for every teacher, that a round of a run is about to be asked."""
        for account in self.accounts:
            for budget in account.budgets:
                budget.reserve(entry, run=run, directory=directory)

    def asked(self, run: str) -> list[dict[str, Any]]:
        """The reservations of a run in the records of all teachers together."""
        return united(account.asked(run) for account in self.accounts)

    def catch_up(self, reservations: Sequence[dict[str, Any]], *, run: str, directory: str) -> None:
        """Add a run's reservations to every budget that lacks them."""
        whole = united([reservations, self.asked(run)])
        for account in self.accounts:
            account.catch_up(whole, run=run, directory=directory)

    def most_spent(self, *, delta: float) -> Account:
        """The account that has spent most: under ``teacher``, then ``round``, then ``response``."""

        def order(account: Account) -> list[float]:
            spent = account.spent(delta=delta)
            return [spent.under(kind) for kind in reversed(Adjacency)]

        return max(self.accounts, key=order)

    def set_cap(self, cap: Budget | None, *, path: Path | None = None) -> None:
        """Record the cap on what all runs together may spend; ``None`` removes it.

        Args:
            cap: the cap, for every teacher.
            path: the one budget to record it in; if not given, it is recorded in all budgets, and
                replaces a cap that an earlier version recorded for a committee.
        """
        for account in self.accounts:
            for budget in account.budgets:
                if path is None or budget.path == path.absolute():
                    budget.set_cap(cap)
        if path is None and len(self.accounts) > 1:
            for committee in self._capped_committees():
                committee.set_cap(None)

    def _capped_committees(self) -> list[TeacherBudget]:
        committees = [budget for account in self.accounts for budget in account.committees]
        named = {(budget.path, budget.teacher): budget for budget in committees}
        return [budget for budget in named.values() if budget.cap() is not None]

    def uncounted(self) -> list[tuple[Account, Uncounted]]:
        """The accounts with records of other teachers beside theirs, and those records."""
        found = ((account, account.uncounted()) for account in self.accounts)
        return [(account, other) for account, other in found if other is not None]

    def count_uncounted(self) -> None:
        """Record that those others are the same teachers, so that queries to them count."""
        for account, uncounted in self.uncounted():
            account.count(uncounted)

    def history(self, *, delta: float) -> dict[str, Any] | None:
        """What a run's ledger records of earlier spending, by the teacher that had spent most.

        The result is ``None`` if it is unknown what one of the teachers was asked. The budget of a
        single teacher is named; those of several are not, as their names may contain hashes of the
        teachers' weights.
        """
        if self.unknown:
            return None
        account = self.most_spent(delta=delta)
        spent = account.spent(delta=delta)
        history = {kind.value: spent.under(kind) for kind in Adjacency}
        history |= {"runs": len({run.run for run in account.runs()})}
        if len(self.accounts) > 1:
            return history | {"accounts": len(self.accounts)}
        return history | {"file": self.path.name}

    def needed(
        self,
        run: str,
        *,
        mechanism: Mechanism,
        planned: Sequence[tuple[int, int]],
        limit: Budget,
    ) -> float:
        """The smallest ε, at a limit's δ and adjacency, with which a cap lets a run continue."""
        return max(
            _together(
                tuple(account.with_run(run, mechanism=mechanism, planned=planned)), limit.delta
            ).under(limit.adjacency)
            for account in self.accounts
        )

    def admit(
        self,
        *,
        run: str,
        mechanism: Mechanism,
        planned: Sequence[tuple[int, int]],
        delta: float,
        cap: Budget | None = None,
    ) -> None:
        """Refuse a run, or the rest of one, that would exceed a cap of any of its teachers.

        Args:
            run: the identity of the run.
            mechanism: the calibrated mechanism.
            planned: the rounds still to be asked, by number, with the queries of each.
            delta: the δ at which the run is stated.
            cap: a cap that the run sets itself, in addition to those on record.

        Raises:
            BudgetError: the run would exceed a cap.
        """
        for account in self.accounts:
            before = tuple(other.spending for other in account.runs())
            after = tuple(account.with_run(run, mechanism=mechanism, planned=planned))
            caps = account.caps() + ([] if cap is None else [(cap, account.budgets[0].path)])
            for at in {delta, *(limit.delta for limit, _ in caps)} if before else ():
                _require_growth(_together(before, at), _together(after, at))
            for limit, path in caps:
                needed = _together(after, limit.delta).under(limit.adjacency)
                if limit.is_exceeded_by(needed):
                    spent = _together(before, limit.delta).under(limit.adjacency)
                    raise BudgetError(
                        f"with this run {account.name} would have spent ε = "
                        f"{format_epsilon(needed)} under {limit.adjacency.value!r} at δ = "
                        f"{limit.delta:g}; the cap is {limit.epsilon:g}, and ε = "
                        f"{format_epsilon(spent)} is spent ({path}). "
                        + (
                            "Raise the cap, or leave this run as it is: what it released stays "
                            "valid"
                            if account.asked(run)
                            else "Ask for a lower epsilon, for fewer rounds or queries, or raise "
                            "the cap"
                        )
                    )


def _require_growth(before: PrivacySpent, after: PrivacySpent) -> None:
    """Refuse a run if the accountant finds less spent with it than without it."""
    for kind in Adjacency:
        try:
            at_least([before.under(kind)], after.under(kind))
        except ArithmeticError as error:
            raise BudgetError(
                f"under {kind.value!r} at δ = {after.delta:g}, {error}. Choose another delta, and "
                "report this"
            ) from None


@lru_cache(maxsize=256)
def _together(spendings: tuple[Spending, ...], delta: float) -> PrivacySpent:
    """Compute joint spending, cached, as members of a committee have mostly spent the same."""
    return spent_together(spendings, delta=delta)

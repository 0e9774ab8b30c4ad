"""Comparing a run's ledger with its teachers' budgets, which should record the same rounds.

Before a round is asked, it is recorded first in the ledger and then in the budgets. If a budget has
a round that the ledger lacks, the line was therefore cut off the ledger, or a copy of the run asked
the round, and the run's certificate states too little. If the ledger has a round that a budget
lacks, the line was cut off the budget, or a crash came between the two, which ``--resume`` repairs.

Only budgets that mention the run and are reachable from here are compared: the one that the run's
settings name, those beside the teacher and its members, and those in the user's data directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpsd.errors import RunError
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.records.ledger import Ledger, described_event, reservation
from dpsd.privacy.records.teacher_budget import TeacherBudget, lacking, united
from dpsd.runs.budgets import files_that_record
from dpsd.runs.directory import RunDirectory


@dataclass(frozen=True)
class Reconciliation:
    """The result of a comparison.

    Args:
        files: the budgets that record the run.
        shortfalls: one sentence for each thing that budgets fail to record of the run.
    """

    files: tuple[Path, ...]
    shortfalls: tuple[str, ...]

    def describe(self) -> str:
        """Say in a sentence what was compared."""
        if not self.files:
            return (
                "the teacher's budget was not compared: no budget that records what the ledger "
                "does was found where the settings say that the budget and the teacher are"
            )
        others = f" and {len(self.files) - 1} others" if len(self.files) > 1 else ""
        return f"the ledger was compared with the teacher's budget {self.files[0]}{others}"


def reconcile(directory: RunDirectory) -> Reconciliation:
    """Compare a run's ledger with the budgets that are reachable from here.

    Raises:
        RunError: a budget is damaged, or records a round that the ledger does not.
    """
    config, run = directory.config(), directory.identity
    return compared(
        directory.ledger,
        run=run,
        teacher=str(directory.facts().get("teacher")),
        files=files_that_record(
            run, teacher=config.teacher.teacher, named=config.privacy.budget_file
        ),
    )


def compared(ledger: Ledger, *, run: str, teacher: str, files: Sequence[Path]) -> Reconciliation:
    """Compare a ledger with budgets.

    Args:
        ledger: the ledger.
        run: the identity under which budgets record what the ledger does.
        teacher: the fingerprint of the teacher, or of the committee.
        files: the budgets.

    Raises:
        RunError: a budget is damaged, or records a round that the ledger does not.
    """
    recorded = [(path, *of) for path in files for of in _by_teacher(path, run)]
    # Read last, as a run in progress writes its ledger before the budgets.
    entries = ledger.reservations() if ledger.is_begun() else []
    own = [{**entry, "run": run} for entry in entries]
    for _, _, entries in recorded:
        _refuse_more_than_ledger(ledger, own, entries)
    shortfalls = []
    teachers = {of for _, of, _ in recorded}
    if len(teachers) > 1:
        # An earlier version began the run and kept one account for the committee, which the
        # accounts of its members have replaced.
        teachers -= {teacher}
    for one in sorted(teachers):
        # A run may have been continued with another budget file, so all of them together count.
        about = [(path, entries) for path, of, entries in recorded if of == one]
        if missing := lacking(united(entries for _, entries in about), own):
            rounds = ", ".join(str(entry["round"]) for entry in missing)
            shortfalls.append(
                f"budget {about[0][0]} does not record all that ledger {ledger.path} "
                f"does (round {rounds}): lines of the budget were cut off or lost, or a crash came "
                "between the two, and the teacher has spent more than its budget says"
            )
    return Reconciliation(tuple(files), tuple(shortfalls))


def _by_teacher(path: Path, run: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """For each teacher that a run asked, its reservations in a budget, each with its line."""
    budget, found = TeacherBudget(path, teacher=""), dict[str, list[dict[str, Any]]]()
    for number, entry in enumerate(budget.lines(), start=1):
        if entry["entry"] == "reserve" and entry["run"] == run:
            line = entry | {"line": budget.line(number)}
            found.setdefault(entry["teacher"], []).append(line)
    return list(found.items())


def complete_budgets(directory: RunDirectory, accounts: Accounts) -> None:
    """Add to the budgets what the ledger records and they lack.

    A budget lacks lines if a crash came between the two, if the run began with another budget, or
    if it began before members of a committee had accounts of their own.

    Args:
        directory: the run directory, which this process has locked.
        accounts: the accounts of the run's teachers, which this process has locked too.
    """
    accounts.catch_up(
        directory.reservations(),
        run=directory.identity,
        directory=str(directory.path.absolute()),
    )


def complete_ledger(directory: RunDirectory, accounts: Accounts, *, mechanism: Mechanism) -> None:
    """Add to a run's ledger what the budgets record of the run and the ledger lacks.

    Args:
        directory: the run directory, which this process has locked; its ledger has been opened.
        accounts: the accounts of the run's teachers.
        mechanism: the run's calibrated mechanism. Entries with another cost are left out, as a
            ledger is about one mechanism; :func:`reconcile` reports them.
    """
    cost = described_event(mechanism.event())
    for entry in lacking(directory.reservations(), accounts.asked(directory.identity)):
        if entry["event"] == cost:
            again = reservation(
                round_index=entry["round"],
                answers=entry["answers"],
                mechanism=mechanism,
                teacher=str(directory.facts()["teacher"]),
                asking=entry.get("asking"),
            )
            directory.ledger.reserve(again)


def _refuse_more_than_ledger(
    ledger: Ledger, own: list[dict[str, Any]], recorded: list[dict[str, Any]]
) -> None:
    if extra := lacking(own, recorded):
        raise RunError(
            f"{extra[0]['line']}: records that this run asked round {extra[0]['round']} "
            f"({extra[0]['answers']} answers), but ledger {ledger.path} has no such line up to "
            f"its last, {len(ledger.entries())}: lines were cut off it, or a copy of the run asked."
            " More was spent than the ledger says: put the ledger back, or continue a run with "
            "--resume, which counts it"
        )

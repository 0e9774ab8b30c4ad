"""Whether a run's ledger and its teachers' budgets record the same of it.

Each round is written into the ledger first and into the budgets next, before it is asked. What a
budget has and the ledger has not was therefore cut off the ledger, or asked by a copy of the run,
and the run's certificate states too little. What the ledger has and a budget has not was cut off
the budget, or a crash came between the two, which ``--resume`` makes up for.

Only budgets that mention the run and can be seen from here are looked at: that which the run's
settings name, those beside the teacher and its members, and those under the user's data directory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpsd.errors import RunError
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.records.ledger import described_event, reservation
from dpsd.privacy.records.teacher_budget import TeacherBudget, lacking, united
from dpsd.runs.budgets import files_that_record
from dpsd.runs.directory import RunDirectory


@dataclass(frozen=True)
class Reconciliation:
    """What came of it.

    Args:
        files: budgets that record the run.
        shortfalls: what budgets do not record of it, a sentence each.
    """

    files: tuple[Path, ...]
    shortfalls: tuple[str, ...]

    def describe(self) -> str:
        """What was compared, in a sentence."""
        if not self.files:
            return (
                "the teacher's budget was not compared: none that records this run can be seen "
                "from here, where its settings say that the teacher is"
            )
        others = f" and {len(self.files) - 1} others" if len(self.files) > 1 else ""
        return f"the ledger was compared with the teacher's budget {self.files[0]}{others}"


def reconcile(directory: RunDirectory) -> Reconciliation:
    """Compare a run's ledger with the budgets that can be seen.

    Raises:
        RunError: a budget records a round that the ledger does not, or is damaged.
    """
    config, run = directory.config(), directory.identity
    files = files_that_record(run, teacher=config.teacher.teacher, named=config.privacy.budget_file)
    recorded = [(path, *of) for path in files for of in _by_teacher(path, run)]
    # Read last: of a run that goes on meanwhile, the ledger is written first.
    own = directory.reservations()
    for _, _, entries in recorded:
        _refuse_more_than_ledger(directory, own, entries)
    shortfalls = []
    teachers = {teacher for _, teacher, _ in recorded}
    if len(teachers) > 1:
        # Begun by an earlier dpsd, whose account of the committee gave way to those of its members.
        teachers -= {str(directory.facts().get("teacher"))}
    for teacher in sorted(teachers):
        # A run may have gone on with another file: what all of them record is what counts.
        about = [(path, entries) for path, of, entries in recorded if of == teacher]
        if missing := lacking(united(entries for _, entries in about), own):
            rounds = ", ".join(str(entry["round"]) for entry in missing)
            shortfalls.append(
                f"budget {about[0][0]} does not record all that ledger {directory.ledger.path} "
                f"does (round {rounds}): lines of it were cut off or lost, or a crash came between "
                "the two, and the teacher has spent more than it says"
            )
    return Reconciliation(tuple(files), tuple(shortfalls))


def _by_teacher(path: Path, run: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """A run's reservations in a budget, each with its line, for each teacher that it asked."""
    budget, found = TeacherBudget(path, teacher=""), dict[str, list[dict[str, Any]]]()
    for number, entry in enumerate(budget.lines(), start=1):
        if entry["entry"] == "reserve" and entry["run"] == run:
            line = entry | {"line": budget.line(number)}
            found.setdefault(entry["teacher"], []).append(line)
    return list(found.items())


def complete_budgets(directory: RunDirectory, accounts: Accounts) -> None:
    """Write what the ledger records into the budgets that do not have it.

    A crash may have come between the two, or the run began with another budget, or before members
    of a committee had accounts of their own.

    Args:
        directory: of the run, which this process holds.
        accounts: of its teachers, which it holds too.
    """
    accounts.catch_up(
        directory.reservations(),
        run=directory.identity,
        directory=str(directory.path.absolute()),
    )


def complete_ledger(directory: RunDirectory, accounts: Accounts, *, mechanism: Mechanism) -> None:
    """Write what the budgets record of a run into its ledger, where that does not have it.

    Args:
        directory: of the run, which this process holds; its ledger is begun.
        accounts: of its teachers.
        mechanism: the run's, calibrated. What has another cost is left out, as a ledger is about
            one mechanism; :func:`reconcile` tells of it.
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
    directory: RunDirectory, own: list[dict[str, Any]], recorded: list[dict[str, Any]]
) -> None:
    if extra := lacking(own, recorded):
        ledger = directory.ledger
        raise RunError(
            f"{extra[0]['line']}: records that this run asked round {extra[0]['round']} "
            f"({extra[0]['answers']} answers), and ledger {ledger.path} has no such line up to "
            f"its last, {len(ledger.entries())}: lines were cut off it, or a copy of the run asked."
            " The run spent more than the ledger says: put the ledger back, or go on with --resume,"
            " which counts it"
        )

"""Where a teacher's budget is kept.

A budget is kept beside its teacher, so that the two travel together: as ``budget.jsonl`` in the
teacher's directory, or as ``NAME.budget.jsonl`` beside its file. Where that place cannot be written
to, and for teachers without a file, the budget is kept under the user's data directory, named by
the teacher's content hash. All budgets found in these places count, and so does one in the same
folder that records the same content under another name of the teacher. A budget file that the user
names is kept in addition: what is recorded in it is also recorded in the usual one, whose cap would
otherwise miss it. The format is described in :mod:`dpsd.privacy.records.teacher_budget`.

Each member of a committee has a budget of its own. Earlier versions of dpsd kept one for a
committee as a whole, under a hash of its members' names; what such a budget in the members' folder
records counts for each of them.

>>> from dpsd.teachers import load_teacher
>>> from dpsd.models import build_classifier
>>> module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=0)
>>> teacher = load_teacher(module, input_shape=(1, 8, 8))
>>> budget_of(teacher, "spending.jsonl").path.name
'spending.jsonl'
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from platformdirs import user_data_path

from dpsd.privacy.records.accounts import Account, Accounts
from dpsd.privacy.records.teacher_budget import TeacherBudget
from dpsd.privacy.targets import Budget
from dpsd.storage.locks import exclusively
from dpsd.teachers import Teacher
from dpsd.teachers.kinds import BUDGET_FILE, place_of

#: Finds the teacher that a line is about, without validating a file that may be about others.
_TEACHER = re.compile(rb'"teacher": "([^"]+)"')


def budget_of(teacher: Teacher, *paths: str | Path | None) -> Accounts | None:
    """Return the accounts that a run against a teacher is charged to.

    Args:
        teacher: the teacher, or the ensemble of teachers, that the run asks.
        paths: budget files to use in addition to those in the usual places: the first is continued,
            or begun if it does not exist; further ones count if they exist.

    Returns:
        An account for each teacher that is identified by its content or has a named budget;
        ``None`` if there is no such teacher.

    Raises:
        RunError: a budget is damaged.
    """
    chosen = [Path(path).absolute() for path in paths if path is not None]
    named = chosen[:1] + [path for path in chosen[1:] if path.exists()]
    folders = _Folders()
    accounts, unknown = [], []
    for number, one in enumerate(teacher.charged, start=1):
        if places := list(dict.fromkeys([*named, *_usual(one, folders, begin=not named)])):
            accounts.append(
                Account(
                    [TeacherBudget(path, teacher=one.fingerprint) for path in places],
                    name=_name(one, number, of=len(teacher.charged)),
                    committees=_of_committees(one, teacher, named),
                    beside=_beside(one),
                )
            )
        else:
            unknown.append(one.description)
    return Accounts(accounts, unknown=unknown) if accounts else None


def count_uncounted(accounts: Accounts) -> None:
    """Count, from now on, what budgets beside the teachers record of earlier files there."""
    with ExitStack() as stack:
        for path in accounts.paths:
            stack.enter_context(exclusively(path))
        accounts.count_uncounted()


def set_cap(accounts: Accounts, cap: Budget | None, *, path: str | Path | None = None) -> None:
    """Record a cap; see :meth:`Accounts.set_cap`."""
    with ExitStack() as stack:
        for held in accounts.paths:
            stack.enter_context(exclusively(held))
        accounts.set_cap(cap, path=None if path is None else Path(path))


def files_that_record(run: str, *, teacher: str, named: str | None) -> list[Path]:
    """Return the budgets that mention a run, of those that are reachable from here.

    Args:
        run: the identity of the run.
        teacher: the location of the teacher, as given in the run's settings.
        named: the budget file that the settings name, if any.
    """
    place = place_of(teacher)
    seen = [] if named is None else [Path(named)]
    seen += _budgets_in(place if place.is_dir() else place.parent) if place.exists() else []
    if place.is_dir():  # it may hold several teachers
        seen += sorted(place.glob(f"*/{BUDGET_FILE}"))
    seen += _budgets_in(_own_folder())
    return [path for path in dict.fromkeys(map(Path.absolute, seen)) if run.encode() in _read(path)]


class _Folders:
    """Finds which budgets of a folder mention which teachers; reads each folder only once."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, list[Path]]] = {}

    def budgets(self, folder: Path, fingerprint: str) -> list[Path]:
        """The budgets in a folder that record a teacher."""
        if folder not in self._known:
            found: dict[str, list[Path]] = {}
            for path in _budgets_in(folder):
                for name in set(_TEACHER.findall(_read(path))):
                    found.setdefault(name.decode(errors="replace"), []).append(path)
            self._known[folder] = found
        return self._known[folder].get(fingerprint, [])


def _usual(teacher: Teacher, folders: _Folders, *, begin: bool) -> list[Path]:
    """The budgets in the usual places, or else the place where one is to begin."""
    beside, by_content = _beside(teacher), _by_content(teacher)
    # Every existing budget counts, writable or not: leaving one out would forget spent budget.
    there = [path for path in (beside, by_content) if path is not None and path.exists()]
    if beside is not None:
        there += folders.budgets(beside.parent, teacher.fingerprint)
    if there:
        return list(dict.fromkeys(there))
    if beside is not None and os.access(beside.parent, os.W_OK):
        return [beside]
    if by_content is None or not (begin or _can_be_made(by_content)):
        return []
    return [by_content]


def _beside(teacher: Teacher) -> Path | None:
    where = _place(teacher)
    if where is None:
        return None
    if where.is_dir():
        return where / BUDGET_FILE
    return where.with_name(f"{where.name}.{BUDGET_FILE}")


def _place(teacher: Teacher) -> Path | None:
    where = place_of(teacher.location) if teacher.location is not None else None
    return where if where is not None and where.exists() else None


def _by_content(teacher: Teacher) -> Path | None:
    kind, _, content = teacher.fingerprint.rpartition(":")
    is_hash = kind in ("sha256", "hmac-sha256")  # and not the name of a function or a service
    return _own_folder() / f"{content}.{BUDGET_FILE}" if is_hash else None


def _own_folder() -> Path:
    folder: Path = user_data_path("dpsd", appauthor=False) / "budgets"
    return folder


def _can_be_made(path: Path) -> bool:
    """Whether a file can be created at a path, together with its parent folders."""
    there = next(folder for folder in path.parents if folder.exists())
    return os.access(there, os.W_OK)


def _of_committees(one: Teacher, asked: Teacher, named: list[Path]) -> list[TeacherBudget]:
    """The budgets of earlier versions for committees that this teacher may have been in."""
    where, found = _place(one), []
    if one.members == 1 and where is not None and (where.parent / BUDGET_FILE).exists():
        path = where.parent / BUDGET_FILE
        members = {member.fingerprint for member in asked.charged}
        for fingerprint in _committees_in(path, with_caps_alone=len(members) > 1):
            if fingerprint not in members:
                found.append(TeacherBudget(path, teacher=fingerprint))
    if len(asked.charged) > 1:
        by_content = _by_content(asked)
        places = [*named, *([] if by_content is None else [by_content])]
        exact = [TeacherBudget(path, teacher=asked.fingerprint) for path in places]
        found += [budget for budget in exact if asked.fingerprint.encode() in _read(budget.path)]
    return found


def _committees_in(path: Path, *, with_caps_alone: bool) -> list[str]:
    """The hashes of committees in a folder's budget; all consisted of teachers in that folder.

    Where nothing was asked, it is unknown whom a cap was set for; if a committee is asked now, the
    cap is taken to be for a committee.
    """
    asked: dict[str, bool] = {}
    capped = []
    for entry in TeacherBudget(path, teacher="").lines():
        if entry["entry"] == "reserve":
            is_sum = "teachers" in entry["mechanism"] and entry["teacher"].startswith("sha256:")
            asked[entry["teacher"]] = is_sum
        elif entry["entry"] == "cap" and with_caps_alone:
            capped.append(entry["teacher"])
    found = [teacher for teacher, is_committee in asked.items() if is_committee]
    return list(dict.fromkeys([*found, *(teacher for teacher in capped if teacher not in asked)]))


def _name(teacher: Teacher, number: int, *, of: int) -> str:
    """The name of a teacher in messages."""
    if of == 1:
        return "the teacher"
    return f"teacher {teacher.location or f'{number} of {of} ({teacher.description})'}"


def _budgets_in(folder: Path) -> Iterator[Path]:
    return iter(sorted(path for path in folder.glob(f"*{BUDGET_FILE}") if path.is_file()))


def _read(path: Path) -> bytes:
    """The content of a file that may belong to somebody else; empty if it cannot be read."""
    try:
        return path.read_bytes() if path.is_file() else b""  # a pipe would never end
    except OSError:
        return b""

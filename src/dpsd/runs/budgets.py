"""Where a teacher's budget is kept.

Beside the teacher, so that it travels along: ``budget.jsonl`` in its directory, or
``NAME.budget.jsonl`` beside its file. Where that cannot be written, and for teachers that have no
file, under the user's data directory, by content hash. All that are there count, and so does one in
the same folder that records this very content, under whatever name the teacher had. A budget that
is named is kept besides: what goes into it goes into the usual one too, whose cap would otherwise
not know of it. The format is :mod:`dpsd.privacy.records.teacher_budget`'s.

Each member of a committee has its own. An earlier dpsd kept one for a committee as a whole, under a
hash of its members' names: what such a budget in the members' folder records counts for each of
them.

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
from dpsd.teachers.kinds import BUDGET_FILE

#: Whom a line is about, read without checking all of a file that may be about others.
_TEACHER = re.compile(rb'"teacher": "([^"]+)"')


def budget_of(teacher: Teacher, *paths: str | Path | None) -> Accounts | None:
    """The accounts that a run against a teacher is charged to.

    Args:
        teacher: whose.
        paths: of budgets that are kept besides those in the usual places: the first is gone on
            with, or begun; further ones count if they are there.

    Returns:
        An account for each teacher that has content to know it by, or a budget that was named;
        ``None`` where there is none.

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
    """Count, from now on, what the budgets beside teachers record of what was there before."""
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
    """Budgets that can be seen from here and that mention a run.

    Args:
        run: its identity.
        teacher: the teacher's place, as the run's settings have it.
        named: a budget that they name.
    """
    place = Path(teacher)
    seen = [] if named is None else [Path(named)]
    seen += _budgets_in(place if place.is_dir() else place.parent) if place.exists() else []
    if place.is_dir():  # it may hold several teachers
        seen += sorted(place.glob(f"*/{BUDGET_FILE}"))
    seen += _budgets_in(_own_folder())
    return [path for path in dict.fromkeys(map(Path.absolute, seen)) if run.encode() in _read(path)]


class _Folders:
    """Which budgets of a folder mention which teachers; a committee's folder is read once."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, list[Path]]] = {}

    def budgets(self, folder: Path, fingerprint: str) -> list[Path]:
        """Budgets in a folder that record a teacher."""
        if folder not in self._known:
            found: dict[str, list[Path]] = {}
            for path in _budgets_in(folder):
                for name in set(_TEACHER.findall(_read(path))):
                    found.setdefault(name.decode(errors="replace"), []).append(path)
            self._known[folder] = found
        return self._known[folder].get(fingerprint, [])


def _usual(teacher: Teacher, folders: _Folders, *, begin: bool) -> list[Path]:
    """The budgets in the usual places, or the place where one begins."""
    beside, by_content = _beside(teacher), _by_content(teacher)
    # All that are there, writable or not: without one of them, something spent would be forgotten.
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
    where = Path(teacher.location) if teacher.location is not None else None
    return where if where is not None and where.exists() else None


def _by_content(teacher: Teacher) -> Path | None:
    kind, _, content = teacher.fingerprint.rpartition(":")
    return _own_folder() / f"{content}.{BUDGET_FILE}" if kind.endswith("sha256") else None


def _own_folder() -> Path:
    folder: Path = user_data_path("dpsd", appauthor=False) / "budgets"
    return folder


def _can_be_made(path: Path) -> bool:
    """Whether a file can be made at a path, with the folders that lead to it."""
    there = next(folder for folder in path.parents if folder.exists())
    return os.access(there, os.W_OK)


def _of_committees(one: Teacher, asked: Teacher, named: list[Path]) -> list[TeacherBudget]:
    """Budgets that an earlier dpsd kept for committees that this teacher may have been in."""
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
    """Hashes of committees that a folder's budget records: all were of teachers in that folder.

    Whose a cap is cannot be told where nothing was asked; it is taken for one of a committee where
    a committee is asked.
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
    """How messages call a teacher."""
    if of == 1:
        return "the teacher"
    return f"teacher {teacher.location or f'{number} of {of} ({teacher.description})'}"


def _budgets_in(folder: Path) -> Iterator[Path]:
    return iter(sorted(path for path in folder.glob(f"*{BUDGET_FILE}") if path.is_file()))


def _read(path: Path) -> bytes:
    """What is in a file that may be another's: nothing, where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""

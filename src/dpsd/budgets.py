"""Where a teacher's budget is kept.

Beside the teacher, so that it travels along: ``budget.jsonl`` in its directory, or
``NAME.budget.jsonl`` beside its file. Where that cannot be written, and for teachers that have no
file, under the user's data directory, by content hash. One that is there already is gone on with,
wherever it is. The format is
:mod:`dpsd.privacy.teacher_budget`'s.

>>> from dpsd.teachers import load_teacher
>>> from dpsd.models import build_classifier
>>> module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=0)
>>> teacher = load_teacher(module, input_shape=(1, 8, 8))
>>> budget_of(teacher, "spending.jsonl").path.name
'spending.jsonl'
"""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_data_path

from dpsd.errors import BudgetError
from dpsd.privacy.teacher_budget import TeacherBudget
from dpsd.teachers import Teacher

BUDGET_FILE = "budget.jsonl"


def budget_of(teacher: Teacher, path: str | Path | None = None) -> TeacherBudget | None:
    """A teacher's budget; ``None`` where nothing tells the teacher from another.

    Args:
        teacher: whose.
        path: of the file, if it is not the usual one.

    Raises:
        BudgetError: there is one beside the teacher and one under the user's data directory.
    """
    chosen = Path(path).absolute() if path is not None else _usual_path(teacher)
    return None if chosen is None else TeacherBudget(chosen, teacher=teacher.fingerprint)


def _usual_path(teacher: Teacher) -> Path | None:
    beside, by_content = _beside(teacher), _by_content(teacher)
    # One that is there is the one, writable or not: another would forget what was spent.
    there = [path for path in (beside, by_content) if path is not None and path.exists()]
    if len(there) > 1:
        raise BudgetError(
            f"this teacher has two budgets, {there[0]} and {there[1]}, and what it spent is in "
            "both: name one with --budget-file, or move away the one that is not its"
        )
    if there:
        return there[0]
    return beside if beside is not None and os.access(beside.parent, os.W_OK) else by_content


def _beside(teacher: Teacher) -> Path | None:
    where = Path(teacher.location) if teacher.location is not None else None
    if where is None or not where.exists():
        return None
    if where.is_dir():
        return where / BUDGET_FILE
    return where.with_name(f"{where.name}.{BUDGET_FILE}")


def _by_content(teacher: Teacher) -> Path | None:
    kind, _, content = teacher.fingerprint.rpartition(":")
    # A committee without a place goes by names that last as long as the process.
    if not kind.endswith("sha256") or (teacher.location is None and teacher.members > 1):
        return None
    folder: Path = user_data_path("dpsd", appauthor=False) / "budgets"
    return folder / f"{content}.{BUDGET_FILE}"

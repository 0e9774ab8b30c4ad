"""Where a teacher's budget is kept.

Beside the teacher, so that it travels along: ``budget.jsonl`` in its directory, or
``NAME.budget.jsonl`` beside its file. Where that cannot be written, and for teachers that have no
file, under the user's data directory, by content hash. The format is
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

from dpsd.privacy.teacher_budget import TeacherBudget
from dpsd.teachers import Teacher

_NAME = "budget.jsonl"


def budget_of(teacher: Teacher, path: str | Path | None = None) -> TeacherBudget | None:
    """A teacher's budget; ``None`` where nothing tells the teacher from another.

    Args:
        teacher: whose.
        path: of the file, if it is not the usual one.
    """
    chosen = Path(path).absolute() if path is not None else _usual_path(teacher)
    return None if chosen is None else TeacherBudget(chosen, teacher=teacher.fingerprint)


def _usual_path(teacher: Teacher) -> Path | None:
    where = Path(teacher.location) if teacher.location is not None else None
    if where is not None and where.exists():
        beside = where / _NAME if where.is_dir() else where.with_name(f"{where.name}.{_NAME}")
        # One that is there is the one, writable or not: another would forget what was spent.
        if beside.exists() or os.access(beside.parent, os.W_OK):
            return beside
    kind, _, content = teacher.fingerprint.rpartition(":")
    # A committee without a place goes by names that last as long as the process.
    if not kind.endswith("sha256") or (where is None and teacher.members > 1):
        return None
    folder: Path = user_data_path("dpsd", appauthor=False) / "budgets"
    return folder / f"{content}.{_NAME}"

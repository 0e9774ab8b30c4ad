"""Which kind of teacher a path or a name stands for; nothing of it is loaded to know that.

>>> is_factory("package.module:factory"), is_factory("teacher.onnx")
(True, False)
"""

from __future__ import annotations

import re
from pathlib import Path

from dpsd.errors import TeacherError
from dpsd.teachers.record import DESCRIPTION_FILE, read_record

#: What a teacher can be, for messages.
KINDS = (
    "a directory that train-teacher wrote, a directory of several teachers, a .pt2 or .onnx file, "
    "or 'package.module:factory'"
)
#: Files of weights without the code that runs them.
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
#: Where a teacher's directory keeps what its runs have spent.
BUDGET_FILE = "budget.jsonl"

_LOADABLE = (".pt2", ".onnx")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_factory(source: str) -> bool:
    """Whether a name is that of a function in a module, and not of a file."""
    return _FACTORY.fullmatch(source) is not None and not Path(source).exists()


def is_ensemble(source: object) -> bool:
    """Whether a path holds several teachers; looks at descriptions and names, loads nothing.

    Raises:
        TeacherError: a description that is damaged.

    >>> is_ensemble("package.module:factory")
    False
    """
    if not isinstance(source, str | Path) or not Path(source).is_dir():
        return False
    if (Path(source) / DESCRIPTION_FILE).exists():
        return read_record(source).members > 1
    return bool(members_in(Path(source)))


def members_in(directory: Path) -> list[Path]:
    """The teachers in a directory of several, by name."""
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix in _LOADABLE or (path / DESCRIPTION_FILE).exists()
    )


def check_source(source: str | Path) -> None:
    """Refuse, by its name alone, what no teacher can be loaded from.

    Raises:
        TeacherError: nothing there, or something that is no teacher.

    >>> check_source("weights.safetensors")
    Traceback (most recent call last):
        ...
    dpsd.errors.TeacherError: there is no weights.safetensors: a teacher is a directory that ...
    """
    path = Path(source)
    if is_factory(str(source)):
        return
    if path.is_dir():
        if not members_in(path):
            read_record(path)
        return
    if not path.exists():
        raise TeacherError(f"there is no {path}: a teacher is {KINDS}")
    if path.suffix not in (*_LOADABLE, *WEIGHT_SUFFIXES):
        raise TeacherError(f"{path} is of no known kind: a teacher is {KINDS}")

"""Telling from a path or a name which kind of teacher it is, without loading anything.

>>> is_factory("package.module:factory"), is_factory("teacher.onnx")
(True, False)
"""

from __future__ import annotations

import re
from pathlib import Path

from dpsd.errors import TeacherError
from dpsd.teachers.address import ServiceAddress, is_service
from dpsd.teachers.record import DESCRIPTION_FILE, read_record

#: The kinds of teachers, for messages.
KINDS = (
    "a directory that train-teacher wrote, a directory of several teachers, a .pt2 or .onnx file, "
    "'package.module:factory', or the address of a service, https://HOST/v2/models/NAME"
)
#: The suffixes of files that hold weights without the code that runs them.
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
#: The file in a teacher's directory that records what its runs have spent.
BUDGET_FILE = "budget.jsonl"

_LOADABLE = (".pt2", ".onnx")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_factory(source: str) -> bool:
    """Return whether a name is that of a function in a module, and not of a file."""
    return _FACTORY.fullmatch(source) is not None and not Path(source).exists()


def is_ensemble(source: object) -> bool:
    """Return whether a path holds several teachers, from descriptions and names alone.

    Raises:
        TeacherError: a description is damaged.

    >>> is_ensemble("package.module:factory")
    False
    """
    if not isinstance(source, str | Path) or not Path(source).is_dir():
        return False
    if (Path(source) / DESCRIPTION_FILE).exists():
        return read_record(source).members > 1
    return bool(members_in(Path(source)))


def members_in(directory: Path) -> list[Path]:
    """Return the paths of the teachers in a directory of several, sorted by name."""
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix in _LOADABLE or (path / DESCRIPTION_FILE).exists()
    )


def check_source(source: str | Path, *, plain_http: bool = False) -> None:
    """Refuse, by its name alone, a source from which no teacher can be loaded.

    Args:
        source: a path, ``package.module:factory`` or the address of a service.
        plain_http: whether a service on another machine may be asked without encryption.

    Raises:
        TeacherError: there is nothing, or something that is not a teacher.

    >>> check_source("weights.safetensors")
    Traceback (most recent call last):
        ...
    dpsd.errors.TeacherError: there is no weights.safetensors: a teacher is a directory that ...
    """
    if isinstance(source, str) and is_service(source):
        ServiceAddress.of(source, plain_http=plain_http)
        return
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
        raise TeacherError(f"{path} is not of a known kind: a teacher is {KINDS}")

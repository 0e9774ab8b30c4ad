"""The kinds of attack on a run, and the names of what is attacked, without importing any attack.

>>> check_kinds("copies,membership")
('membership', 'copies')
>>> named_paths(["dp-sgd=models/one.pt2", "models/two.onnx"])
{'dp-sgd': 'models/one.pt2', 'two': 'models/two.onnx'}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dpsd.errors import ConfigError, Setting, UnknownNameError
from dpsd.runs.files import ATTACKS, CONFIG_FILE
from dpsd.teachers.kinds import check_source

KINDS = ATTACKS
#: The kind that can attack further models besides the run's own.
INVERSION = "inversion"
#: The public images that its attacker's prior is trained on by default: our own printed letters.
LETTERS = "letters"

#: The names of the models that every run has.
TEACHER, STUDENT = "teacher", "student"

#: ``NAME=PATH``, where no name contains what divides paths.
_NAMED = re.compile(r"([^/:=]*)=(.*)", re.DOTALL)
#: The suffixes of models' files, which are no part of their names.
_SUFFIXES = (".pt2", ".onnx", ".safetensors")
#: The most characters of a name.
_LONGEST = 60


def check_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds that a list with commas names, each once and in the order of ``KINDS``.

    Raises:
        UnknownNameError: there is no kind of that name.
        ConfigError: the list is empty.

    >>> check_kinds("inversoin")
    Traceback (most recent call last):
        ...
    dpsd.errors.UnknownNameError: unknown kind of attack 'inversoin': did you mean 'inversion'? ...
    """
    named = [name.strip() for name in text.split(",") if name.strip()]
    for name in named:
        if name not in KINDS:
            raise UnknownNameError("kind of attack", name, KINDS)
    if not named:
        raise ConfigError(Setting("kind"), f" is empty; give some of {','.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in named)


def named_paths(texts: Sequence[str]) -> dict[str, str]:
    """Return the paths of further models by name.

    Args:
        texts: ``NAME=PATH``, or a path alone, which is named by its file or folder.

    Raises:
        ConfigError: a name is taken, too long or cannot be shown.

    >>> named_paths(["student=runs/other"])
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: also: 'student=runs/other' is called 'student', as is a model of ...
    """
    found = dict[str, str]()
    for text in texts:
        match = None if Path(text).exists() else _NAMED.fullmatch(text)
        name, path = match.groups() if match else (_name_of(text), text)
        mend = "give it another name with "
        if name in (TEACHER, STUDENT):
            problem = f"is called {name!r}, as is a model of the run itself: "
        elif name in found:
            problem = f"is called {name!r}, as is {found[name]}: "
        elif not 0 < len(name) <= _LONGEST or not name.isprintable():
            problem = f"has no name of 1 to {_LONGEST} printable characters: "
        else:
            found[name] = path
            continue
        raise ConfigError(
            *(Setting("also"), f": {text!r} {problem}{mend}", Setting("also"), " NAME=PATH")
        )
    return found


def check_model(path: str) -> None:
    """Refuse, by its name alone, what is neither a run nor a model's file, folder or address.

    Raises:
        TeacherError: there is nothing, or something else.
    """
    if not (Path(path) / CONFIG_FILE).is_file():
        check_source(path)


def _name_of(path: str) -> str:
    name = (Path(path).resolve() if Path(path).exists() else Path(path)).name
    return next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), name)

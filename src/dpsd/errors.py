"""The errors that dpsd raises on purpose.

Every error that a user can cause and fix derives from :class:`DpsdError`; the command line prints
its message without a traceback and exits with the class's ``exit_code``. Messages name the
argument, the value and the fix. They never quote a teacher's raw answers.

>>> raise UnknownNameError("model", "resnet9", ["resnet8", "vgg11"])
Traceback (most recent call last):
    ...
dpsd.errors.UnknownNameError: unknown model 'resnet9': did you mean 'resnet8'? Known: resnet8, vgg11

A setting has one name in Python and another on the command line. A message therefore marks the
names of settings in it, and whoever shows the message spells them:

>>> error = ConfigError(Setting("top_k"), " must be at least 2, not 1")
>>> print(error)
top_k must be at least 2, not 1
>>> print(error.spelled(lambda name: "--" + name.replace("_", "-")))
--top-k must be at least 2, not 1
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class Setting(str):
    """The name of a setting in an error message, spelled as the keyword or field in Python."""

    __slots__ = ()


class DpsdError(Exception):
    """The base class of every error that a user can cause and fix.

    Args:
        parts: the message in pieces; each piece that is a :class:`Setting` names a setting.
    """

    exit_code = 1

    def __init__(self, *parts: str) -> None:
        super().__init__("".join(parts))
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors of other processes are raised again here, and pickle an exception's arguments.
        return type(self), self.parts

    def spelled(self, spell: Callable[[str], str]) -> str:
        """Return the message with every setting's name as ``spell`` writes it."""
        return "".join(spell(part) if isinstance(part, Setting) else part for part in self.parts)


class ConfigError(DpsdError, ValueError):
    """An argument or a configuration file asks for something that makes no sense."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """A name (of a model, data set, source, …) that dpsd does not know.

    Args:
        kind: what was looked up, for example ``"model"``.
        name: what the user asked for.
        known: the names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        self._arguments = kind, name, known
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}: {hint}Known: {', '.join(known)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments


class BudgetError(ConfigError):
    """A privacy target that is meaningless or cannot be met."""


class DataError(DpsdError):
    """A data set that is missing, truncated, or not in the format that it claims."""

    exit_code = 3


class MissingDataError(DataError):
    """A data set that does not exist at all."""


class TeacherError(DpsdError):
    """A teacher that cannot be loaded or asked."""

    exit_code = 4


class AnswerError(TeacherError):
    """A teacher answered with something that is not class scores for the batch it was shown."""


class RunError(DpsdError):
    """A run directory that is missing, damaged, or belongs to another run."""

    exit_code = 5


class WriteError(RunError):
    """A run's files could not be written; everything written before is intact."""

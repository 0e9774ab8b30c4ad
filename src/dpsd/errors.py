"""The errors that dpsd raises on purpose.

Everything a user can cause and mend derives from :class:`DpsdError`; the command line prints its
message without a traceback and exits with the class's ``exit_code``. Messages name the argument,
the value and the mend. They never quote a teacher's raw answers.

>>> raise UnknownNameError("model", "resnet9", ["resnet8", "vgg11"])
Traceback (most recent call last):
    ...
dpsd.errors.UnknownNameError: unknown model 'resnet9': did you mean 'resnet8'? Known: resnet8, vgg11

A setting has one name in Python and another on the command line, so a message that names one says
that it does, and whoever shows the message says how the name is spelled there:

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
    """The name of a setting in an error's message, as Python spells it: a keyword, a field."""

    __slots__ = ()


class DpsdError(Exception):
    """Base of every error that a user can cause and mend.

    Args:
        parts: the message, in pieces; those that are a :class:`Setting` name one.
    """

    exit_code = 1

    def __init__(self, *parts: str) -> None:
        super().__init__("".join(parts))
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        # Other processes raise it too, and an exception travels as its arguments.
        return type(self), self.parts

    def spelled(self, spell: Callable[[str], str]) -> str:
        """The message, with every setting as ``spell`` writes its name."""
        return "".join(spell(part) if isinstance(part, Setting) else part for part in self.parts)


class ConfigError(DpsdError, ValueError):
    """An argument or a configuration file asks for something that makes no sense."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """A name (of a model, data set, source, …) that dpsd does not know.

    Args:
        kind: what was looked up, for example ``"model"``.
        name: what the user asked for.
        known: the names there are.
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
    """A data set that is missing, truncated or not what its format says."""

    exit_code = 3


class MissingDataError(DataError):
    """A data set that is not there at all."""


class TeacherError(DpsdError):
    """A teacher that cannot be loaded or asked."""

    exit_code = 4


class AnswerError(TeacherError):
    """A teacher answered with something that is not class scores for the batch it was shown."""


class RunError(DpsdError):
    """A run directory that is missing, damaged, or belongs to another run."""

    exit_code = 5


class WriteError(RunError):
    """A run's files could not be written; what was written before is intact."""

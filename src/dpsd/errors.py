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
import errno
import re
from collections.abc import Callable, Iterable
from typing import Any

#: The numbers of the errors that mean that a disk, or the user's share of it, is full.
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
#: How safetensors, whose errors are not the system's, quotes the number of an error of the system.
_QUOTED_NUMBER = re.compile(r"\b(?:os error|code:) (\d+)")


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
        hint = f": did you mean {near[0]!r}? Known: " if near else "; known: "
        super().__init__(f"unknown {kind} {name!r}{hint}{', '.join(known)}")

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


class DiskFullError(WriteError):
    """A disk, or the user's share of it, is full; everything written before is intact."""

    exit_code = 6


def is_full(error: BaseException) -> bool:
    """Return whether an error of writing means that the disk, or the user's share of it, is full.

    >>> is_full(OSError(errno.ENOSPC, "No space left on device")), is_full(OSError("it is odd"))
    (True, False)
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    quoted = _QUOTED_NUMBER.search(str(error))
    return quoted is not None and int(quoted[1]) in _FULL


def reason(error: BaseException) -> str:
    """Return why something failed, without the path and the number that ``str`` adds.

    >>> reason(PermissionError(errno.EACCES, "Permission denied", "runs/digits"))
    'Permission denied'
    """
    return (isinstance(error, OSError) and error.strerror) or str(error)


def unwritable(
    error: BaseException,
    what: str,
    *,
    mend: str,
    after: str = "",
    kind: type[DpsdError] = WriteError,
) -> DpsdError:
    """Return the error to raise where a file or folder could not be written.

    Args:
        error: the error of the system.
        what: what could not be done, with the path.
        mend: what the user can do about it, unless the disk is full.
        after: what else there is to say.
        kind: the class of the error, unless the disk is full.

    >>> full = OSError(errno.ENOSPC, "No space left on device")
    >>> unwritable(full, "cannot write note.txt", mend="give another path")
    DiskFullError('cannot write note.txt: No space left on device; free some space')
    """
    mend = "free some space" if is_full(error) else mend
    return (DiskFullError if is_full(error) else kind)(f"{what}: {reason(error)}; {mend}{after}")

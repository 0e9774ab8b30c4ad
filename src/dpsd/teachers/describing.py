"""What is said of an error that a teacher's own code raised.

About public noise, everything may be said. About the queries of a run, the message is withheld, as
it may quote answers; the kind of the error and the line of the user's file are shown.

>>> try:
...     torch.zeros(2).view(3)
... except RuntimeError as error:
...     described(error)
('raised RuntimeError (its message is withheld: it may quote answers)',)
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

import torch

import dpsd
from dpsd.privacy.answers import AnswerCheckError
from dpsd.teachers.failures import RequestFailure

#: The most characters of a teacher's own message that are quoted.
_LONGEST_MESSAGE = 300

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

_LIBRARIES = tuple(
    str(Path(folder).resolve())
    for folder in {
        *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
        *(str(Path(package.__file__ or "").parent) for package in (dpsd, torch)),
    }
)


def described(error: BaseException, *, is_public: bool = False) -> tuple[str, ...]:
    """Say what went wrong, as parts of a line; with the own message if images were public.

    >>> described(ValueError("expected 3 channels,\\n got 1"), is_public=True)
    ('raised ValueError: expected 3 channels, got 1',)
    """
    if isinstance(error, AnswerCheckError):
        return (f"returned {error if is_public else error.problem}",)
    if type(error) is RequestFailure:
        return error.seen if is_public else error.withheld
    where = place_of(error)
    if not is_public:
        # The name of a custom exception type may be a message, too.
        kinds = (kind for kind in type(error).__mro__ if kind.__module__ in ("builtins", "torch"))
        at = f"at {where}; " if where else ""
        kind = next(kinds).__name__
        return (f"raised {kind} ({at}its message is withheld: it may quote answers)",)
    message = _plain(str(error))[:_LONGEST_MESSAGE]
    at = f" (at {where})" if where else ""
    return (f"raised {type(error).__name__}{f': {message}' if message else ''}{at}",)


def _plain(text: str) -> str:
    """Return text in one line, without colours and other signs that a terminal would obey.

    >>> _plain("\\x1b[1mInput 0\\x1b[0m\\nis wrong\\x07")
    'Input 0 is wrong'
    """
    spaced = " ".join(_COLOURS.sub("", text).split())
    return "".join(sign for sign in spaced if sign.isprintable())


def place_of(error: BaseException) -> str | None:
    """Return the last line of the user's own code that an error passed through, if there is one."""
    own = [frame for frame in _frames(error) if not _is_library(frame.filename)]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}, in {own[-1].name}" if own else None


def frames_of(error: BaseException) -> str:
    """Return where an error was raised, call by call, without messages, values or source lines."""
    lines = [f'  File "{f.filename}", line {f.lineno}, in {f.name}' for f in _frames(error)]
    return "\n".join(["The teacher's calls, the last one last:", *lines])


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    # Source lines and local variables are not looked up: only where the code is, is needed.
    walked = traceback.walk_tb(error.__traceback__)
    return list(traceback.StackSummary.extract(walked, lookup_lines=False))


def _is_library(file: str) -> bool:
    return file.startswith("<") or str(Path(file).resolve()).startswith(_LIBRARIES)

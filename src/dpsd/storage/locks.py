"""One process at a time on a run, and on a teacher's budget.

Two processes that play the same run would ask the teacher twice and account for it once. What is
locked is the file that they would both write, a ledger or a budget, and no file beside it: a lock
file that somebody deletes lets the next process in, and a ledger that somebody deletes is a run
that is gone. ``filelock`` empties the files that it locks, hence the few lines below. The operating
system drops a lock when its holder dies, however it dies, so nothing is ever left locked.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     file = Path(folder) / "ledger.jsonl"
...     with exclusively(file), exclusively(file):
...         pass
Traceback (most recent call last):
    ...
dpsd.errors.RunError: ... is in use by process ... on ...; wait until it ends, or stop it
"""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dpsd.errors import RunError
from dpsd.storage.files import write_text

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Who holds a file is told in another one beside it, which only messages rely on.
HOLDER_FILE = ".holder.json"

#: Windows keeps everyone out of the bytes that are locked, so they lie where no file reaches.
_FAR = 1 << 40

#: A file may go between being opened and being locked, when its holder wrote nothing; not often.
_ATTEMPTS = 100


class Hold:
    """A file that this process holds.

    Args:
        path: of the file.
        descriptor: of the open file, which carries the lock.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def require(self) -> None:
        """Make sure that the file is still the one that is held.

        Raises:
            RunError: it was removed, or replaced by another file, which nobody holds.
        """
        if not self.is_current():
            raise RunError(
                f"{self.path} was removed or replaced while this process was using it, so another "
                "process may be using the new one: put the file back, and continue with --resume"
            )

    def is_current(self) -> bool:
        """Whether the path still leads to the file that is held."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False


@contextmanager
def exclusively(path: Path, *, name: Path | None = None) -> Iterator[Hold]:
    """Hold a file for this process; one that nobody wrote to is gone again afterwards.

    Args:
        path: of the file; made, empty, if it is not there.
        name: what messages call it, where it stands for something larger.

    Raises:
        RunError: another process holds it, or it cannot be written to.
    """
    path = path.resolve()  # by whatever name it goes
    name = name or path
    holder_file = path.with_name(f".{path.name}{HOLDER_FILE}")
    try:
        hold, descriptor = _held(path)
    except _TakenError:
        raise RunError(
            f"{name} is in use by {_holder(holder_file)}; wait until it ends, or stop it"
        ) from None
    except OSError as error:
        raise RunError(
            f"{path} cannot be locked ({error.strerror}), and what runs write down goes there: "
            "make it writable, on a file system that can lock files"
        ) from None
    try:
        holder = {"host": platform.node(), "pid": os.getpid()}
        write_text(holder_file, json.dumps(holder) + "\n")
        yield hold
    finally:
        # Still locked: whoever opened the file meanwhile finds that it is not the path's any more.
        with suppress(OSError):
            holder_file.unlink(missing_ok=True)
            if hold.is_current() and not os.fstat(descriptor).st_size:
                path.unlink()
        os.close(descriptor)


class _TakenError(Exception):
    """Another process holds the lock."""


def _held(path: Path) -> tuple[Hold, int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_ATTEMPTS):
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags, 0o666)
        try:
            _lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        hold = Hold(path, descriptor)
        if hold.is_current():
            return hold, descriptor
        os.close(descriptor)  # removed between the two: lock the file that is there now
    raise OSError(errno.ESTALE, "it is replaced again and again")


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        try:
            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise _TakenError from None
    else:
        try:
            # Of the open file and not of the process, which opens and closes the file meanwhile.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _TakenError from None


def _holder(holder_file: Path) -> str:
    try:
        holder = json.loads(holder_file.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"

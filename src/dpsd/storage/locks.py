"""Locks that allow only one process at a time on a run, and on a teacher's budget.

Two processes that execute the same run would ask the teacher twice and account for it once. The
lock is on the file that both would write, a ledger or a budget, and not on a file beside it: if
somebody deletes a lock file, the next process gets in, but if somebody deletes a ledger, the run is
gone. ``filelock`` empties the files that it locks, hence the few lines below. The operating system
drops a lock when its holder dies, however it dies, so nothing is ever left locked.

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
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dpsd.errors import RunError, unwritable
from dpsd.storage.files import write_text

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: The suffix of a file that says who holds the lock, which only messages rely on.
HOLDER_FILE = ".holder.json"

#: The position of the locked byte; Windows denies all access to it, so no file extends that far.
_FAR = 1 << 40

#: The number of attempts to lock a file, which its holder may remove between opening and locking.
_ATTEMPTS = 100

#: How long to wait before trying again to lock a file that another process holds, in seconds.
_PAUSE = 0.05


class Hold:
    """A file that this process has locked.

    Args:
        path: the path of the file.
        descriptor: the descriptor of the open file, which carries the lock.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def require(self) -> None:
        """Make sure that the path still leads to the locked file.

        Raises:
            RunError: the file was removed, or replaced by another one, which is not locked.
        """
        if not self.is_current():
            raise RunError(
                f"{self.path} was removed or replaced while this process was using it, so another "
                "process may be using the new one: put the file back, and continue with --resume"
            )

    def is_current(self) -> bool:
        """Return whether the path still leads to the locked file."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False


@contextmanager
def exclusively(path: Path, *, name: Path | None = None, patience: float = 0.0) -> Iterator[Hold]:
    """Lock a file for this process, and remove it at the end if it is still empty.

    Args:
        path: the path of the file, which is created empty if it does not exist.
        name: the name in messages, if the file stands for something larger.
        patience: how long to wait for another process that has locked the file, in seconds; by
            default, not at all.

    Raises:
        RunError: another process has locked the file, or it cannot be written to.
    """
    path = path.resolve()  # the same file may have several names
    name = name or path
    holder_file = path.with_name(f".{path.name}{HOLDER_FILE}")
    try:
        hold, descriptor = _held_within(path, patience)
    except _TakenError:
        raise RunError(
            f"{name} is in use by {_holder(holder_file)}; wait until it ends, or stop it"
        ) from None
    except OSError as error:
        raise unwritable(
            error,
            f"{path} cannot be locked, and runs must record what they ask in it",
            mend="make it writable, on a file system that can lock files",
            kind=RunError,
        ) from None
    try:
        holder = {"host": platform.node(), "pid": os.getpid()}
        write_text(holder_file, json.dumps(holder) + "\n")
        yield hold
    finally:
        # Removed while still locked, so that a process that opened the file meanwhile finds that
        # the path no longer leads to it.
        with suppress(OSError):
            holder_file.unlink(missing_ok=True)
            if hold.is_current() and not os.fstat(descriptor).st_size:
                path.unlink()
        os.close(descriptor)


def is_held_here(path: Path) -> bool | None:
    """Return whether a process of this machine holds the lock on a file, without touching the lock.

    What a holder wrote about itself is read, so a new holder counts a moment after it has locked
    the file. A container numbers its processes itself: seen from another one with the same host
    name, a holder may seem to be gone, or one that is gone may seem to be there.

    Args:
        path: the path of the file.

    Returns:
        Whether it does; ``None`` if that cannot be known from here: a process on another machine
        wrote that it holds the file, what was written cannot be read or names no process, or this
        system does not tell which processes there are.
    """
    path = path.resolve()
    holder_file = path.with_name(f".{path.name}{HOLDER_FILE}")
    try:
        holder = json.loads(holder_file.read_text(encoding="utf-8"))
        host, process = holder["host"], int(holder["pid"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    # A number of 0 or below would stand for a group of processes.
    if host != platform.node() or process <= 0 or sys.platform == "win32":
        return None
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OverflowError:  # no process has such a number
        return None
    except PermissionError:
        return True
    return True


class _TakenError(Exception):
    """An error that another process holds the lock."""


def _held_within(path: Path, patience: float) -> tuple[Hold, int]:
    end = time.monotonic() + patience
    while True:
        try:
            return _held(path)
        except _TakenError:
            if time.monotonic() >= end:
                raise
        time.sleep(_PAUSE)


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
        os.close(descriptor)  # removed between opening and locking: lock the file that is there now
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
            # The lock belongs to the open file, not to the process, which opens and closes the file
            # meanwhile.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _TakenError from None


def _holder(holder_file: Path) -> str:
    try:
        holder = json.loads(holder_file.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"

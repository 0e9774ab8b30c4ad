"""One process at a time on a run.

Two processes that play the same run would ask the teacher twice and account for it once. The
operating system drops a lock when its holder dies, however it dies, so nothing is ever left locked.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder, exclusively(Path(folder)):
...     with exclusively(Path(folder)):
...         pass
Traceback (most recent call last):
    ...
dpsd.errors.RunError: ... is in use by process ... on ...; wait until it ends, or stop it
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dpsd.errors import RunError
from dpsd.files import write_text

LOCK_FILE = ".lock"
HOLDER_FILE = ".holder.json"


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Hold a directory, or a file, for this process.

    Raises:
        RunError: another process holds it, or it cannot be written to.
    """
    # In a directory; beside a file, and named after it.
    path = path.resolve()  # by whatever name it goes
    lock_file, holder_file = (
        path / name if path.is_dir() else path.with_name(f".{path.name}{name}")
        for name in (LOCK_FILE, HOLDER_FILE)
    )
    lock = FileLock(lock_file, is_singleton=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"{path} is in use by {_holder(holder_file)}; wait until it ends, or stop it"
        ) from None
    except OSError as error:
        raise RunError(
            f"{path} cannot be locked ({error.strerror}), and what runs write down goes there: "
            "make it writable"
        ) from None
    try:
        holder = {"host": platform.node(), "pid": os.getpid()}
        write_text(holder_file, json.dumps(holder) + "\n")
        yield
    finally:
        holder_file.unlink(missing_ok=True)
        lock.release()


def _holder(holder_file: Path) -> str:
    try:
        holder = json.loads(holder_file.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"

"""The time that an attack took, with that of its earlier attempts, whose results it goes on with.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     for _ in range(2):
...         with timed(Path(folder) / "seconds.json", key="a") as seconds:
...             time.sleep(0.02)
...     seconds() >= 0.04
True
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dpsd.errors import RunError, WriteError
from dpsd.storage.files import read_json, write_text


@contextmanager
def timed(path: Path, *, key: str) -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds so far, and keep them at the end, however it ends.

    Args:
        path: the file in which they are kept.
        key: what is timed; the seconds of another key count as none.

    Raises:
        WriteError: the file cannot be written, and nothing else failed.
    """
    before, started = _kept(path, key), time.monotonic()

    def seconds() -> float:
        return before + time.monotonic() - started

    def keep() -> None:
        write_text(path, json.dumps({"key": key, "seconds": round(seconds(), 2)}) + "\n")

    try:
        yield seconds
    except BaseException:
        with suppress(WriteError):  # why it ended matters more than how long it took
            keep()
        raise
    keep()


def _kept(path: Path, key: str) -> float:
    try:
        found = read_json(path)
    except RunError:  # there is none yet, or it is damaged
        return 0.0
    seconds = found.get("seconds")
    if found.get("key") != key or not isinstance(seconds, float) or not math.isfinite(seconds):
        return 0.0
    return max(0.0, seconds)

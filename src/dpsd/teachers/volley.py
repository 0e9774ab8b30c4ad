"""Doing several things at once that mostly wait, with results in order.

>>> import threading
>>> volley([lambda: "a", lambda: "b", lambda: "c"], threads=2, stop=threading.Event())
['a', 'b', 'c']
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")

#: The first part of the names of the threads, by which their log records are recognised.
THREADS = "dpsd-volley"


def volley(
    tasks: Sequence[Callable[[], T]],
    *,
    threads: int,
    stop: threading.Event,
    seconds: float | None = None,
) -> list[T]:
    """Do all tasks in threads of their own, and return the results in order.

    After a failure, an interruption or the end, ``stop`` is set, no further task begins, and
    nothing waits for tasks under way. Such tasks cannot hold the program up either, which is why
    this is not a ``ThreadPoolExecutor``: Python waits for the threads of one before it exits.

    Args:
        tasks: what to do; each should end soon after ``stop`` is set.
        threads: the most tasks under way at once.
        stop: is set when no more is to be done.
        seconds: the most seconds to wait; ``None`` is no limit.

    Raises:
        TimeoutError: not all was done in time.
        BaseException: whatever a task raised first.
    """
    found: dict[int, T] = {}
    left = iter(range(len(tasks)))
    lock = threading.Lock()
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def work() -> None:
        while not stop.is_set():
            with lock:
                number = next(left, None)
            if number is None:
                return
            try:
                found[number] = tasks[number]()
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                ended.put(error)
                return
            ended.put(None)

    for number in range(min(threads, len(tasks))):
        threading.Thread(target=work, name=f"{THREADS}-{number}", daemon=True).start()
    until = None if seconds is None else time.monotonic() + seconds
    try:
        for _ in tasks:
            error = _next(ended, until)
            if error is not None:
                raise error
    finally:
        stop.set()
    return [found[number] for number in range(len(tasks))]


def _next(ended: SimpleQueue[BaseException | None], until: float | None) -> BaseException | None:
    try:
        return ended.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
    except Empty:
        raise TimeoutError from None

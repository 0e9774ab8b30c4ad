"""Work in a process of its own: memory is a process's, and nothing is left behind for the next.

>>> import os
>>> in_a_process(os.getpid) == os.getpid()
False
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import ParamSpec, TypeVar

from dpsd.errors import RunError

#: Seconds that a process whose parent has ended may take to clean up.
_CLEANING_UP = 10.0

#: In the process of a pool: whether it computes, and whether it was told to end.
_working, _ending = threading.Event(), threading.Event()

P = ParamSpec("P")
T = TypeVar("T")


def in_a_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``function`` returns, from a fresh process that ends with this one, however that ends.

    Args:
        function: can be pickled, as can its arguments and result.
        *args: its arguments.
        **kwargs: those given by name.

    Raises:
        RunError: the process was killed, as it is where memory runs out.
    """
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            return pool.submit(_at_work, partial(function, *args, **kwargs)).result()
        except BrokenProcessPool:
            raise RunError("its process was killed; most likely memory ran out") from None
        except KeyboardInterrupt:  # which the other waits to be told of
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
            raise


def _end_with_parent() -> None:
    """End when the parent says so or ends, and clean up: temporary folders may hold gigabytes."""
    # A terminal's Ctrl-C reaches both. Were it heard twice, the second would stop the cleaning up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _at_work(work: Callable[[], T]) -> T:
    """What ``work`` returns; while it lasts, a signal to end interrupts it."""
    _working.set()
    try:
        return work()
    finally:
        _working.clear()


def _end(*_: object) -> None:
    if not _working.is_set():  # the pool waits, or imports: nothing is to be cleaned up
        os._exit(1)
    # The signal may come twice: from whoever ends a group of processes, and from `in_a_process`.
    if not _ending.is_set():
        _ending.set()
        raise KeyboardInterrupt


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)  # heard by the main thread, even as it sleeps
    time.sleep(_CLEANING_UP)
    os._exit(1)  # nobody waits any more for what is computed here

"""Work in a process of its own: memory is a process's, and nothing is left behind for the next.

>>> import os
>>> in_a_process(os.getpid) == os.getpid()
False
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from dpsd.errors import RunError

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
    with ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            raise RunError("its process was killed; most likely memory ran out") from None
        except KeyboardInterrupt:  # that the other has not heard of, if sent to this one alone
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _end_with_parent() -> None:
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    """Nobody waits any more for what is computed here."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

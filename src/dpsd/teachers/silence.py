"""Suppressing a teacher's output while it is asked, as anything it prints might be an answer.

A teacher is foreign code. It may print, warn, log, or be a C++ library that writes to the standard
streams itself. :func:`silenced` drops all of that. Output that must be seen meanwhile, such as a
progress bar that another thread draws, goes to a stream from :func:`spared`.

>>> with silenced():
...     print("class 3 has probability 0.73")
>>> print("shown again")
shown again

Standard streams are redirected at two levels: as Python's ``sys.stdout`` and ``sys.stderr``, which
may not be files at all (in a notebook or a test), and as descriptors 1 and 2, which are used by
other languages, by processes that the teacher starts, and by code that kept an earlier
``sys.stderr``. Both affect the whole process: other threads are silenced too while a teacher is
asked. Silencing the asking thread alone would let through what a teacher prints in its own threads.

Some output cannot be stopped from here: files that a teacher writes, processes that it started
before it was asked, streams that are not files and that it kept from before, and anything that it
stores to print later.
"""

from __future__ import annotations

import ctypes
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from typing import IO, Any

import numpy as np
import torch

_STREAMS = ("stdout", "stderr")


class _Silence:
    """Counts the requests for silence: the first one begins it, and the last one ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking = 0
        self._end = ExitStack()

    def begin(self) -> None:
        with self._lock:
            if self._asking == 0:
                with ExitStack() as stack:
                    # Descriptors are redirected first and so restored last: while the other streams
                    # are restored, what they have buffered is still dropped.
                    for part in (_descriptors, _python_streams, _warnings, _log_records):
                        stack.enter_context(part())
                    self._end = stack.pop_all()
            self._asking += 1

    def end(self) -> None:
        with self._lock:
            self._asking -= 1
            if self._asking == 0:
                self._end.close()


_SILENCE = _Silence()


@contextmanager
def silenced() -> Iterator[None]:
    """Drop everything printed, warned of or logged meanwhile, in all threads of this process."""
    _SILENCE.begin()
    try:
        yield
    finally:
        _SILENCE.end()


@contextmanager
def spared(stream: IO[str]) -> Iterator[IO[str]]:
    """Yield a copy of ``stream`` that is not silenced, and close it at the end.

    Args:
        stream: a stream such as ``sys.stderr``. One that is not a file is yielded itself, as
            replacing ``sys.stderr`` does not affect code that holds it.
    """
    try:
        copy = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):
        yield stream
        return
    encoding, errors = getattr(stream, "encoding", None), getattr(stream, "errors", None)
    errors = "backslashreplace" if errors in (None, "strict") else errors
    with os.fdopen(copy, "w", encoding=encoding, errors=errors) as found:
        yield found


@contextmanager
def _descriptors() -> Iterator[None]:
    """Redirect descriptors 1 and 2 to nowhere."""
    _flush()  # earlier output must not be lost
    with ExitStack() as stack:
        kept: dict[int, int] = {}
        for descriptor in (1, 2):
            with suppress(OSError):  # the process may have closed it
                kept[descriptor] = os.dup(descriptor)
                stack.callback(os.close, kept[descriptor])
        try:
            for descriptor in kept:
                os.dup2(_nowhere().fileno(), descriptor)
            yield
        finally:
            _flush()  # output that a library has buffered is dropped with the rest
            for descriptor, copy in kept.items():
                os.dup2(copy, descriptor)


@contextmanager
def _python_streams() -> Iterator[None]:
    """Redirect ``sys.stdout`` and ``sys.stderr`` to nowhere."""
    kept = {name: getattr(sys, name) for name in _STREAMS}
    try:
        for name in kept:
            setattr(sys, name, _nowhere())
        yield
    finally:
        for name, stream in kept.items():
            setattr(sys, name, stream)


@contextmanager
def _warnings() -> Iterator[None]:
    """Let warnings be raised as usual, but do not show them."""
    # No filter is used, as changing filters makes Python forget which warnings it has shown.
    kept = warnings.showwarning
    try:
        warnings.showwarning = _unheard
        yield
    finally:
        warnings.showwarning = kept


@contextmanager
def _log_records() -> Iterator[None]:
    """Keep all loggers from passing records on, wherever their handlers write."""
    kept = logging.root.manager.disable
    try:
        logging.disable(sys.maxsize)
        yield
    finally:
        logging.disable(kept)


def _unheard(*_: Any, **__: Any) -> None:
    pass


@lru_cache(maxsize=1)
def _nowhere() -> IO[str]:
    """Return a stream that drops everything, and is never closed, as a teacher may keep it."""
    return os.fdopen(
        os.open(os.devnull, os.O_WRONLY),
        "w",
        encoding="utf-8",
        errors="backslashreplace",
        closefd=False,
    )


def _flush() -> None:
    """Write out what Python's streams and the C library have buffered."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()  # type: ignore[union-attr]
    _flush_c(None)


def _c_flush() -> Callable[[None], object]:
    try:
        return ctypes.CDLL(None).fflush
    except (OSError, TypeError, AttributeError):  # some systems do not provide it like this
        return _unheard


_flush_c = _c_flush()


@contextmanager
def untouched_generators() -> Iterator[None]:
    """Restore the global random generators of Python, NumPy and torch at the end.

    Otherwise, a teacher that draws more or fewer numbers depending on its input would affect what
    is drawn after it, such as a student's dropout.
    """
    has_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if has_cuda else []
    own, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(own)
            np.random.set_state(numpys)

"""Silence while a teacher is asked: whatever it says in words might be an answer.

A teacher is foreign code. It may print, warn, log, or be a C++ library that writes to the standard
streams itself. :func:`silenced` drops all of that; what has to be seen meanwhile, such as a
progress bar that another thread draws, is written to a stream that is :func:`spared`.

>>> with silenced():
...     print("class 3 has probability 0.73")
>>> print("heard again")
heard again

Standard streams are exchanged twice: as Python's ``sys.stdout`` and ``sys.stderr``, which may be no
files at all (in a notebook, in a test), and as the descriptors 1 and 2, to which other languages,
processes that the teacher starts, and whoever kept an earlier ``sys.stderr`` write. All of it
concerns the whole process: other threads are silent too while a teacher is asked. A narrower
silence, of the asking thread alone, would let through what a teacher says in threads of its own.

What cannot be stopped from here: files that a teacher writes, processes that it started before it
was asked, streams that are no files and that it kept from before, and what it keeps to say later.
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
    """Counts who asks for silence: the first makes it, the last ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking = 0
        self._end = ExitStack()

    def begin(self) -> None:
        with self._lock:
            if self._asking == 0:
                with ExitStack() as stack:
                    # Descriptors first, and so last to be restored: as the other streams are
                    # exchanged back, what they hold is still written to nowhere.
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
    """Drop all that is printed, warned of or logged meanwhile, in all threads of this process."""
    _SILENCE.begin()
    try:
        yield
    finally:
        _SILENCE.end()


@contextmanager
def spared(stream: IO[str]) -> Iterator[IO[str]]:
    """A stream to where ``stream`` leads, which no silence stops; closed at the end.

    Args:
        stream: such as ``sys.stderr``. One that is no file is spared as it is: who holds it is
            not affected when ``sys.stderr`` is exchanged.
    """
    try:
        copy = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):
        yield stream
        return
    encoding = getattr(stream, "encoding", None)
    with os.fdopen(copy, "w", encoding=encoding, errors="backslashreplace") as found:
        yield found


@contextmanager
def _descriptors() -> Iterator[None]:
    """Descriptors 1 and 2 lead nowhere."""
    _flush()  # what was said before is not to be lost
    with ExitStack() as stack:
        kept: dict[int, int] = {}
        for descriptor in (1, 2):
            with suppress(OSError):  # a process may have closed its own
                kept[descriptor] = os.dup(descriptor)
                stack.callback(os.close, kept[descriptor])
        try:
            for descriptor in kept:
                os.dup2(_nowhere().fileno(), descriptor)
            yield
        finally:
            _flush()  # what a library holds back of its words goes nowhere with the rest
            for descriptor, copy in kept.items():
                os.dup2(copy, descriptor)


@contextmanager
def _python_streams() -> Iterator[None]:
    """``sys.stdout`` and ``sys.stderr`` lead nowhere."""
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
    """Warnings are raised as ever, and shown to nobody."""
    # Not by a filter: to change filters makes Python forget which warnings it has shown.
    kept = warnings.showwarning
    try:
        warnings.showwarning = _unheard
        yield
    finally:
        warnings.showwarning = kept


@contextmanager
def _log_records() -> Iterator[None]:
    """No logger passes a record on, wherever its handlers write."""
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
    """A stream that keeps nothing. Never closed: a teacher may hold on to it."""
    return os.fdopen(
        os.open(os.devnull, os.O_WRONLY),
        "w",
        encoding="utf-8",
        errors="backslashreplace",
        closefd=False,
    )


def _flush() -> None:
    """Write out what Python's streams and the C library hold back."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()  # type: ignore[union-attr]
    _flush_c(None)


def _c_flush() -> Callable[[None], object]:
    try:
        return ctypes.CDLL(None).fflush
    except (OSError, TypeError, AttributeError):  # not on every system is it found like this
        return _unheard


_flush_c = _c_flush()


@contextmanager
def untouched_generators() -> Iterator[None]:
    """Leave the global random generators of Python, NumPy and torch as they are found.

    A teacher that draws from them, more or fewer numbers by what it sees, would otherwise show in
    what is drawn after it: a student's dropout, for one.
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

"""Who is told how a run is going.

>>> class Losses(Observer):
...     def round_finished(self, metrics):
...         print(f"round {metrics['round']}: {metrics['student_loss']:.2f}")
>>> Losses().round_finished({"round": 1, "student_loss": 0.5})
round 1: 0.50
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Observer:
    """Told how a run is going; does nothing.

    Everything it hears is public but time: how long a teacher takes may depend on what it answers.
    What an observer learns of that is for the screen of the run's owner, and for no file.
    """

    def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
        """A phase of ``total`` steps begins; call the result with the steps done."""
        return lambda _: None

    def phase_finished(self, name: str, *, seconds: float, round_index: int) -> None:
        """The phase is over, or was broken off, after so many seconds of wall-clock time."""

    def round_finished(self, metrics: dict[str, Any]) -> None:
        """A round is over."""

    def warn(self, message: str) -> None:
        """Something that the user should know."""
        warnings.warn(message, stacklevel=2)


class Unheard(Observer):
    """Of a process that is not the first, which says everything."""

    def warn(self, message: str) -> None:
        pass


class Phases:
    """Tells an observer of the phases of a round, and how long each took."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    @contextmanager
    def __call__(
        self, name: str, *, total: int, round_index: int
    ) -> Iterator[Callable[[int], None]]:
        """A phase of ``total`` steps; what it yields is called with the steps done."""
        start = time.perf_counter()
        try:
            yield self.observer.phase(name, total=total, round_index=round_index)
        finally:
            seconds = time.perf_counter() - start
            self.observer.phase_finished(name, seconds=seconds, round_index=round_index)

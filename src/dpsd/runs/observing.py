"""Observers, which are notified of the progress of a run.

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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpsd.privacy.records.certificate import Certificate


class Observer:
    """The base class of observers, which are notified of a run's progress and ignore it.

    Everything that an observer receives is public except time: how long a teacher takes may depend
    on its answers. Times may be shown on the screen of the run's owner, but never be written to a
    file.
    """

    def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
        """Note that a phase of ``total`` steps begins; call the result with the steps done."""
        return lambda _: None

    def phase_finished(self, name: str, *, seconds: float, round_index: int) -> None:
        """Note that a phase ended, or was interrupted, after this much wall-clock time."""

    def round_finished(self, metrics: dict[str, Any]) -> None:
        """Note that a round is finished."""

    def run_finished(self, metrics: list[dict[str, Any]], certificate: Certificate) -> None:
        """Note that the run is finished, with all that is known of it then."""

    def notice(self, message: str) -> None:
        """Note what the user may want to know beforehand, such as the time that a run will take."""

    def warn(self, message: str) -> None:
        """Warn the user."""
        warnings.warn(message, stacklevel=2)


class Unheard(Observer):
    """The observer of every process but the first, which alone reports; it stays silent."""

    def warn(self, message: str) -> None:
        pass


class Phases:
    """Notifies an observer of the phases of a round and of the duration of each."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    @contextmanager
    def __call__(
        self, name: str, *, total: int, round_index: int
    ) -> Iterator[Callable[[int], None]]:
        """Run a phase of ``total`` steps; yields a function to call with the steps done."""
        start = time.perf_counter()
        try:
            yield self.observer.phase(name, total=total, round_index=round_index)
        finally:
            seconds = time.perf_counter() - start
            self.observer.phase_finished(name, seconds=seconds, round_index=round_index)

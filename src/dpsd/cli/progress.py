"""The progress of a transcription on the command line, whose warnings are lines on stderr."""

from __future__ import annotations

from dpsd.cli.console import STATUS, warn
from dpsd.reporting import progress
from dpsd.runs.observing import Observer


class QuietObserver(Observer):
    """An observer that shows warnings and nothing else."""

    def warn(self, message: str) -> None:
        warn(message)


class ProgressObserver(progress.ProgressObserver):
    """An observer that shows progress and warnings on the command line's own console.

    Args:
        rounds: the number of rounds of the run.
        finished: the number of rounds that were finished before the run was resumed.
    """

    def __init__(self, *, rounds: int, finished: int = 0) -> None:
        super().__init__(rounds=rounds, finished=finished, console=STATUS)

    def warn(self, message: str) -> None:
        warn(message)

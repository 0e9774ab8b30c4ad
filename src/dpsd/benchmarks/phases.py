"""What each phase of a transcription takes, heard as it goes: a run directory does not say it.

>>> times = PhaseTimes()
>>> times.phase_finished("teacher", seconds=1.5, round_index=1)
>>> times.phase_finished("teacher", seconds=2.25, round_index=2)
>>> times.seconds
{'teacher': 3.75}
"""

from __future__ import annotations

from dpsd.runs.observing import Observer


class PhaseTimes(Observer):
    """Adds up the seconds of each phase, over all rounds, in memory.

    They are for measurements of one's own: how long a teacher takes may depend on its answers, and
    no ε covers it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def phase_finished(self, name: str, *, seconds: float, round_index: int) -> None:
        """Add them up."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def rounded(self) -> dict[str, float]:
        """The seconds of each phase, to a tenth."""
        return {name: round(seconds, 1) for name, seconds in self.seconds.items()}

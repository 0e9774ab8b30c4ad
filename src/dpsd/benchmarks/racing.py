"""How soon a method's student reaches an accuracy: time, where tables otherwise have the end.

>>> from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
>>> Race(PrivateSGD(stop_at=0.95), reach=0.95).unit.value
'a training record, added or removed'
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dpsd.benchmarks.methods import Method, Outcome, Task, Unit
from dpsd.privacy.targets import Adjacency, Budget


@dataclass(frozen=True)
class Race:
    """A method, timed until its student is as good as wanted.

    Measuring is not timed. The moment is chosen by the test split, which no private training could
    do: it is the clock's, not the student's.

    Args:
        method: whose details hold a ``curve`` of seconds so far and accuracy.
        reach: accuracy, in (0, 1].
    """

    method: Method
    reach: float

    @property
    def name(self) -> str:
        """The method's."""
        return self.method.name

    @property
    def unit(self) -> Unit:
        """What the method's ε is about."""
        return self.method.unit

    @property
    def adjacency(self) -> Adjacency | None:
        """What the target is about, for a transcription."""
        return getattr(self.method, "adjacency", None)

    @property
    def given(self) -> str:
        """What the method is given."""
        return self.method.given

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """The first student that is good enough, or the last one if none is."""
        outcome = self.method.measure(task, target=target, seed=seed)
        curve = outcome.details["curve"]
        reached = [point for point in curve if point[1] >= self.reach]
        seconds, accuracy = (reached or curve[-1:])[0]
        details = {**outcome.details, "reached": bool(reached)}
        return replace(outcome, seconds=seconds, accuracy=accuracy, details=details)

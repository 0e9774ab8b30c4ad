"""Handing a run's numbers to a tracker of experiments, as it goes on and when it is finished.

>>> class Kept(Tracking):
...     def write(self, values, *, step):
...         print(step, values)
>>> Kept(Observer()).round_finished({"round": 1, "queries": 300, "student_loss": 1.0})
1 {'queries': 300.0, 'student_loss': 1.0}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.targets import Adjacency
from dpsd.runs.observing import Observer

#: What a run knows of its final student only when it is finished.
_AT_THE_END = ("final_probe", "left_out")


class Tracking(Observer, ABC):
    """An observer that writes metrics and what was spent, and forwards everything to another one.

    Args:
        inner: the other observer.
    """

    def __init__(self, inner: Observer) -> None:
        self._inner = inner

    @abstractmethod
    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """Write numbers by name; ``step`` is the round. Times must be whole seconds."""

    def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
        return self._inner.phase(name, total=total, round_index=round_index)

    def phase_finished(self, name: str, *, seconds: float, round_index: int) -> None:
        # Forwarded but not written, as the duration of a teacher's phase may reveal its answers.
        self._inner.phase_finished(name, seconds=seconds, round_index=round_index)

    def notice(self, message: str) -> None:
        self._inner.notice(message)

    def warn(self, message: str) -> None:
        self._inner.warn(message)

    def round_finished(self, metrics: dict[str, Any]) -> None:
        self.write(scalars(metrics), step=metrics["round"])
        self._inner.round_finished(metrics)

    def run_finished(self, metrics: list[dict[str, Any]], certificate: Certificate) -> None:
        # What the last line has got since its round was finished, and what was spent.
        last = metrics[-1]
        found = scalars({name: last[name] for name in _AT_THE_END if name in last})
        spent = {f"epsilon/{kind.value}": certificate.spent.under(kind) for kind in Adjacency}
        self.write(found | spent, step=last["round"])
        self._inner.run_finished(metrics, certificate)


def scalars(metrics: Mapping[str, Any], *, prefix: str = "") -> dict[str, float]:
    """Return the numbers in a round's metrics by path; items of lists are numbered.

    >>> scalars({"round": 2, "agreement": {"mean": 0.5}, "label_shares": [0.25, 0.75]})
    {'agreement/mean': 0.5, 'label_shares/0': 0.25, 'label_shares/1': 0.75}
    """
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, list):
            value = {str(number): part for number, part in enumerate(value)}
        if isinstance(value, Mapping):
            found |= scalars(value, prefix=f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "round":
            found[prefix + name] = float(value)
    return found

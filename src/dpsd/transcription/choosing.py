"""Choosing by the probe: which round's student is the final one, and whether asking on is worth it.

All of it follows from the releases of the probe, so it costs no privacy. What is chosen on the
probe does slightly better there than elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.distillation.probe import Probe, ProbeQuality

#: The rounds in a row without an improvement after which a run stops.
_PATIENCE = 2

#: A student is worse than another if it is so by this many standard errors of the difference.
_CLEAR = 2.0

#: The name of the predictions among the weights of the best student.
_PREDICTED = "predicted on the probe"


class Choice:
    """The student that does best on the probe so far, in the process that leads a run.

    Args:
        probe: the releases of the probe.
        execution: the device and precision that students predict in.
        until: the improvement of two rounds in a row below which a run stops; ``None`` to go on.
    """

    def __init__(self, probe: Probe, execution: Execution, *, until: float | None) -> None:
        self.probe, self._execution, self._until = probe, execution, until
        self._best: dict[str, Tensor] = {}
        self._facts = {"round": 0, "stale": 0, "closed": 0}

    @property
    def is_over(self) -> bool:
        """Whether the last rounds improved the student by too little to ask on."""
        return self._until is not None and self._facts["stale"] >= _PATIENCE

    @property
    def is_closed(self) -> bool:
        """Whether a run that stopped early has trained its student for the last time."""
        return bool(self._facts["closed"])

    def close(self) -> None:
        """Note that a run that stopped early has trained its student for the last time."""
        self._facts["closed"] = 1

    def consider(self, student: nn.Module, round_index: int) -> ProbeQuality:
        """Compare the student after a round with the best one, and return how it does."""
        predicted = self.probe.predictions(student, self._execution)
        if not self._best:
            self._keep(student, round_index, predicted)
        elif gain := self.probe.improvement(predicted, self._best[_PREDICTED]):
            enough = max(self._until or 0, gain.standard_error)
            self._facts["stale"] = 0 if gain.mean >= enough else self._facts["stale"] + 1
            if gain.mean > 0:
                self._keep(student, round_index, predicted)
        return self.probe.quality(predicted)

    def settle(self, student: nn.Module, round_index: int) -> tuple[int, ProbeQuality]:
        """Give a student that is worse than the best one the best one's weights.

        The student stays as it is unless it is worse by more than the noise.

        Args:
            student: the student after the last round.
            round_index: the number of that round.

        Returns:
            The number of the round whose student it is then, and how that does.
        """
        predicted = self.probe.predictions(student, self._execution)
        if self._best:
            best = self._best[_PREDICTED]
            gain = self.probe.improvement(predicted, best)
            if gain is not None and gain.mean < -_CLEAR * gain.standard_error:
                student.load_state_dict({n: t for n, t in self._best.items() if n != _PREDICTED})
                return self._facts["round"], self.probe.quality(best)
        return round_index, self.probe.quality(predicted)

    def state(self) -> tuple[dict[str, int], dict[str, Tensor]]:
        """What a checkpoint keeps: numbers, and the best student with its predictions."""
        return dict(self._facts), dict(self._best)

    def restore(self, facts: Mapping[str, int], best: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned."""
        self._facts |= facts
        # Cloned, as they are mapped from a file that will be replaced.
        self._best = {name: tensor.clone() for name, tensor in best.items()}

    def _keep(self, student: nn.Module, round_index: int, predicted: Tensor) -> None:
        # Cloned, as training goes on in place.
        weights = {name: tensor.cpu().clone() for name, tensor in student.state_dict().items()}
        self._best = {**weights, _PREDICTED: predicted}
        self._facts["round"] = round_index

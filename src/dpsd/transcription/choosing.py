"""Choosing by the probe: which round's student is the final one, and whether asking on is worth it.

All of it follows from the releases of the probe, so it costs no privacy. What is chosen on the
probe does slightly better there than elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.distillation.judging import class_warning
from dpsd.distillation.probe import Probe, ProbeQuality

#: The rounds in a row without an improvement after which a run stops.
_PATIENCE = 2

#: A student differs from another if it does so by this many standard errors of the difference.
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
        """Whether the last rounds improved the student by too little to ask on.

        A run does not stop at an agreement that always saying the most frequent class has, too.
        """
        return self.is_closed or (self._is_stale and self._is_skilled)

    @property
    def _is_stale(self) -> bool:
        return self._until is not None and self._facts["stale"] >= _PATIENCE

    @property
    def _is_skilled(self) -> bool:
        return self.probe.beats_constant(self._best[_PREDICTED], errors=_CLEAR)

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

    def warnings(
        self, quality: ProbeQuality, round_index: int, *, names: Sequence[str] | None = None
    ) -> Iterator[str]:
        """Yield what the probe leaves open after a round that was considered.

        Args:
            quality: how the student does on the probe.
            round_index: the number of the round.
            names: the names of the classes, if they have any.
        """
        # What the probe's own answers leave open is the same after every round.
        if round_index == 1 and (warning := class_warning(quality, names=names)):
            yield f"round 1: {warning}"
        if self._is_stale and self._facts["stale"] == _PATIENCE and not self._is_skilled:
            yield (
                f"round {round_index}: agreement on the probe no longer rises, but it is not "
                "clearly above that of always saying the teacher's most frequent class, so the run "
                "goes on: the student has learned too little, or the probe shows too few classes"
            )

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

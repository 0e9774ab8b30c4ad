"""Knowledge distillation on the training images themselves: the ceiling.

>>> Distillation().given
'the teacher and the training images'
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.benchmarks.baselines.checks import refuse_target, require_positive
from dpsd.benchmarks.baselines.fitting import fit
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.privacy.targets import Budget


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Knowledge distillation on the original training images: the ceiling.

    The student minimises ``T² KL(softmax(f(x)/T) ‖ softmax(s(x)/T))`` on moved training images.

    Args:
        epochs: passes over the training images, at least 1.
        temperature: T, > 0.

    Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """

    epochs: int = 6
    temperature: float = 4.0

    name: str = field(default="knowledge distillation", init=False)
    unit: Unit = field(default=Unit.NOTHING, init=False)
    given: str = field(default="the teacher and the training images", init=False)

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "temperature")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it.

        Raises:
            ConfigError: a privacy target, which this cannot meet.
        """
        refuse_target(self.name, target)
        teacher = task.white_box()
        start = time.perf_counter()
        student = self.student(task.train, teacher, model=task.model, seed=seed)
        seconds = time.perf_counter() - start
        return Outcome(accuracy=task.accuracy(student), seconds=seconds)

    def student(
        self, data: LabelledImages, teacher: nn.Module, *, model: str, seed: int
    ) -> nn.Module:
        """Return a student in eval mode.

        Args:
            data: the training images; their labels are not looked at.
            teacher: a module from images in [0, 1] to logits, in eval mode.
            model: the student's architecture.
            seed: decides initial weights, order and moves.
        """
        execution = Execution.of()

        def loss(logits: Tensor, images: Tensor, rows: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = execution.logits(teacher, images)
            return softened_divergence(logits, wanted, temperature=self.temperature)

        return fit(data, loss, model=model, epochs=self.epochs, seed=seed)


def softened_divergence(logits: Tensor, wanted: Tensor, *, temperature: float) -> Tensor:
    """``T² KL(softmax(wanted/T) ‖ softmax(logits/T))``, averaged over the batch.

    Args:
        logits: the student's, ``(N, K)``.
        wanted: the teacher's, ``(N, K)``.
        temperature: T, > 0.

    >>> float(softened_divergence(torch.ones(2, 3), torch.ones(2, 3), temperature=4.0))
    0.0
    """
    divergence = F.kl_div(
        (logits / temperature).log_softmax(-1),
        (wanted / temperature).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence

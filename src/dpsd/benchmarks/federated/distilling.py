"""FedDF: the clients' average is taught what their ensemble says about images, without privacy.

>>> FedDF().given
'the models of all clients, and synthetic images'
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dpsd.benchmarks.baselines.checks import refuse_target, require_positive
from dpsd.benchmarks.baselines.distillation import softened_divergence
from dpsd.benchmarks.baselines.fitting import fit
from dpsd.benchmarks.federated.averaging import fresh
from dpsd.benchmarks.federated.clients import Clients, Ensemble, sent, size_of, weights_of
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.privacy.targets import Budget
from dpsd.synthesis.mixture import build_mixture


@dataclass(frozen=True, kw_only=True)
class FedDF(Clients):
    """FedDF in one round: ensemble distillation into the average of the clients' models.

    The images are synthetic, from the same public sources that a transcription draws from; the
    clients' models are their teachers, which started from the same weights.

    Args:
        images: the number of images, at least 256.
        epochs: passes over the images, at least 1.
        temperature: softens what the student imitates, > 0.
        sources: the sources of images, as :func:`~dpsd.synthesis.mixture.build_mixture` names them.

    Source: Lin et al., "Ensemble Distillation for Robust Model Fusion in Federated Learning",
    NeurIPS 2020, Algorithm 1.
    """

    images: int = 30_000
    epochs: int = 10
    temperature: float = 1.0
    sources: tuple[str, ...] = ("noise", "strokes")

    name: str = field(default="FedDF", init=False)
    unit: Unit = field(default=Unit.NOTHING, init=False)
    given: str = field(default="the models of all clients, and synthetic images", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "images", "epochs", "temperature")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Average and distil, and measure the student.

        Raises:
            ConfigError: a privacy target, which this cannot meet.
        """
        refuse_target(self.name, target)
        modules, sizes = self.white_boxes(task), self.partition(task).counts.sum(1)
        start = time.perf_counter()
        execution = Execution.of()
        student = fresh(task.model, task, seed=seed)
        student.load_state_dict(averaged(modules, sizes), strict=False)
        ensemble = Ensemble(modules).eval()
        generator = torch.Generator().manual_seed(seed)
        mixture = build_mixture(self.sources, task.train.input_shape)
        pixels, _ = mixture.sample(self.images, generator=generator)
        images = LabelledImages(
            images=pixels,
            labels=torch.zeros(len(pixels), dtype=torch.int64),  # nobody looks at them
            class_names=task.train.class_names,
            name="synthetic",
            split="public",
        )

        def loss(logits: Tensor, batch: Tensor, rows: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = execution.logits(ensemble, batch)
            return softened_divergence(logits, wanted, temperature=self.temperature)

        fit(images, loss, model=student, epochs=self.epochs, seed=seed)
        seconds = time.perf_counter() - start
        return Outcome(
            accuracy=task.accuracy(student),
            seconds=seconds,
            details=sent(down=0, up=size_of(weights_of(modules[0]))),
        )


def averaged(modules: Sequence[nn.Module], sizes: Tensor) -> dict[str, Tensor]:
    """Return the mean of modules' weights, in proportion to the sizes, ``(M,)``.

    >>> one, three = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> _, _ = one.weight.data.fill_(1.0), three.weight.data.fill_(3.0)
    >>> float(averaged([one, three], torch.tensor([3, 1]))["weight"])
    1.5
    """
    shares = sizes.float() / sizes.sum()
    weights = [weights_of(module) for module in modules]
    return {
        name: torch.tensordot(shares, torch.stack([each[name] for each in weights]), dims=1)
        for name in weights[0]
    }

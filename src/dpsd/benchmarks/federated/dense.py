"""DENSE: one-shot federated learning without data, through the gradients of clients' models.

>>> Dense().given
"the gradients of all clients' models"
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.benchmarks.baselines.checks import refuse_target, require_positive
from dpsd.benchmarks.baselines.distillation import softened_divergence
from dpsd.benchmarks.federated.averaging import fresh
from dpsd.benchmarks.federated.clients import Clients, Ensemble, sent, size_of, weights_of
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.devices.execution import Execution
from dpsd.distillation.generator import latent
from dpsd.errors import ConfigError
from dpsd.models import build_generator
from dpsd.privacy.targets import Budget


@dataclass(frozen=True, kw_only=True)
class Dense(Clients):
    """DENSE: a generator learns from the clients' models, and a student from its images.

    In every epoch the generator fits a batch of noise to random classes: the ensemble shall see
    those classes, each client's BatchNorm layers shall see the statistics that they remember, and
    ensemble and student shall disagree. The student then imitates the ensemble on all images that
    were made so far.

    Args:
        epochs: how often a batch of images is made and the student trained, at least 1.
        generator_steps: training steps of the generator for a batch, at least 1.
        student_steps: training steps of the student in an epoch, at least 1.
        batch_size: images a batch, at least 2.
        learning_rate: SGD's for the student, with momentum 0.9, > 0.
        generator_rate: Adam's for the generator, > 0.
        statistics: λ₁, how BatchNorm statistics count, > 0.
        disagreement: λ₂, how disagreement of ensemble and student counts, > 0.

    Source: Zhang et al., "DENSE: Data-Free One-Shot Federated Learning", NeurIPS 2022, equations 2
    to 7 and Algorithm 1.
    """

    epochs: int = 200
    generator_steps: int = 30
    student_steps: int = 50
    batch_size: int = 128
    learning_rate: float = 0.01
    generator_rate: float = 1e-3
    statistics: float = 1.0
    disagreement: float = 0.5

    name: str = field(default="DENSE", init=False)
    unit: Unit = field(default=Unit.NOTHING, init=False)
    given: str = field(default="the gradients of all clients' models", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "generator_steps", "student_steps", "learning_rate")
        require_positive(self, "generator_rate", "statistics", "disagreement")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size must be at least 2, not {self.batch_size}")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it.

        Raises:
            ConfigError: a privacy target, which this cannot meet.
        """
        refuse_target(self.name, target)
        modules = self.white_boxes(task)
        start = time.perf_counter()
        execution = Execution.of()
        student = execution.place(fresh(task.model, task, seed=seed))
        generator = build_generator(input_shape=task.train.input_shape, seed=seed)
        self._train(student, execution.place(generator), modules, seed=seed)
        seconds = time.perf_counter() - start
        return Outcome(
            accuracy=task.accuracy(student),
            seconds=seconds,
            details=sent(down=0, up=size_of(weights_of(modules[0]))),
        )

    def _train(
        self, student: nn.Module, generator: nn.Module, modules: Sequence[nn.Module], *, seed: int
    ) -> None:
        execution, random = Execution.of(), torch.Generator().manual_seed(seed)
        ensemble = Ensemble(modules).eval()
        learner = torch.optim.SGD(student.parameters(), lr=self.learning_rate, momentum=0.9)
        maker = torch.optim.Adam(
            generator.parameters(), lr=self.generator_rate, betas=(0.5, 0.999), fused=True
        )
        generator.train()
        made: list[Tensor] = []
        answers: list[Tensor] = []
        for _ in range(self.epochs):
            noise = latent(generator, self.batch_size, random).to(execution.device)
            student.eval()
            self._fit(generator, noise, maker, student, ensemble, random)
            with torch.no_grad():
                made.append(_images(generator, noise))
                answers.append(execution.logits(ensemble, made[-1]))
            student.train()
            self._teach(student, torch.cat(made), torch.cat(answers), learner, random)
        student.eval()

    def _fit(
        self,
        generator: nn.Module,
        noise: Tensor,
        maker: torch.optim.Optimizer,
        student: nn.Module,
        ensemble: Ensemble,
        random: torch.Generator,
    ) -> None:
        """Fit the generator, which makes images of a batch of noise, to random classes."""
        execution = Execution.of()
        wanted: Tensor | None = None
        for _ in range(self.generator_steps):
            images = _images(generator, noise)
            with remembered(ensemble.members) as gaps:
                said = execution.logits(ensemble, images)
            if wanted is None:
                wanted = torch.randint(said.shape[-1], (len(noise),), generator=random)
                wanted = wanted.to(said.device)
            loss = (
                F.cross_entropy(said, wanted)
                + self.statistics * sum(gaps) / len(ensemble.members)
                - self.disagreement * disagreement(said, execution.logits(student, images))
            )
            maker.zero_grad()
            torch.autograd.backward(loss)
            maker.step()

    def _teach(
        self,
        student: nn.Module,
        images: Tensor,
        answers: Tensor,
        learner: torch.optim.Optimizer,
        random: torch.Generator,
    ) -> None:
        """Train the student to give the ensemble's answers to images."""
        for _ in range(self.student_steps):
            rows = torch.randint(len(images), (self.batch_size,), generator=random)
            rows = rows.to(images.device)
            found = Execution.of().logits(student, images[rows])
            loss = softened_divergence(found, answers[rows], temperature=1.0)
            learner.zero_grad()
            torch.autograd.backward(loss)
            learner.step()


def disagreement(ensemble: Tensor, student: Tensor) -> Tensor:
    """Return ``KL(ensemble ‖ student)`` where their classes differ, averaged over the batch.

    Args:
        ensemble: the ensemble's logits, ``(N, K)``.
        student: the student's logits, ``(N, K)``.

    >>> float(disagreement(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])))
    0.0
    """
    differs = ensemble.argmax(-1) != student.argmax(-1)
    divergence = F.kl_div(
        student.log_softmax(-1), ensemble.log_softmax(-1), reduction="none", log_target=True
    )
    return (divergence.sum(-1) * differs).mean()


@contextmanager
def remembered(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect, while modules see images, how far BatchNorm layers are from what they remember.

    Each forward pass of a layer adds ``‖mean - running mean‖ + ‖variance - running variance‖``, of
    the channels of the layer's input, to the list.

    >>> layer = nn.BatchNorm2d(2).eval()
    >>> with remembered([layer]) as gaps:
    ...     _ = layer(torch.ones(3, 2, 4, 4))
    >>> round(float(gaps[0]), 3)  # the square root of 2 for the mean, and for the variance
    2.828
    """
    gaps: list[Tensor] = []

    def compare(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.BatchNorm2d)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), unbiased=False)
        gaps.append((mean - layer.running_mean).norm() + (variance - layer.running_var).norm())

    hooks = [
        layer.register_forward_pre_hook(compare)
        for module in modules
        for layer in module.modules()
        if isinstance(layer, nn.BatchNorm2d)
    ]
    try:
        yield gaps
    finally:
        for hook in hooks:
            hook.remove()


def _images(generator: nn.Module, noise: Tensor) -> Tensor:
    with Execution.of().autocast():
        images: Tensor = generator(noise)
    return images.float().contiguous(memory_format=torch.channels_last)

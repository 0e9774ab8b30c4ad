"""Data-free learning through the teacher's gradients: no data, and no privacy.

>>> DataFreeLearning().given
"the teacher's gradients"
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import nn

from dpsd.benchmarks.baselines.checks import refuse_target, require_positive
from dpsd.benchmarks.baselines.distillation import softened_divergence
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.devices.execution import Execution
from dpsd.distillation.generator import PenultimateFeatures, latent
from dpsd.distillation.objectives import GeneratorWeights, generator_loss
from dpsd.distillation.student import one_cycle
from dpsd.errors import ConfigError
from dpsd.models import build_classifier, build_generator
from dpsd.privacy.targets import Budget
from dpsd.teachers import read_record


@dataclass(frozen=True, kw_only=True)
class DataFreeLearning:
    """DAFL: the generator learns through the teacher's gradients; no data, and no privacy.

    In every step the generator learns to make images that the *teacher* is sure about, that cover
    the classes evenly and excite its last features, and the student imitates the teacher on them.

    Args:
        steps: training steps, at least 1.
        batch_size: images a step, at least 2.
        learning_rate: Adam's peak for the student, > 0.
        generator_rate: Adam's for the generator, > 0.
        temperature: softens what the student imitates, > 0.
        weights: how the generator's three losses count.

    Source: Chen et al., "Data-Free Learning of Student Networks", ICCV 2019, equations 4 to 8 and
    Algorithm 1.
    """

    steps: int = 4_000
    batch_size: int = 128
    learning_rate: float = 2e-3
    generator_rate: float = 1e-3
    temperature: float = 1.0
    weights: GeneratorWeights = field(default_factory=GeneratorWeights)

    name: str = field(default="DAFL", init=False)
    unit: Unit = field(default=Unit.NOTHING, init=False)
    given: str = field(default="the teacher's gradients", init=False)

    def __post_init__(self) -> None:
        require_positive(self, "steps", "learning_rate", "generator_rate", "temperature")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size must be at least 2, not {self.batch_size}")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it.

        Raises:
            ConfigError: a privacy target, which this cannot meet.
        """
        refuse_target(self.name, target)
        # Shapes are the teacher's own: the training split is not even read.
        record, teacher = read_record(task.teacher_path()), task.white_box()
        start = time.perf_counter()
        execution = Execution.of()
        student = build_classifier(
            task.model, input_shape=record.input_shape, num_classes=record.num_classes, seed=seed
        )
        generator = build_generator(input_shape=record.input_shape, seed=seed)
        self._train(execution.place(student), execution.place(generator), teacher, seed=seed)
        seconds = time.perf_counter() - start
        return Outcome(accuracy=task.accuracy(student), seconds=seconds)

    def _train(
        self, student: nn.Module, generator: nn.Module, teacher: nn.Module, *, seed: int
    ) -> None:
        execution = Execution.of()
        random = torch.Generator().manual_seed(seed)
        learner = torch.optim.Adam(student.parameters(), lr=self.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            learner, lambda step: one_cycle(step / self.steps)
        )
        maker = torch.optim.Adam(
            generator.parameters(), lr=self.generator_rate, betas=(0.5, 0.999), fused=True
        )
        student.train()
        generator.train()
        with PenultimateFeatures(teacher) as features:
            for _ in range(self.steps):
                noise = latent(generator, self.batch_size, random).to(execution.device)
                with execution.autocast():
                    images = generator(noise).contiguous(memory_format=torch.channels_last)
                answers = execution.logits(teacher, images)
                made = generator_loss(answers, features.last.float(), self.weights)
                maker.zero_grad()
                torch.autograd.backward(made)
                maker.step()
                imitated = softened_divergence(
                    execution.logits(student, images.detach()),
                    answers.detach(),
                    temperature=self.temperature,
                )
                learner.zero_grad()
                torch.autograd.backward(imitated)
                learner.step()
                schedule.step()

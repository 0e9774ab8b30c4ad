"""Label privacy on the training images: labels are randomised, in one stage or in two.

>>> RandomizedLabels().unit.value
"a training record's label"
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch

from dpsd.benchmarks.baselines.checks import require_positive, required_target
from dpsd.benchmarks.baselines.fitting import fit
from dpsd.benchmarks.baselines.reported_labels import LabelObjective, ReportedLabels, flat_prior
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Budget


@dataclass(frozen=True, kw_only=True)
class RandomizedLabels:
    """Label differential privacy in one stage: every training label is randomised once.

    K-ary randomised response on the original labels, pure ε-DP under the replacement of one
    record's label; the images are not protected at all.

    Args:
        epochs: passes over the training images, at least 1.
        objective: what the student minimises: ``"marginal"``, the exact likelihood of the
            randomised labels, or ``"cross-entropy"`` with them as if they were true.

    Source: Ghazi et al., "Deep Learning with Label Differential Privacy", NeurIPS 2021, Algorithm 1
    and LP-1ST; Warner, 1965.
    """

    epochs: int = 8
    objective: LabelObjective = "marginal"

    name: str = field(default="randomised labels", init=False)
    unit: Unit = field(default=Unit.LABEL, init=False)
    given: str = field(default="the training images and randomised labels", init=False)

    def __post_init__(self) -> None:
        require_positive(self, "epochs")
        _require_objective(self.objective)

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it.

        Raises:
            ConfigError: no target.
        """
        target = required_target(self.name, target)
        data = task.train
        start = time.perf_counter()
        labels = ReportedLabels.of(data.labels, flat_prior(data), "all", target=target, seed=seed)
        student = fit(
            data, labels.loss(self.objective), model=task.model, epochs=self.epochs, seed=seed
        )
        seconds = time.perf_counter() - start
        return Outcome(
            accuracy=task.accuracy(student),
            seconds=seconds,
            epsilon={"replace-one-label": labels.epsilon},
            details={"objective": self.objective, "true_labels": labels.share_of(data.labels)},
        )


@dataclass(frozen=True, kw_only=True)
class PriorLabels:
    """Label differential privacy in two stages (LP-2ST): a first student is the second's prior.

    Half of the labels are randomised over all classes and a student learns from them; its
    predictions are the prior with which the other half is randomised, each over the candidates
    that make a true report likeliest (RRWithPrior); the final student learns from both. Every
    label is randomised once, so ε is that of one report: pure, under the replacement of one
    record's label.

    Args:
        epochs: passes over the training images in each stage, at least 1.
        objective: ``"marginal"`` as in :class:`RandomizedLabels`, of the exact channel with each
            record's own candidates; or ``"cross-entropy"`` with the reports as if they were true,
            as in the paper.

    Source: Ghazi et al., "Deep Learning with Label Differential Privacy", NeurIPS 2021, Algorithms
    2 and 3 (LP-MST with T = 2).
    """

    epochs: int = 8
    objective: LabelObjective = "marginal"

    name: str = field(default="LP-2ST", init=False)
    unit: Unit = field(default=Unit.LABEL, init=False)
    given: str = field(default="the training images and randomised labels", init=False)

    def __post_init__(self) -> None:
        require_positive(self, "epochs")
        _require_objective(self.objective)

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it.

        Raises:
            ConfigError: no target.
        """
        target = required_target(self.name, target)
        data = task.train
        start = time.perf_counter()
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        first, second = (
            replace(data, images=data.images[rows], labels=data.labels[rows])
            for rows in order.tensor_split(2)
        )
        plain = ReportedLabels.of(first.labels, flat_prior(first), "all", target=target, seed=seed)
        loss = plain.loss(self.objective)
        first_student = fit(first, loss, model=task.model, epochs=self.epochs, seed=seed)
        prior = Execution.of().predict(first_student, second.images).softmax(-1).cpu()
        informed = ReportedLabels.of(
            second.labels, prior, "per-query", target=target, seed=seed, stage=1
        )
        labels = plain.followed_by(informed)
        both = replace(data, images=data.images[order], labels=data.labels[order])
        loss = labels.loss(self.objective)
        student = fit(both, loss, model=task.model, epochs=self.epochs, seed=seed + 1)
        seconds = time.perf_counter() - start
        return Outcome(
            accuracy=task.accuracy(student),
            seconds=seconds,
            epsilon={"replace-one-label": max(plain.epsilon, informed.epsilon)},
            details={
                "objective": self.objective,
                "first_stage": task.accuracy(first_student),
                "true_labels": labels.share_of(both.labels),
                "true_labels_by_stage": [
                    plain.share_of(first.labels),
                    informed.share_of(second.labels),
                ],
            },
        )


def _require_objective(objective: str) -> None:
    if objective not in ("marginal", "cross-entropy"):
        raise ConfigError(f"objective must be marginal or cross-entropy, not {objective!r}")

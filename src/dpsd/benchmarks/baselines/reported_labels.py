"""Training labels as randomised response reports them, each once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.benchmarks.baselines.fitting import Loss
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.distillation.objectives import marginal_loss
from dpsd.privacy.accounting import pld_epsilon
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.mechanisms import RandomizedResponse
from dpsd.privacy.randomness import ReproducibleNoise
from dpsd.privacy.targets import Adjacency, Budget, Exposure

LabelObjective: TypeAlias = Literal["marginal", "cross-entropy"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportedLabels:
    """Training labels as randomised response reported them, and what the reports say.

    Args:
        labels: the reports, int64 ``(N,)``.
        log_likelihood: each report under each class, ``(N, K)``.
        epsilon: what one report costs.
    """

    labels: Tensor
    log_likelihood: Tensor
    epsilon: float

    @classmethod
    def of(
        cls,
        labels: Tensor,
        prior: Tensor,
        candidates: Literal["per-query", "all"],
        *,
        target: Budget,
        seed: int,
        stage: int = 0,
    ) -> ReportedLabels:
        """Randomise true labels, each once.

        Args:
            labels: the true ones, int64 ``(N,)``.
            prior: public probabilities of the classes, ``(N, K)``.
            candidates: as :class:`~dpsd.privacy.mechanisms.RandomizedResponse` takes them.
            target: the ε of one label; its δ is not used.
            seed: decides the noise.
            stage: its number; stages share no noise.

        >>> labels = ReportedLabels.of(
        ...     torch.tensor([0, 2]), torch.full((2, 3), 1 / 3), "all",
        ...     target=Budget(epsilon=20.0), seed=0,
        ... )
        >>> labels.labels.tolist(), round(labels.epsilon, 3)
        ([0, 2], 20.0)
        """
        classes = prior.shape[-1]
        mechanism = calibrate(
            RandomizedResponse(
                candidates=candidates, noise=ReproducibleNoise(seed=seed, round_index=stage)
            ),
            Budget(epsilon=target.epsilon, delta=0, adjacency=Adjacency.RESPONSE),
            Exposure.of_rounds([len(labels)]),
        )
        # True labels are to this mechanism what a teacher's answers are to a transcription.
        sealed = RawAnswers.seal(
            F.one_hot(labels, classes).float(),
            batch=len(labels),
            num_classes=classes,
            scores="probabilities",
        )
        reported = mechanism.privatize(sealed, prior)
        return cls(
            labels=reported,
            log_likelihood=mechanism.log_likelihood(reported, prior),
            epsilon=pld_epsilon(mechanism.event(), count=1, delta=0),
        )

    def followed_by(self, others: ReportedLabels) -> ReportedLabels:
        """These and then the others, which are of other records."""
        return ReportedLabels(
            labels=torch.cat([self.labels, others.labels]),
            log_likelihood=torch.cat([self.log_likelihood, others.log_likelihood]),
            epsilon=max(self.epsilon, others.epsilon),
        )

    def loss(self, objective: LabelObjective) -> Loss:
        """What a student minimises on them."""
        place = Execution.of().device
        if objective == "cross-entropy":
            labels = self.labels.to(place)
            return lambda logits, _, rows: F.cross_entropy(logits, labels[rows])
        evidence = self.log_likelihood.to(place)
        return lambda logits, _, rows: marginal_loss(logits, evidence[rows])

    def share_of(self, true: Tensor) -> float:
        """The share of reports that are the true label."""
        return float((self.labels == true).double().mean())


def flat_prior(data: LabelledImages) -> Tensor:
    """The prior that favours no class, ``(N, K)``."""
    return torch.full((len(data), data.num_classes), 1 / data.num_classes)

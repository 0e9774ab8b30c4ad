"""Mean embeddings of a data set's classes: released once with noise, then imitated.

The release is the mean over m records of a feature vector in the place of the record's class, and
the share of each class. If a record is replaced, the first moves by at most 2/m, as features have a
norm of at most 1, and the second by at most √2/m. Noise on both, in proportion to these bounds, is
one Gaussian mechanism. Everything after it is post-processing.

>>> noise = EmbeddingNoise.meeting(Budget(epsilon=1.0, delta=1e-5), weights_share=0.1)
>>> round(noise.embedding, 2), round(noise.weights, 2), round(noise.replace_one(delta=1e-5), 3)
(3.93, 11.8, 1.0)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import dp_accounting
import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.benchmarks.baselines.conditional import ConditionalGenerator, even_labels
from dpsd.benchmarks.baselines.kernel_features import Features
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.distillation.student import one_cycle
from dpsd.errors import ConfigError
from dpsd.images.pixels import to_unit_range
from dpsd.privacy.targets import Budget
from dpsd.streams import stream

#: Records whose features are held at once.
_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class EmbeddingNoise:
    """The noise of a release, as multiples of what a replaced record moves.

    Args:
        embedding: the noise multiplier of the mean embedding.
        weights: the noise multiplier of the classes' shares.
    """

    embedding: float
    weights: float

    @classmethod
    def meeting(cls, target: Budget, *, weights_share: float) -> EmbeddingNoise:
        """The least noise that meets a target, under the replacement of a training record.

        Two Gaussian mechanisms are as private as one whose squared multiplier's inverse is the sum
        of theirs, so a share of it is spent on the classes' shares.
        """
        alone = dp_accounting.get_sigma_gaussian(target.epsilon, target.delta)
        return cls(
            embedding=alone / math.sqrt(1 - weights_share),
            weights=alone / math.sqrt(weights_share),
        )

    def replace_one(self, *, delta: float) -> float:
        """Return ε of both if a training record is replaced, by ``dp_accounting``."""
        alone = 1 / math.hypot(1 / self.embedding, 1 / self.weights)
        return float(dp_accounting.get_epsilon_gaussian(alone, delta))


def class_sums(images: Tensor, labels: Tensor, features: Features, *, classes: int) -> Tensor:
    """The sum of the features of each class's images, ``(K, D)``."""
    placed = F.one_hot(labels, classes).to(torch.float32)
    return placed.T @ features(to_unit_range(images))


def mean_embedding(data: LabelledImages, features: Features) -> Tensor:
    """The exact embedding, ``(K, D)``: private; a replaced record moves it by at most 2/m."""
    device = Execution.of().device
    parts = zip(torch.split(data.images, _AT_ONCE), torch.split(data.labels, _AT_ONCE), strict=True)
    sums = [
        class_sums(images.to(device), labels.to(device), features, classes=data.num_classes)
        for images, labels in parts
    ]
    return torch.stack(sums).sum(0) / len(data)


def class_weights(data: LabelledImages) -> Tensor:
    """The exact share of each class, ``(K,)``: private; a replaced record moves it by √2/m."""
    return torch.bincount(data.labels, minlength=data.num_classes) / len(data)


def released(
    data: LabelledImages, features: Features, *, noise: EmbeddingNoise, seed: int
) -> Tensor:
    """Release the mean embedding of each class, ``(K, D)``: the only look at the records.

    Each class's noisy part is divided by its noisy share, so that rare classes count as much as
    others. A share below its noise's deviation is taken for that.
    """
    random = stream(seed, 0, "noise of an embedding")
    embedding, weights = mean_embedding(data, features).cpu(), class_weights(data)
    embedding_deviation = noise.embedding * 2 / len(data)
    weights_deviation = noise.weights * math.sqrt(2) / len(data)
    embedding += embedding_deviation * torch.randn(embedding.shape, generator=random)
    weights += weights_deviation * torch.randn(weights.shape, generator=random)
    return embedding / weights.clamp_min(weights_deviation).unsqueeze(1)


def imitate(
    embedding: Tensor,
    features: Features,
    generator: ConditionalGenerator,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train a generator by the maximum mean discrepancy of its classes to a released embedding.

    Args:
        embedding: the mean features of each class, ``(K, D)``.
        features: what the embedding is of.
        generator: is trained in place.
        steps: training steps.
        batch_size: images a step, as many of each class.
        learning_rate: Adam's peak.
        seed: decides what the generator makes its images from.

    Raises:
        ConfigError: a batch has no place for every class.
    """
    classes = len(embedding)
    if batch_size < classes:
        raise ConfigError(f"batch_size {batch_size} is below the number of classes, {classes}")
    wanted = embedding.to(Execution.of().device)
    labels = even_labels(batch_size, classes)
    counts = torch.bincount(labels, minlength=classes).unsqueeze(1)
    optimizer = torch.optim.Adam(generator.parameters(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / steps))
    random = stream(seed, 0, "imitation of an embedding")
    generator.train()
    for _ in range(steps):
        images = generator.batch(labels, random)
        means = class_sums(images, labels, features, classes=classes) / counts
        optimizer.zero_grad()
        torch.autograd.backward((means - wanted).square().sum())
        optimizer.step()
        schedule.step()

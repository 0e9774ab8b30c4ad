"""How synthetic records are scored: by what a classifier learns from them about real ones.

Every generator is scored in the same way. It makes as many labelled images as :data:`IMAGES` says,
the same small network (:func:`~dpsd.benchmarks.baselines.tempered.tempered_network`) is trained on
them for :data:`EPOCHS`, and its accuracy is measured on real images. Nothing is chosen on the way,
by real images or by synthetic ones. The network has no BatchNorm: the statistics that it remembers
of synthetic images do not fit real ones, which cost a ``cnn`` 28 points where it was tried.

>>> RealRecords().unit.value
'nothing: not private'
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from dpsd.benchmarks.baselines.checks import refuse_target, require_positive, required_target
from dpsd.benchmarks.baselines.fitting import fit_to_labels
from dpsd.benchmarks.baselines.tempered import tempered_network
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.datasets import LabelledImages
from dpsd.privacy.targets import Budget

#: How many images are made.
IMAGES = 30_000

#: How often the classifier sees each of them.
EPOCHS = 5


@dataclass(frozen=True, kw_only=True)
class Made:
    """Synthetic records, and what making them cost.

    Args:
        images: uint8 ``(N, C, H, W)``.
        labels: int64 ``(N,)``.
        epsilon: ε under each relation that was accounted for, by its name.
        details: public facts about the making, as JSON can hold them.
    """

    images: Tensor
    labels: Tensor
    epsilon: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)


def classifier_of(images: Tensor, labels: Tensor, task: Task, *, seed: int) -> nn.Module:
    """Return the classifier after training on synthetic records alone, in eval mode.

    Args:
        images: uint8 ``(N, C, H, W)``.
        labels: int64 ``(N,)``.
        task: says which classes there are; its records are not looked at.
        seed: decides initial weights, order and moves.
    """
    class_names = task.measured_on.class_names
    data = LabelledImages(
        images=images, labels=labels, class_names=class_names, name=task.data, split="synthetic"
    )
    return fit_to_labels(data, model=tempered_network, epochs=EPOCHS, seed=seed)


@dataclass(frozen=True, kw_only=True)
class PrivateGenerator(ABC):
    """A generator that is trained on private records, and scored by the records that it makes.

    Args:
        images: the synthetic images that the classifier is trained on, at least 1.
    """

    images: int = IMAGES

    #: As tables show it, what its ε is about, and what it is given.
    name: ClassVar[str]
    unit: ClassVar[Unit]
    given: ClassVar[str] = "the training data"

    def __post_init__(self) -> None:
        require_positive(self, "images")

    @abstractmethod
    def made(self, data: LabelledImages, *, target: Budget, seed: int) -> Made:
        """Train a generator on records within a target, and return what it makes.

        Args:
            data: the training records.
            target: ε and δ, which is above 0.
            seed: decides all that is drawn, the noise too, which is therefore not secret.
        """

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make synthetic records, train a classifier on them and measure it.

        Raises:
            ConfigError: there is no target or one without δ, or a library is not installed.
        """
        target = required_target(self.name, target, needs_delta=True)
        data = task.train
        start = time.perf_counter()
        made = self.made(data, target=target, seed=seed)
        student = classifier_of(made.images, made.labels, task, seed=seed)
        seconds = time.perf_counter() - start
        return Outcome(
            accuracy=task.accuracy(student),
            seconds=seconds,
            epsilon=made.epsilon,
            details={"delta": target.delta, **made.details},
        )


@dataclass(frozen=True, kw_only=True)
class RealRecords:
    """The real training records in the place of synthetic ones: the ceiling of the scoring."""

    name: str = field(default="the real records", init=False)
    unit: Unit = field(default=Unit.NOTHING, init=False)
    given: str = field(default="the training data", init=False)

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Train the classifier on the training records and measure it.

        Raises:
            ConfigError: a privacy target, which this cannot meet.
        """
        refuse_target(self.name, target)
        data = task.train
        start = time.perf_counter()
        student = classifier_of(data.images, data.labels, task, seed=seed)
        seconds = time.perf_counter() - start
        return Outcome(accuracy=task.accuracy(student), seconds=seconds)

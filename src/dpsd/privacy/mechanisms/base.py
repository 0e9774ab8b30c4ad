"""What every mechanism is: a channel, its likelihood and its cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import dp_accounting
import torch
from torch import Tensor

from dpsd.errors import ConfigError
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.randomness import NoiseSource


class Mechanism(ABC):
    """A private channel from a teacher's answers to releases.

    Shapes: answers ``(N, K)``, or ``(teachers, N, K)`` for several teachers, each privatised on its
    own; prior ``(N, K)``; a release starts with ``(N, …)`` or ``(teachers, N, …)``.
    """

    #: What the mechanism protects, in a word, for certificates and the command line.
    protects: ClassVar[str]
    #: The least and the most strength (see :meth:`with_strength`) that a budget may choose.
    strengths: ClassVar[tuple[float, float]] = (1e-6, 1e5)
    noise: NoiseSource

    @abstractmethod
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        """Release a private version of every answer in the batch."""

    @abstractmethod
    def log_likelihood(self, release: Tensor, prior: Tensor) -> Tensor:
        """``log P(release | the teacher says class c)``, ``(…, N, K)``, for every class ``c``."""

    @abstractmethod
    def event(self) -> dp_accounting.DpEvent:
        """What one answer costs. Any change of the answer counts: the relation is replace-one."""

    def mean_event(self) -> dp_accounting.DpEvent:
        """What one answer costs on average, where two worlds differ in all of a batch's answers."""
        return self.event()

    @abstractmethod
    def with_strength(self, strength: float) -> Mechanism:
        """A copy with another noise level: ``strength`` rises as privacy gets *weaker*."""

    @abstractmethod
    def with_level(self, parameters: Mapping[str, object]) -> Mechanism:
        """A copy with the noise level that :meth:`parameters` stated, to the last bit."""

    @property
    @abstractmethod
    def is_calibrated(self) -> bool:
        """Whether the noise level has been set."""

    @abstractmethod
    def parameters(self) -> dict[str, object]:
        """Everything that determines the channel, for certificates (JSON types only)."""

    @abstractmethod
    def agreement(self, release: Tensor, prior: Tensor, predicted: Tensor) -> Tensor:
        """Unbiased estimates, ``(N,)``, of whether the teacher's class is the ``predicted`` one.

        Each inverts the known channel: given the teacher's class, its mean is 1 if that is the
        predicted class and 0 if not. A single estimate is wild; the mean of many is the agreement
        of student and teacher. Made only where the prior is nearly flat (the explored queries,
        which are a random sample); NaN elsewhere.
        """

    def shares(self, release: Tensor, prior: Tensor) -> Tensor | None:
        """Unbiased estimates of the share of teachers that say each class, ``(N, K)``.

        ``None`` for one teacher, whose class :meth:`log_likelihood` describes completely.
        """
        return None

    @abstractmethod
    def face_value(self, release: Tensor, prior: Tensor) -> Tensor:
        """The label that a release is if nobody minds the noise, ``(N, K)``; no distribution.

        What methods learn from that do not know the channel. For comparison with them.
        """

    def for_members(self, members: int) -> Mechanism:
        """The mechanism for so many teachers.

        Raises:
            ConfigError: a mechanism for one teacher, or for many, and a teacher that is not.
        """
        if members != 1:
            raise ConfigError(
                f"{type(self).__name__} privatises one teacher's answers, and this ensemble has "
                f"{members} members; use NoisyVotes or SummedGradients"
            )
        return self

    def informed(self, release: Tensor, prior: Tensor) -> Mechanism:
        """A copy that knows what these releases say about how much teachers disagree.

        ``prior`` comes as it is stored, in half precision.
        """
        return self

    def needs_answer(self, prior: Tensor) -> Tensor:
        """Which queries are worth asking, ``(N,)`` bool, decided from the public prior alone."""
        return torch.ones(prior.shape[0], dtype=torch.bool, device=prior.device)

    def with_noise(self, noise: NoiseSource) -> Mechanism:
        """A copy that draws from another source of noise."""
        return replace(self, noise=noise)  # type: ignore[type-var]


def is_flat(prior: Tensor) -> Tensor:
    """Rows that favour no class: those of the first round and of exploration, ``(N,)`` bool."""
    return prior.amax(-1) < 1.1 / prior.shape[-1]

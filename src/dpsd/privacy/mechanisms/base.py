"""The interface of mechanisms: a channel, its likelihood and its cost.

:class:`Channel` is how releases are read, and :class:`Mechanism` also makes them and states their
cost. Whoever learns from releases needs the channel alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

import dp_accounting
import torch
from torch import Tensor

from dpsd.errors import ConfigError
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.randomness import NoiseSource


class Channel(ABC):
    """What releases say of a teacher's answers.

    The shapes are: priors ``(N, K)``; releases ``(N, …)``, or ``(teachers, N, …)`` for several
    teachers, each of which was privatised on its own.
    """

    @abstractmethod
    def log_likelihood(self, release: Tensor, prior: Tensor) -> Tensor:
        """``log P(release | the teacher says class c)``, ``(…, N, K)``, for every class ``c``."""

    @property
    def estimates_agreement(self) -> bool:
        """Whether :meth:`agreement` says something about every query with a flat prior."""
        return True

    @abstractmethod
    def agreement(self, release: Tensor, prior: Tensor, predicted: Tensor) -> Tensor:
        """Return unbiased estimates, ``(N,)``, of whether the teacher's class is ``predicted``.

        Each estimate inverts the known channel: given the teacher's class, its mean is 1 if that is
        the predicted class and 0 if not. A single estimate has a large variance; the mean of many
        is the agreement of student and teacher. Estimates are made only where the prior is nearly
        flat (the explored queries, which are a random sample), and are NaN elsewhere.
        """

    def shares(self, release: Tensor, prior: Tensor) -> Tensor | None:
        """Return unbiased estimates of the share of teachers that say each class, ``(N, K)``.

        The result is ``None`` for one teacher, which :meth:`log_likelihood` describes completely.
        """
        return None

    @abstractmethod
    def face_value(self, release: Tensor, prior: Tensor) -> Tensor:
        """Return the release as a label that ignores the noise, ``(N, K)``; not a distribution.

        Methods that do not know the channel learn from this; it is here for comparison with them.
        """

    def informed(self, release: Tensor, prior: Tensor) -> Self:
        """Return a copy with an estimate of the teachers' disagreement from these releases.

        ``prior`` is passed as it is stored, in half precision.
        """
        return self

    def needs_answer(self, prior: Tensor) -> Tensor:
        """Return which queries are worth asking, ``(N,)`` bool, from the public prior alone."""
        return torch.ones(prior.shape[0], dtype=torch.bool, device=prior.device)


class Mechanism(Channel):
    """A private channel from a teacher's answers to releases.

    Answers are ``(N, K)``, or ``(teachers, N, K)`` for several teachers, each privatised on its
    own.
    """

    #: What the mechanism protects, in one word, for certificates and the command line.
    protects: ClassVar[str]
    #: The least and the most strength (see :meth:`with_strength`) that a budget may choose.
    strengths: ClassVar[tuple[float, float]] = (1e-6, 1e5)
    noise: NoiseSource

    @abstractmethod
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        """Release a private version of every answer in the batch."""

    @abstractmethod
    def event(self) -> dp_accounting.DpEvent:
        """The cost of one answer; the relation is replace-one, so any change of it counts."""

    def mean_event(self) -> dp_accounting.DpEvent:
        """The average cost of an answer if two worlds differ in all answers of a batch."""
        return self.event()

    @abstractmethod
    def with_strength(self, strength: float) -> Mechanism:
        """Return a copy with another noise level; a larger ``strength`` is *weaker* privacy."""

    @abstractmethod
    def with_level(self, parameters: Mapping[str, object]) -> Mechanism:
        """Return a copy with exactly the noise level that :meth:`parameters` stated."""

    @property
    @abstractmethod
    def is_calibrated(self) -> bool:
        """Whether the noise level has been set."""

    @abstractmethod
    def parameters(self) -> dict[str, object]:
        """Everything that determines the channel, in JSON types, for certificates."""

    def for_members(self, members: int) -> Mechanism:
        """Return the mechanism for this number of teachers.

        Raises:
            ConfigError: the mechanism is for one teacher and there are many, or the reverse.
        """
        if members != 1:
            raise ConfigError(
                f"{type(self).__name__} privatises one teacher's answers, but this ensemble has "
                f"{members} members; use NoisyVotes or SummedGradients"
            )
        return self

    def with_noise(self, noise: NoiseSource) -> Mechanism:
        """Return a copy that draws from another source of noise."""
        return replace(self, noise=noise)  # type: ignore[type-var]


def is_flat(prior: Tensor) -> Tensor:
    """Return which rows favour no class, ``(N,)`` bool: the first round's and the explored ones."""
    return prior.amax(-1) < 1.1 / prior.shape[-1]

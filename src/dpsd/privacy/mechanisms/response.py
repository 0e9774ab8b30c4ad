"""Label-sensitive protection of one teacher: randomised response."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import dp_accounting
import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.errors import ConfigError
from dpsd.privacy.answers import RawAnswers, open_for_mechanism
from dpsd.privacy.mechanisms.base import Mechanism, is_flat
from dpsd.privacy.parameters import check_candidates
from dpsd.privacy.randomness import NoiseSource, SystemNoise


@dataclass(frozen=True, kw_only=True)
class RandomizedResponse(Mechanism):
    """Label-sensitive protection: randomised response over candidate classes; pure ε-DP.

    The teacher's class is reported with probability ``e^ε / (e^ε + k - 1)``, and otherwise another
    of the ``k`` candidates, uniformly. If the teacher's class is not a candidate, the report is
    uniform over the candidates.

    Args:
        epsilon: the ε of one answer, > 0; ``None`` until calibrated to a budget.
        candidates: ``"per-query"`` takes, for each query, the ``k`` most likely classes under the
            prior that maximise the chance of a truthful report (RRWithPrior); an integer takes the
            top ``k``; ``"all"`` takes every class.
        noise: the source of randomness.

    Source: Ghazi et al., "Deep Learning with Label Differential Privacy", NeurIPS 2021, Algorithms
    1 to 3; DPSD (arXiv 2601.19090), label-sensitive protection.

    >>> RandomizedResponse(epsilon=1.0, candidates=1)
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: candidates must be "per-query", "all" or an integer of at least 2, ...
    """

    protects: ClassVar[str] = "labels"
    # At 25, about one answer in seventy billion is false. Below a millionth, the probabilities of a
    # true and of a false answer are too close for double precision to compute what they cost.
    strengths: ClassVar[tuple[float, float]] = (1e-6, 25.0)

    epsilon: float | None = None
    candidates: Literal["per-query", "all"] | int = "per-query"
    noise: NoiseSource = field(default_factory=SystemNoise)

    def __post_init__(self) -> None:
        least, most = self.strengths
        if self.epsilon is not None and not (least <= self.epsilon <= most):
            raise ValueError(
                f"epsilon must be positive, at least {least:g} and at most {most:g}, not "
                f"{self.epsilon}"
            )
        check_candidates(self.candidates)

    @property
    def is_calibrated(self) -> bool:
        return self.epsilon is not None

    def with_strength(self, strength: float) -> RandomizedResponse:
        return replace(self, epsilon=strength)

    def with_level(self, parameters: Mapping[str, object]) -> RandomizedResponse:
        return replace(self, epsilon=float(str(parameters["epsilon_per_answer"])))

    def parameters(self) -> dict[str, object]:
        return {
            "name": "randomized-response",
            "epsilon_per_answer": self._epsilon,
            "candidates": self.candidates,
        }

    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        """Release one class per answer, int64 ``(N,)`` or ``(teachers, N)``."""
        labels = open_for_mechanism(answers).argmax(-1)
        order, count = self._candidates(prior)
        # In terms of ranks under the prior, the candidates are simply the ranks below `count`.
        ranks = order.argsort(-1).expand(*labels.shape, -1)
        rank = ranks.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        inside = rank < count
        # Compared with the probability of a lie, as uniform numbers are finest near zero.
        lies = (count - 1) * self._chances(count)[1]
        truthful = inside & (self.noise.uniform(labels.shape).to(labels.device) >= lies)
        # A lie is uniform over the candidates other than the truth, so draw from one fewer and skip
        # the truth.
        lie = self.noise.below((count - inside.long()).clamp_min(1))
        lie = lie + (inside & (lie >= rank)).long()
        reported = torch.where(truthful, rank, lie)
        return order.expand(*labels.shape, -1).gather(-1, reported.unsqueeze(-1)).squeeze(-1)

    def face_value(self, release: Tensor, prior: Tensor) -> Tensor:
        """The one-hot vector of the reported class."""
        return F.one_hot(release, prior.shape[-1]).float()

    def log_likelihood(self, release: Tensor, prior: Tensor) -> Tensor:
        inside = self.reportable(prior)
        count = inside.sum(-1)
        possible = inside.expand(*release.shape, -1).gather(-1, release.unsqueeze(-1))
        truth, lie = self._chances(count)
        classes = torch.arange(prior.shape[-1], device=prior.device)
        said = release.unsqueeze(-1) == classes
        told = torch.where(said, truth.unsqueeze(-1), lie.unsqueeze(-1))
        outside = (1.0 / count).unsqueeze(-1)
        probability = torch.where(inside, told, outside) * possible
        return probability.log().to(prior.dtype)

    def reportable(self, prior: Tensor) -> Tensor:
        """Return which classes are candidates under the prior, bool ``(N, K)``.

        >>> prior = torch.tensor([[0.7, 0.2, 0.1]])
        >>> RandomizedResponse(epsilon=1.0, candidates=2).reportable(prior).tolist()
        [[True, True, False]]
        """
        order, count = self._candidates(prior)
        return order.argsort(-1) < count.unsqueeze(-1)

    @property
    def estimates_agreement(self) -> bool:
        """Unless only some classes are ever candidates, as answers outside them are uniform."""
        return not isinstance(self.candidates, int)

    def agreement(self, release: Tensor, prior: Tensor, predicted: Tensor) -> Tensor:
        """``(1[release = predicted] - q) / (p - q)``, p and q the chances of truth and of one lie.

        This is exact if all classes are candidates. With ``k`` candidates, an answer outside adds
        ``1/k`` instead of 0.
        """
        order, count = self._candidates(prior)
        truth, lie = self._chances(count)
        rank = order.argsort(-1).gather(-1, predicted.long().unsqueeze(-1)).squeeze(-1)
        score = ((release == predicted).double() - lie) / (truth - lie)
        return score.where(is_flat(prior) & (rank < count), torch.nan)

    def event(self) -> dp_accounting.DpEvent:
        """The k-ary event for a fixed ``k``, else the binary event, which dominates all ε-DP ones.

        An answer outside the candidates is a uniform mixture of those inside, so by joint convexity
        it costs no more than the worst pair inside (Kairouz, Oh, Viswanath, ICML 2015).
        """
        buckets = self.candidates if isinstance(self.candidates, int) else 2
        return dp_accounting.RandomizedResponseDpEvent(
            noise_parameter=buckets / (math.exp(self._epsilon) + buckets - 1), num_buckets=buckets
        )

    def needs_answer(self, prior: Tensor) -> Tensor:
        """All queries except those with a single candidate, whose answer would reveal nothing."""
        return self._candidates(prior)[1] > 1

    @property
    def _epsilon(self) -> float:
        if self.epsilon is None:
            raise ValueError("epsilon is not set: calibrate the mechanism to a budget first")
        return self.epsilon

    def _chances(self, count: Tensor) -> tuple[Tensor, Tensor]:
        """The probabilities of the truth, and of each other of ``count`` candidates."""
        # Computed in float64, as in float32 the truth would be certain from epsilon 17 on.
        odds = math.exp(-self._epsilon)
        truth = 1 / (1 + (count.double() - 1) * odds)
        return truth, truth * odds

    def _candidates(self, prior: Tensor) -> tuple[Tensor, Tensor]:
        """The classes, likeliest first, ``(N, K)``, and the number of candidates, ``(N,)``."""
        likely, order = prior.double().sort(dim=-1, descending=True, stable=True)
        classes = prior.shape[-1]
        if self.candidates == "per-query":
            counts = torch.arange(1, classes + 1, device=prior.device)
            truthful = self._chances(counts)[0] * likely.cumsum(-1)
            # A flat prior is no basis for a choice, but its ripples would decide at small epsilon.
            return order, (truthful.argmax(-1) + 1).where(~is_flat(prior), classes)
        count = classes if self.candidates == "all" else int(self.candidates)
        if count > classes:
            # If there were fewer classes than :meth:`event` counts, the cost would be understated.
            raise ConfigError(f"candidates is {count}, but there are only {classes} classes")
        return order, torch.full_like(order[..., 0], count)

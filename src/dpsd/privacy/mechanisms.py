"""Mechanisms: the only code that sees a teacher's raw answers.

A mechanism is a randomised function *together with* its exact channel and its cost:

1. :meth:`Mechanism.privatize` turns raw answers into a release, the only thing anything else sees;
2. :meth:`Mechanism.log_likelihood` is ``log P(release | the teacher says class c)`` for every
   class ``c``, known exactly because the channel is ours;
3. :meth:`Mechanism.event` is what one answer costs, for :mod:`dpsd.privacy.accounting`.

``prior`` is the student's own prediction for the same queries. The student is built from earlier
releases alone, so the prior is public, and so is whatever is decided from it: the candidates of
randomised response, the coordinates of a gradient, the queries that need no answer.

>>> import torch
>>> from dpsd.privacy.answers import RawAnswers
>>> answers = RawAnswers.seal(torch.eye(3), batch=3, num_classes=3, scores="probabilities")
>>> prior = torch.full((3, 3), 1 / 3)
>>> mechanism = RandomizedResponse(epsilon=20.0)
>>> release = mechanism.privatize(answers, prior)
>>> release.tolist()  # at epsilon = 20 it lies once in 250 million answers
[0, 1, 2]
>>> mechanism.log_likelihood(release, prior).argmax(-1).tolist()
[0, 1, 2]
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import dp_accounting
import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.errors import ConfigError
from dpsd.privacy.answers import RawAnswers, open_for_mechanism
from dpsd.privacy.disagreement import Disagreement, Projections
from dpsd.privacy.parameters import Scaling as Scaling
from dpsd.privacy.parameters import check_candidates, check_scaling
from dpsd.privacy.randomness import NoiseSource, SystemNoise

#: A standard deviation of noise is from 2 to this power steps of its grid, up to twice as many.
_GRID_BITS = 12

#: Numbers in the gradients of all classes that are held at once.
_MOST_GRADIENTS = 1 << 23

#: Numbers of releases in double precision that are held at once.
_MOST_RELEASED = 1 << 22


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


@dataclass(frozen=True, kw_only=True)
class RandomizedResponse(Mechanism):
    """Label-sensitive protection: randomised response over candidate classes; pure ε-DP.

    The teacher's class is reported with probability ``e^ε / (e^ε + k - 1)``, else another of the
    ``k`` candidates, uniformly; a class outside the candidates is answered uniformly from them.

    Args:
        epsilon: privacy of one answer, > 0; ``None`` until calibrated to a budget.
        candidates: ``"per-query"`` takes, for each query, the ``k`` most likely classes under the
            prior that maximise the chance of a truthful report (RRWithPrior); an integer takes the
            top ``k``; ``"all"`` takes every class.
        noise: source of randomness.

    Source: Ghazi et al., "Deep Learning with Label Differential Privacy", NeurIPS 2021, Algorithms
    1 to 3; DPSD (arXiv 2601.19090), label-sensitive protection.

    >>> RandomizedResponse(epsilon=1.0, candidates=1)
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: candidates must be "per-query", "all" or an integer of at least 2, ...
    """

    protects: ClassVar[str] = "labels"
    # At 25 it lies once in seventy billion answers. Below a millionth, the odds of a truth and of a
    # lie are too near each other for double precision to tell what they cost.
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
        """Release one class per answer: int64 ``(N,)`` or ``(teachers, N)``."""
        labels = open_for_mechanism(answers).argmax(-1)
        order, count = self._candidates(prior)
        # Work in ranks under the prior: the candidates are then simply the ranks below `count`.
        ranks = order.argsort(-1).expand(*labels.shape, -1)
        rank = ranks.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        inside = rank < count
        # Against the chance of a lie, as uniform numbers are finest near zero.
        lies = (count - 1) * self._chances(count)[1]
        truthful = inside & (self.noise.uniform(labels.shape).to(labels.device) >= lies)
        # A lie is uniform over the candidates other than the truth: draw from one fewer and step
        # over the truth.
        lie = self.noise.below((count - inside.long()).clamp_min(1))
        lie = lie + (inside & (lie >= rank)).long()
        reported = torch.where(truthful, rank, lie)
        return order.expand(*labels.shape, -1).gather(-1, reported.unsqueeze(-1)).squeeze(-1)

    def face_value(self, release: Tensor, prior: Tensor) -> Tensor:
        """One-hot at the reported class."""
        return F.one_hot(release, prior.shape[-1]).float()

    def log_likelihood(self, release: Tensor, prior: Tensor) -> Tensor:
        order, count = self._candidates(prior)
        inside = order.argsort(-1) < count.unsqueeze(-1)
        possible = inside.expand(*release.shape, -1).gather(-1, release.unsqueeze(-1))
        truth, lie = self._chances(count)
        classes = torch.arange(prior.shape[-1], device=prior.device)
        said = release.unsqueeze(-1) == classes
        told = torch.where(said, truth.unsqueeze(-1), lie.unsqueeze(-1))
        outside = (1.0 / count).unsqueeze(-1)
        probability = torch.where(inside, told, outside) * possible
        return probability.log().to(prior.dtype)

    def agreement(self, release: Tensor, prior: Tensor, predicted: Tensor) -> Tensor:
        """``(1[release = predicted] - q) / (p - q)``, p and q the chances of truth and of one lie.

        Exact when all classes are candidates. With ``k`` of them, an answer outside adds ``1/k``
        instead of 0.
        """
        order, count = self._candidates(prior)
        truth, lie = self._chances(count)
        rank = order.argsort(-1).gather(-1, predicted.long().unsqueeze(-1)).squeeze(-1)
        score = ((release == predicted).double() - lie) / (truth - lie)
        return score.where(_is_flat(prior) & (rank < count), torch.nan)

    def event(self) -> dp_accounting.DpEvent:
        """The k-ary event for a fixed ``k``, else the binary one, which dominates every ε-DP one.

        An answer outside the candidates is a uniform mixture of those inside, so by joint convexity
        it costs no more than the worst pair inside (Kairouz, Oh, Viswanath, ICML 2015).
        """
        buckets = self.candidates if isinstance(self.candidates, int) else 2
        return dp_accounting.RandomizedResponseDpEvent(
            noise_parameter=buckets / (math.exp(self._epsilon) + buckets - 1), num_buckets=buckets
        )

    def needs_answer(self, prior: Tensor) -> Tensor:
        """All queries but those with a single candidate, whose answer would be no news."""
        return self._candidates(prior)[1] > 1

    @property
    def _epsilon(self) -> float:
        if self.epsilon is None:
            raise ValueError("epsilon is not set: calibrate the mechanism to a budget first")
        return self.epsilon

    def _chances(self, count: Tensor) -> tuple[Tensor, Tensor]:
        """Of the truth, and of each other candidate, where there are ``count`` of them."""
        # In float64: in float32, the truth would be certain from epsilon 17 on.
        odds = math.exp(-self._epsilon)
        truth = 1 / (1 + (count.double() - 1) * odds)
        return truth, truth * odds

    def _candidates(self, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Classes from likely to unlikely, ``(N, K)``, and how many are candidates, ``(N,)``."""
        likely, order = prior.double().sort(dim=-1, descending=True, stable=True)
        classes = prior.shape[-1]
        if self.candidates == "per-query":
            counts = torch.arange(1, classes + 1, device=prior.device)
            truthful = self._chances(counts)[0] * likely.cumsum(-1)
            # A flat prior has nothing to choose by, though its ripples would, at a small epsilon.
            return order, (truthful.argmax(-1) + 1).where(~_is_flat(prior), classes)
        count = classes if self.candidates == "all" else int(self.candidates)
        if count > classes:
            # Answered from fewer classes than :meth:`event` counts, the cost would be understated.
            raise ConfigError(f"candidates is {count}, but there are only {classes} classes")
        return order, torch.full_like(order[..., 0], count)


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Mechanism):
    """What mechanisms with Gaussian noise share: how loud it is, and how it is added."""

    noise_multiplier: float | None = None
    noise: NoiseSource = field(default_factory=SystemNoise)

    #: Upper end of the grid's step, for values that have to lie on the grid themselves.
    _coarsest_step: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        if self.noise_multiplier is not None and not (0 < self.noise_multiplier < math.inf):
            raise ValueError(
                f"noise_multiplier must be positive and finite, not {self.noise_multiplier}"
            )

    @property
    def is_calibrated(self) -> bool:
        return self.noise_multiplier is not None

    def with_strength(self, strength: float) -> GaussianNoise:
        return replace(self, noise_multiplier=1 / strength)

    def with_level(self, parameters: Mapping[str, object]) -> GaussianNoise:
        return replace(self, noise_multiplier=float(str(parameters["noise_multiplier"])))

    @property
    def _noise_multiplier(self) -> float:
        if self.noise_multiplier is None:
            raise ValueError("noise_multiplier is not set: calibrate the mechanism to a budget")
        return self.noise_multiplier

    def _noisy(self, values: Tensor, deviation: float) -> Tensor:
        """``values`` with Gaussian noise of that standard deviation, float64, on a grid.

        The values are cut to the grid towards zero, which makes no norm longer, and discrete
        Gaussian noise is added in whole numbers: nothing of a value is left between the points.
        """
        step = self._step(deviation)
        noise = self.noise.discrete_gaussian(tuple(values.shape), scale=deviation / step)
        return ((values / step).trunc() + noise.to(values.device)) * step

    def _step(self, deviation: float) -> float:
        """Of the grid for noise of that standard deviation: a power of two, so sums are exact."""
        return min(self._coarsest_step, 2.0 ** (math.floor(math.log2(deviation)) - _GRID_BITS))


@dataclass(frozen=True, kw_only=True)
class Gaussian(GaussianNoise):
    """Data-sensitive protection: Gaussian noise on normalised output gradients.

    The answer is the gradient of the distillation loss at the student's output,
    ``g = prior - f(x)``, restricted to the prior's ``top_k`` coordinates, normalised to
    ``C g / ‖g‖`` (or clipped to ``C g min(1, 1/‖g‖)``), widened, plus ``N(0, σ² C² I)``. The
    coordinates are chosen from the prior, which is public, so noise is owed on those alone;
    choosing them from the answer would leak the choice.

    Two normalised gradients are ``2 C`` apart at most, but those of two *classes* are nearer under
    most priors: 1.49 C for ten classes and a flat one. How much nearer follows from the prior, so
    where answers are hardened, a query's gradients are widened until two answers to it are up to
    ``2 C`` apart: the signal is stronger for the same noise and ε. Clipping projects onto a ball,
    so clipped gradients are no further apart than their classes, ``√2 C``, and widened by ``√2``.
    So are those that are left as they are, of which *all* classes are ``2 C`` apart then, if all
    are released: as far as any such mechanism can bring them.

    Args:
        noise_multiplier: σ, > 0; ``None`` until calibrated to a budget.
        bound: C, > 0.
        top_k: coordinates released; ``None`` releases all.
        scaling: normalise (the paper's), clip, or neither.
        harden: answer with the teacher's class instead of its probabilities. The channel from class
            to release is then exactly the one that ``log_likelihood`` describes.
        widen: as above; the published mechanism does not.
        noise: source of randomness.

    Source: DPSD (arXiv 2601.19090), data-sensitive protection; DPDFD (arXiv 2304.12528).
    """

    protects: ClassVar[str] = "data"

    bound: float = 1.0
    top_k: int | None = None
    scaling: Scaling = Scaling.NORMALIZE
    harden: bool = True
    widen: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.bound < math.inf):
            raise ValueError(f"bound must be positive and finite, not {self.bound}")
        if self.top_k is not None and self.top_k < 2:
            raise ValueError(f"top_k must be at least 2, not {self.top_k}")
        object.__setattr__(self, "scaling", Scaling(self.scaling))
        check_scaling(self.scaling, harden=self.harden)

    def parameters(self) -> dict[str, object]:
        return {
            "name": "gaussian",
            "noise_multiplier": self._noise_multiplier,
            "bound": self.bound,
            "sensitivity": 2 * self.bound,
            "top_k": self.top_k,
            "scaling": self.scaling.value,
            "harden": self.harden,
            "widen": self.widen,
        }

    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        """Release noisy gradients: float32 ``(N, top_k)`` or ``(teachers, N, top_k)``."""
        probabilities = open_for_mechanism(answers)
        if self.harden:
            labels = probabilities.argmax(-1, keepdim=True)
            probabilities = torch.zeros_like(probabilities).scatter_(-1, labels, 1.0)
        coordinates, likely, widening = self._coordinates(prior)
        shown = probabilities.double().gather(-1, coordinates.expand(*probabilities.shape[:-1], -1))
        gradient = likely - shown
        scale = widening * self._scale(gradient.square().sum(-1, keepdim=True))
        return self._noisy(gradient * scale, self._deviation).float()

    def face_value(self, release: Tensor, prior: Tensor) -> Tensor:
        """The prior less the noisy gradient: the label whose gradient it would be."""
        coordinates, _, widening = self._coordinates(prior)
        gradient = (release.double() / widening).float()
        return prior.float().scatter_add(-1, coordinates, -gradient)

    def log_likelihood(self, release: Tensor, prior: Tensor) -> Tensor:
        coordinates, likely, widening = self._coordinates(prior)
        seen = release.double()
        # Were the answer one-hot at c, the gradient would be the prior minus e_c. Only inner
        # products with it are needed, so no (N, K, top_k) tensor is ever made.
        inside = torch.zeros_like(prior, dtype=torch.float64).scatter_(-1, coordinates, 1.0)
        at_class = torch.zeros(
            (*seen.shape[:-1], prior.shape[-1]), dtype=torch.float64, device=prior.device
        ).scatter_(-1, coordinates.expand(*seen.shape[:-1], -1), seen)
        squared = likely.square().sum(-1, keepdim=True) + inside * (1 - 2 * prior.double())
        scale = widening * self._scale(squared)
        projection = scale * ((seen * likely).sum(-1, keepdim=True) - at_class)
        distance = seen.square().sum(-1, keepdim=True) - 2 * projection + scale.square() * squared
        variance = self._deviation**2
        constant = 0.5 * seen.shape[-1] * math.log(2 * math.pi * variance)
        return (-distance / (2 * variance) - constant).to(prior.dtype)

    def agreement(self, release: Tensor, prior: Tensor, predicted: Tensor) -> Tensor:
        """The affine function of the release whose mean is 1 at ``predicted`` and 0 elsewhere.

        With means ``μ_c = s_c (p - e_c)`` for a class inside the released coordinates and
        ``s_0 p`` outside, the function ``a·r + b`` with ``a_c = u - (1[c = predicted] - b) / s_c``
        has the right mean inside for any ``b`` when ``u = a·p``; the class outside, if there is
        one, then fixes ``b = -s_0 u``. NaN where the predicted class is not released, and
        everywhere if answers are not hardened, as the means are then unknown.
        """
        coordinates, likely, widening = self._coordinates(prior)
        norm = likely.square().sum(-1, keepdim=True)
        scale = widening * self._scale(norm + 1 - 2 * likely)
        wanted = (coordinates == predicted.long().unsqueeze(-1)).double()
        at_wanted = (wanted * likely / scale).sum(-1, keepdim=True)
        spread = (likely / scale).sum(-1, keepdim=True)
        if coordinates.shape[-1] == prior.shape[-1]:
            inner, constant = torch.zeros_like(norm), at_wanted / spread
        else:
            outside = widening * self._scale(norm)
            inner = at_wanted / (likely.sum(-1, keepdim=True) - 1 - outside * spread)
            constant = -outside * inner
        direction = inner - (wanted - constant) / scale
        score = ((direction * release.double()).sum(-1, keepdim=True) + constant).squeeze(-1)
        known = _is_flat(prior) & wanted.any(-1) & self.harden
        return score.where(known, torch.nan)

    def event(self) -> dp_accounting.DpEvent:
        """A Gaussian whose noise is measured against the sensitivity under replacement, ``2 C``."""
        return dp_accounting.GaussianDpEvent(noise_multiplier=self._noise_multiplier / 2)

    @property
    def _deviation(self) -> float:
        return self._noise_multiplier * self.bound

    def _coordinates(self, prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The released coordinates ``(N, top_k)``, likeliest first; the prior there; the widening.

        The widening ``(N, 1)`` is how many times as long gradients may be until two answers are
        ``2 C`` apart; 1 at least where they are C long at most, so that no two are further apart.
        """
        ordered, order = prior.double().sort(dim=-1, descending=True, stable=True)
        kept = prior.shape[-1] if self.top_k is None else min(self.top_k, prior.shape[-1])
        likely = ordered[..., :kept]
        if not (self.harden and self.widen):
            apart = torch.full_like(likely[..., :1], 2.0)
        elif self.scaling is not Scaling.NORMALIZE:
            apart = torch.full_like(likely[..., :1], math.sqrt(2))
        else:
            apart = _farthest_apart(likely, others=kept < prior.shape[-1])
        # Cut to the grid, two values may end up a step further apart in every coordinate.
        grid = self._step(self._deviation) / self.bound * math.sqrt(kept)
        # Left as they are, gradients may be longer than C: they give the grid its due however
        # coarse it is, until nothing is left of them.
        least = 1e-9 if self.scaling is Scaling.NONE else 1.0
        return order[..., :kept], likely, ((2 - grid) / apart).clamp_min(least)

    def _scale(self, squared_norm: Tensor) -> Tensor:
        """What brings a gradient of this squared norm within the bound."""
        if self.scaling is Scaling.NONE:
            return torch.full_like(squared_norm, self.bound)
        norm = squared_norm.clamp_min(1e-24).sqrt()
        if self.scaling is Scaling.CLIP:
            return self.bound / norm.clamp_min(1.0)
        # Below 1e-6 the direction is rounding error; such a gradient shrinks instead of growing.
        return self.bound / norm.clamp_min(1e-6)


@dataclass(frozen=True, kw_only=True)
class NoisySum(GaussianNoise):
    """Gaussian noise on a sum over many teachers, each of which says one class.

    A record of the training data reaches one teacher, if the teachers' data are disjoint; it can
    change all that this teacher ever says, and nothing else. So the whole run costs one such event
    for every query under ``teacher`` adjacency, and that is record-level differential privacy.
    The signal grows with the number of teachers, and the noise does not.

    Args:
        noise_multiplier: standard deviation of the noise, in units of what one teacher adds;
            ``None`` until calibrated to a budget.
        teachers: how many there are; ``None`` until known.
        noise: source of randomness.
        disagreement: how far the teachers agree; estimated from the releases by :meth:`informed`.
    """

    teachers: int | None = None
    disagreement: Disagreement | None = field(default=None, repr=False, compare=False)

    #: How far a sum can move, in the Euclidean norm, when one teacher changes its mind.
    sensitivity: ClassVar[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teachers is not None and self.teachers < 2:
            raise ValueError(f"teachers must be at least 2, not {self.teachers}")

    @abstractmethod
    def _summed(self, votes: Tensor, prior: Tensor) -> Tensor:
        """The sum over teachers ``(N, K)``, of which ``votes`` ``(N, K)`` say each class."""

    @abstractmethod
    def _projections(self, release: Tensor, prior: Tensor) -> Projections:
        """What the releases' likelihood depends on."""

    def for_members(self, members: int) -> NoisySum:
        if members < 2:
            raise ConfigError(
                f"{type(self).__name__} sums over many teachers, and this is one; use "
                "RandomizedResponse or Gaussian, or train several with train-teacher --shards"
            )
        return replace(self, teachers=members)

    def parameters(self) -> dict[str, object]:
        return {
            "name": self.name,
            "noise_multiplier": self._noise_multiplier,
            "sensitivity": self.sensitivity,
            "teachers": self._teachers,
        }

    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        """Release noisy sums: float32 ``(N, K)`` for answers ``(teachers, N, K)``."""
        votes = self._counted(open_for_mechanism(answers).argmax(-1), prior)
        total = self._summed(votes, prior.double())
        return self._noisy(total, self._noise_multiplier).float()

    def _counted(self, labels: Tensor, prior: Tensor) -> Tensor:
        """How many teachers say each class, ``(N, K)``."""
        if labels.ndim != 2 or len(labels) != self._teachers:
            raise ConfigError(
                f"{type(self).__name__} is for {self._teachers} teachers; the answers are of shape "
                f"{tuple(labels.shape)}"
            )
        votes = torch.zeros(prior.shape, dtype=torch.float64, device=labels.device)
        return votes.scatter_add_(-1, labels.mT, votes.new_ones(()).expand(labels.mT.shape))

    def log_likelihood(self, release: Tensor, prior: Tensor) -> Tensor:
        """``log P(release | most teachers say class c)``, with their disagreement as estimated."""
        known = self.disagreement or Disagreement.assumed(prior.shape[-1])
        moved = replace(known, agreement=known.agreement.to(prior.device))
        return moved.log_likelihood(self._projections(release, prior)).to(prior.dtype)

    def informed(self, release: Tensor, prior: Tensor) -> NoisySum:
        start = Disagreement.assumed(prior.shape[-1])
        rows = max(1, _MOST_RELEASED // prior.shape[-1])
        parts = list(zip(torch.split(release, rows), torch.split(prior, rows), strict=True))
        fitted = start.fitted(lambda: (self._projections(*part) for part in parts))
        return replace(self, disagreement=fitted)

    def agreement(self, release: Tensor, prior: Tensor, predicted: Tensor) -> Tensor:
        """The share of teachers that say the predicted class, estimated without bias."""
        shares = self.shares(release, prior)
        return shares.gather(-1, predicted.long().unsqueeze(-1)).squeeze(-1)

    @abstractmethod
    def shares(self, release: Tensor, prior: Tensor) -> Tensor: ...

    def face_value(self, release: Tensor, prior: Tensor) -> Tensor:
        return self.shares(release, prior)

    def event(self) -> dp_accounting.DpEvent:
        """A Gaussian whose noise is measured against the sensitivity."""
        return dp_accounting.GaussianDpEvent(self._noise_multiplier / self.sensitivity)

    @property
    def name(self) -> str:
        """As certificates say it."""
        return "-".join(re.findall("[A-Z][a-z]+", type(self).__name__)).lower()

    @property
    def _teachers(self) -> int:
        if self.teachers is None:
            raise ValueError("teachers is not set: say how many there are")
        return self.teachers

    @property
    def _variance(self) -> float:
        """Of the noise in a mean over teachers."""
        return (self._noise_multiplier / self._teachers) ** 2


@dataclass(frozen=True, kw_only=True)
class NoisyVotes(NoisySum):
    """The histogram of the teachers' votes, with Gaussian noise on every bin.

    All of it is released. When one teacher changes its vote, one bin loses and another gains: the
    sensitivity is √2.

    Source: Papernot et al., "Scalable Private Learning with PATE", ICLR 2018 (GNMax), which
    releases the largest bin's class alone; the noisy bins cost the same and say more.

    >>> import torch
    >>> from dpsd.privacy.answers import RawAnswers
    >>> said = torch.eye(3)[torch.tensor([[0, 2], [0, 2], [1, 2]])]  # three teachers, two queries
    >>> answers = RawAnswers.seal(said, batch=2, num_classes=3, scores="probabilities")
    >>> mechanism = NoisyVotes(noise_multiplier=1e-3, teachers=3)
    >>> mechanism.privatize(answers, torch.full((2, 3), 1 / 3)).round().int().tolist()
    [[2, 1, 0], [0, 0, 3]]
    """

    protects: ClassVar[str] = "labels"
    sensitivity: ClassVar[float] = math.sqrt(2)
    # Votes are whole numbers, and stay so: cut towards zero, one vote could count for more.
    _coarsest_step: ClassVar[float] = 1.0
    # The table of a discrete Gaussian grows with its scale in steps.
    strengths: ClassVar[tuple[float, float]] = (1e-4, 1e5)

    def _summed(self, votes: Tensor, prior: Tensor) -> Tensor:
        return votes

    def shares(self, release: Tensor, prior: Tensor) -> Tensor:
        return release / self._teachers

    def _projections(self, release: Tensor, prior: Tensor) -> Projections:
        return Projections.of_votes(release.double() / self._teachers, variance=self._variance)


@dataclass(frozen=True, kw_only=True)
class ConfidentVotes(NoisyVotes):
    """Votes, paid for only where a noisy test says that the teachers agree.

    The largest bin, with noise of its own, is compared with a threshold; of the queries that pass,
    the clearest are answered, and never more than a share ``answered`` of a batch, whatever the
    teachers say: that makes the cost independent of the data. Rows of queries that are not
    answered are NaN. One teacher moves the largest bin by at most 1.

    Args:
        threshold: share of the teachers that must seem to agree, in (0, 1).
        test_noise: standard deviation of the test's noise, in that of the votes', in (0, 10].
        answered: the largest share of a batch that is answered, in (0, 1].

    Source: Papernot et al., "Scalable Private Learning with PATE", ICLR 2018, Confident-GNMax
    (Algorithm 1), with data-independent accounting.
    """

    threshold: float = 0.5
    test_noise: float = 2.0
    answered: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (("threshold", 1.0), ("answered", 1.0), ("test_noise", 10.0)):
            if not (0 < getattr(self, name) <= most):
                raise ValueError(
                    f"{name} must be positive and at most {most:g}, not {getattr(self, name)}"
                )

    def parameters(self) -> dict[str, object]:
        return {
            **super().parameters(),
            "threshold": self.threshold,
            "test_noise_multiplier": self.test_noise * self._noise_multiplier,
            "test_sensitivity": 1,
            "answered_at_most": self.answered,
        }

    def privatize(self, answers: RawAnswers, prior: Tensor, *, batches: int = 1) -> Tensor:
        """Release noisy votes of the queries that pass: float32 ``(N, K)``, NaN for the others.

        Args:
            answers: ``(teachers, N, K)``.
            prior: ``(N, K)``.
            batches: of how many batches, all of the same size and one after another, these are the
                queries; each is capped on its own.
        """
        votes = self._counted(open_for_mechanism(answers).argmax(-1), prior)
        # All that follows of the test sees the noisy maxima alone: who is displaced by whom too.
        seeming = self._noisy(votes.amax(-1), self.test_noise * self._noise_multiplier)
        seeming = seeming.reshape(batches, -1)
        clearest = seeming.argsort(descending=True)[..., : int(self.answered * seeming.shape[-1])]
        passed = torch.zeros_like(seeming, dtype=torch.bool).scatter_(-1, clearest, True)
        passed = (passed & (seeming >= self.threshold * self._teachers)).flatten()
        release = torch.full_like(votes, torch.nan)
        release[passed] = self._noisy(votes[passed], self._noise_multiplier)
        return release.float()

    def event(self) -> dp_accounting.DpEvent:
        """A test and an answer, as one Gaussian: their squared signals add up.

        Where one query's answers differ, one noisy maximum does. The cap may then let another query
        take its place, or give up its own; but that is computed from noisy maxima, and what is
        released of the other has the same distribution in both worlds. So nothing is added.
        """
        return self._composed(1.0)

    def mean_event(self) -> dp_accounting.DpEvent:
        """A test, and an answer as often as one is given at most.

        Of a batch at most a share is answered, whatever the data: as if exactly so many were, of
        which some are not shown. Which ones, is computed from noisy maxima.
        """
        return self._composed(self.answered)

    def _composed(self, answers: float) -> dp_accounting.DpEvent:
        signal = answers * self.sensitivity**2 + 1 / self.test_noise**2
        return dp_accounting.GaussianDpEvent(self._noise_multiplier / math.sqrt(signal))


@dataclass(frozen=True, kw_only=True)
class SummedGradients(NoisySum):
    """The sum of the teachers' normalised output gradients, with Gaussian noise.

    Each teacher adds ``g_c / ‖g_c‖`` with ``g_c = prior - e_c``, c the class it says (the bound C
    is 1: noise is in its units). Two answers move the sum by at most 2.

    Source: DPSD (arXiv 2601.19090), data-sensitive protection, summed over teachers as in DataLens
    (arXiv 2103.11109).
    """

    protects: ClassVar[str] = "data"
    sensitivity: ClassVar[float] = 2.0

    def _summed(self, votes: Tensor, prior: Tensor) -> Tensor:
        # Each teacher's gradient is cut to the grid before it is added: cut afterwards, the sum
        # could move by more than one of them does.
        step = self._step(self._noise_multiplier)
        classes = prior.shape[-1]
        gradients = -torch.eye(classes, dtype=prior.dtype, device=prior.device)
        sums = []
        rows = max(1, _MOST_GRADIENTS // classes**2)
        for part, voted in zip(torch.split(prior, rows), torch.split(votes, rows), strict=True):
            each = (gradients + part.unsqueeze(-2)) / self._norms(part).unsqueeze(-1)
            sums.append((voted.unsqueeze(-2) @ (each / step).trunc()).squeeze(-2) * step)
        return torch.cat(sums)

    def shares(self, release: Tensor, prior: Tensor) -> Tensor:
        """Solves ``r = n Σ_c v_c (p - e_c) / ‖g_c‖`` for the shares ``v``, which sum to one."""
        exact = prior.double()
        norms = self._norms(exact)
        mean = release.double() / self._teachers
        # Coordinate c says v_c / norm_c = p_c A - r_c / n, with A = Σ v_c / norm_c.
        scale = (1 + (mean * norms).sum(-1, keepdim=True)) / (exact * norms).sum(-1, keepdim=True)
        return (norms * (exact * scale - mean)).to(release.dtype)

    def _projections(self, release: Tensor, prior: Tensor) -> Projections:
        exact = prior.double()
        inverse = 1 / self._norms(exact)
        mean = release.double() / self._teachers
        total = exact * inverse.sum(-1, keepdim=True) - inverse
        return Projections(
            seen=inverse * ((mean * exact).sum(-1, keepdim=True) - mean),
            size=mean.square().sum(-1, keepdim=True),
            own=torch.ones_like(exact),
            cross=inverse * ((total * exact).sum(-1, keepdim=True) - total),
            total=total.square().sum(-1, keepdim=True),
            dimensions=exact.shape[-1],
            variance=self._variance,
        )

    def _norms(self, prior: Tensor) -> Tensor:
        """‖prior - e_c‖ for every class, ``(N, K)``."""
        squared = prior.square().sum(-1, keepdim=True) + 1 - 2 * prior
        # A prior sure of one class has no gradient there; a tiny one is as good as none.
        return squared.clamp_min(1e-6).sqrt()


def _farthest_apart(likely: Tensor, *, others: bool) -> Tensor:
    """Distance of the two classes' normalised gradients that are furthest apart, ``(N, 1)``.

    Args:
        likely: the prior ``p`` at the released coordinates, likeliest first, ``(N, k)``.
        others: whether there are classes that are not released; their gradient is ``p`` itself.

    Of one ``p``, the cosine between ``p - e_c`` and ``p - e_d`` falls as ``p_c`` or ``p_d`` rises
    (with ``‖p‖`` held fixed, its derivative in ``p_c`` has the sign of ``p_c - p_d - 1``), as does
    that between ``p`` and ``p - e_c``: the likeliest classes are furthest apart. In sums of
    positive numbers only, as a sure prior would leave nothing but rounding errors of
    ``‖p‖² + 1 - 2 p_c``.
    """
    first, second = likely[..., :1], likely[..., 1:2]
    rest = likely[..., 2:].square().sum(-1, keepdim=True)
    to_first = ((1 - first).square() + second.square() + rest).sqrt()
    to_second = (first.square() + (1 - second).square() + rest).sqrt()
    inner = rest - first * (1 - first) - second * (1 - second)
    cosine = inner / (to_first * to_second).clamp_min(1e-24)
    if others:
        own = (first.square() + second.square() + rest).sqrt()
        inner = second.square() + rest - first * (1 - first)
        cosine = torch.minimum(cosine, inner / (to_first * own).clamp_min(1e-24))
    # Gradients no longer than rounding errors are left short (see `_scale`), so nearer than this.
    return (2 - 2 * cosine.clamp(-1.0, 0.0)).sqrt()


def _is_flat(prior: Tensor) -> Tensor:
    """Rows that favour no class: those of the first round and of exploration, ``(N,)`` bool."""
    return prior.amax(-1) < 1.1 / prior.shape[-1]

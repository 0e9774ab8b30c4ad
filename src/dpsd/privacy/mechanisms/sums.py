"""Protection of whole teachers: noisy sums over the answers of many."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import dp_accounting
import torch
from torch import Tensor

from dpsd.errors import ConfigError
from dpsd.privacy.answers import RawAnswers, open_for_mechanism
from dpsd.privacy.mechanisms.disagreement import Disagreement, Projections
from dpsd.privacy.mechanisms.gaussian import GaussianNoise

#: The most numbers of the gradients of all classes that are in memory at once.
_MOST_GRADIENTS = 1 << 23

#: The most numbers of releases in double precision that are in memory at once.
_MOST_RELEASED = 1 << 22


@dataclass(frozen=True, kw_only=True)
class NoisySum(GaussianNoise):
    """Gaussian noise on a sum over many teachers, each of which says one class.

    If the teachers' data are disjoint, a training record reaches only one teacher. It can change
    everything that this teacher ever says, and nothing else. So the whole run costs one such event
    for every query under ``teacher`` adjacency, and that is record-level differential privacy.
    The signal grows with the number of teachers, and the noise does not.

    Args:
        noise_multiplier: the standard deviation of the noise, in units of what one teacher adds;
            ``None`` until calibrated to a budget.
        teachers: the number of teachers; ``None`` until known.
        noise: the source of randomness.
        disagreement: how much the teachers disagree; :meth:`informed` estimates it from releases.
    """

    teachers: int | None = None
    disagreement: Disagreement | None = field(default=None, repr=False, compare=False)

    #: The sensitivity: how far the sum can move, in the Euclidean norm, if one teacher's answer
    #: changes.
    sensitivity: ClassVar[float]

    #: The fewest and the most teachers that are summed.
    _fewest_teachers: ClassVar[int] = 2
    _most_teachers: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = self._fewest_teachers, self._most_teachers
        if self.teachers is not None and not least <= self.teachers <= most:
            limits = f"at least {least}" if most == math.inf else f"from {least} to {most:,}"
            raise ValueError(f"teachers must be {limits}, not {self.teachers}")

    @abstractmethod
    def _summed(self, votes: Tensor, prior: Tensor) -> Tensor:
        """The sum over teachers, ``(N, K)``, given the ``votes`` for each class, ``(N, K)``."""

    @abstractmethod
    def _projections(self, release: Tensor, prior: Tensor) -> Projections:
        """The projections that the likelihood of the releases depends on."""

    def for_members(self, members: int) -> NoisySum:
        if members < self._fewest_teachers:
            raise ConfigError(
                f"{type(self).__name__} sums over many teachers, but there is only one; use "
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
        """The number of teachers that say each class, ``(N, K)``."""
        if labels.ndim != 2 or len(labels) != self._teachers:
            raise ConfigError(
                f"{type(self).__name__} is for {self._teachers} teachers; the answers are of shape "
                f"{tuple(labels.shape)}"
            )
        votes = torch.zeros(prior.shape, dtype=torch.float64, device=labels.device)
        return votes.scatter_add_(-1, labels.mT, votes.new_ones(()).expand(labels.mT.shape))

    def log_likelihood(self, release: Tensor, prior: Tensor) -> Tensor:
        """``log P(release | most teachers say class c)``, given the estimated disagreement."""
        known = self.disagreement or Disagreement.assumed(prior.shape[-1])
        moved = replace(known, agreement=known.agreement.to(prior.device))
        return moved.log_likelihood(self._projections(release, prior)).to(prior.dtype)

    def informed(self, release: Tensor, prior: Tensor) -> Self:
        start = Disagreement.assumed(prior.shape[-1])
        rows = max(1, _MOST_RELEASED // prior.shape[-1])
        parts = list(zip(torch.split(release, rows), torch.split(prior, rows), strict=True))
        fitted = start.fitted(lambda: (self._projections(*part) for part in parts))
        return replace(self, disagreement=fitted)

    def agreement(self, release: Tensor, prior: Tensor, predicted: Tensor) -> Tensor:
        """Unbiased estimates of the share of teachers that say the predicted class."""
        shares = self.shares(release, prior)
        return shares.gather(-1, predicted.long().unsqueeze(-1)).squeeze(-1)

    @abstractmethod
    def shares(self, release: Tensor, prior: Tensor) -> Tensor: ...

    def face_value(self, release: Tensor, prior: Tensor) -> Tensor:
        return self.shares(release, prior)

    def event(self) -> dp_accounting.DpEvent:
        """A Gaussian event, with noise relative to the sensitivity."""
        return dp_accounting.GaussianDpEvent(self._noise_multiplier / self.sensitivity)

    @property
    def name(self) -> str:
        """The mechanism's name in certificates."""
        return "-".join(re.findall("[A-Z][a-z]+", type(self).__name__)).lower()

    @property
    def _teachers(self) -> int:
        if self.teachers is None:
            raise ValueError("teachers is not set: give the number of teachers")
        return self.teachers

    @property
    def _variance(self) -> float:
        """The variance of the noise on a mean over teachers."""
        return (self._noise_multiplier / self._teachers) ** 2


@dataclass(frozen=True, kw_only=True)
class NoisyVotes(NoisySum):
    """The histogram of the teachers' votes, with Gaussian noise on every bin.

    The whole histogram is released. If one teacher changes its vote, one bin loses a vote and
    another gains one, so the sensitivity is √2.

    Source: Papernot et al., "Scalable Private Learning with PATE", ICLR 2018 (GNMax), which
    releases only the class of the largest bin; the noisy bins cost the same and say more.

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
    # Votes are whole numbers and must stay on the grid: if sums were truncated, one vote could move
    # them by more than one.
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
    """Votes that are paid for only where a noisy test says that the teachers agree.

    The largest bin, with noise of its own, is compared with a threshold. Of the queries that pass,
    the clearest are answered, and never more than a share ``answered`` of a batch, whatever the
    teachers say; this makes the cost independent of the data. Rows of queries that are not answered
    are NaN. One teacher moves the largest bin by at most 1.

    Args:
        threshold: the share of teachers that must appear to agree, in (0, 1].
        test_noise: the standard deviation of the test's noise, in units of that of the votes, in
            (0, 10].
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

    @property
    def estimates_agreement(self) -> bool:
        """Never, as only the queries on which teachers agree are answered."""
        return False

    def privatize(self, answers: RawAnswers, prior: Tensor, *, batches: int = 1) -> Tensor:
        """Release noisy votes for the queries that pass, float32 ``(N, K)``, and NaN for others.

        Args:
            answers: the answers, ``(teachers, N, K)``.
            prior: the priors, ``(N, K)``.
            batches: the number of consecutive batches of equal size that the queries make up; the
                share answered is capped in each batch on its own.
        """
        votes = self._counted(open_for_mechanism(answers).argmax(-1), prior)
        # The rest of the test depends on the noisy maxima alone, even which queries are displaced.
        seeming = self._noisy(votes.amax(-1), self.test_noise * self._noise_multiplier)
        seeming = seeming.reshape(batches, -1)
        clearest = seeming.argsort(descending=True)[..., : int(self.answered * seeming.shape[-1])]
        passed = torch.zeros_like(seeming, dtype=torch.bool).scatter_(-1, clearest, True)
        passed = (passed & (seeming >= self.threshold * self._teachers)).flatten()
        release = torch.full_like(votes, torch.nan)
        release[passed] = self._noisy(votes[passed], self._noise_multiplier)
        return release.float()

    def event(self) -> dp_accounting.DpEvent:
        """A test and an answer as one Gaussian event, as their squared signals add up.

        If the answers to one query differ, one noisy maximum does. Through the cap, another query
        may then take its place, or lose its own; but this is computed from the noisy maxima, and
        the release for the other query has the same distribution in both worlds. So it adds no
        cost.
        """
        return self._composed(1.0)

    def mean_event(self) -> dp_accounting.DpEvent:
        """A test for every query, and answers for the largest share that can be answered.

        At most a fixed share of a batch is answered, whatever the data. This costs as much as if
        exactly that share were answered and some of the answers not shown; which ones is computed
        from the noisy maxima.
        """
        return self._composed(self.answered)

    def _composed(self, answers: float) -> dp_accounting.DpEvent:
        signal = answers * self.sensitivity**2 + 1 / self.test_noise**2
        return dp_accounting.GaussianDpEvent(self._noise_multiplier / math.sqrt(signal))


@dataclass(frozen=True, kw_only=True)
class SummedGradients(NoisySum):
    """The sum of the teachers' normalised output gradients, with Gaussian noise.

    Each teacher adds ``g_c / ‖g_c‖`` with ``g_c = prior - e_c``, where c is the class it says. (The
    bound C is 1, and noise is in its units.) If one teacher's answer changes, the sum moves by at
    most 2.

    Source: DPSD (arXiv 2601.19090), data-sensitive protection, summed over teachers as in DataLens
    (arXiv 2103.11109).
    """

    protects: ClassVar[str] = "data"
    sensitivity: ClassVar[float] = 2.0

    def _summed(self, votes: Tensor, prior: Tensor) -> Tensor:
        # Each teacher's gradient is truncated to the grid before it is added: truncated afterwards,
        # the sum could move by more than a gradient does.
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
        """Solve ``r = n Σ_c v_c (p - e_c) / ‖g_c‖`` for the shares ``v``, which sum to one."""
        exact = prior.double()
        norms = self._norms(exact)
        mean = release.double() / self._teachers
        # Coordinate c gives v_c / norm_c = p_c A - r_c / n, with A = Σ v_c / norm_c.
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
        # A prior that is sure of a class has no gradient at it; a tiny gradient counts as none.
        return squared.clamp_min(1e-6).sqrt()

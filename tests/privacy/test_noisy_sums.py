"""Sums over many teachers: sensitivity, noise, channel, and what is learned about disagreement."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from dpsd.errors import ConfigError
from dpsd.privacy.accounting import Adjacency, Budget, Exposure, calibrate, spent
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import (
    Gaussian,
    NoisySum,
    NoisyVotes,
    RandomizedResponse,
    SummedGradients,
)
from dpsd.privacy.randomness import ReproducibleNoise

CLASSES = 5
TEACHERS = 12
PRIOR = torch.tensor([0.4, 0.05, 0.3, 0.07, 0.18], dtype=torch.float64)
SUMS = pytest.mark.parametrize("kind", [NoisyVotes, SummedGradients])
Seal = Callable[[Tensor, int], RawAnswers]


def signatures(kind: type[NoisySum], prior: Tensor) -> Tensor:
    """What one teacher adds for every class, by the definition, ``(K, K)``."""
    one = torch.eye(CLASSES, dtype=torch.float64)
    if kind is NoisyVotes:
        return one
    gradients = prior - one
    return gradients / gradients.norm(dim=-1, keepdim=True)


def residuals(mechanism: NoisySum, seal: Seal, count: int = 4_000) -> Tensor:
    """Releases less their means, in units of the noise they should have."""
    said = torch.randint(0, CLASSES, (TEACHERS, count), generator=torch.Generator().manual_seed(1))
    released = mechanism.privatize(seal(said, CLASSES), PRIOR.expand(count, -1))
    kind = NoisyVotes if isinstance(mechanism, NoisyVotes) else SummedGradients
    mean = signatures(kind, PRIOR)[said].sum(0)
    assert mechanism.noise_multiplier is not None
    return (released.double() - mean) / mechanism.noise_multiplier


def follows_channel(mechanism: NoisySum, seal: Seal) -> float:
    return float(stats.kstest(residuals(mechanism, seal).ravel().numpy(), "norm").pvalue)


@SUMS
def test_releases_are_sums_and_noise(
    kind: type[NoisySum], noise: ReproducibleNoise, seal_classes: Seal
) -> None:
    mechanism = kind(noise_multiplier=3.0, teachers=TEACHERS, noise=noise)
    assert follows_channel(mechanism, seal_classes) > 1e-4
    found = residuals(mechanism.with_noise(ReproducibleNoise(seed=9)), seal_classes)  # type: ignore[arg-type]
    correlation = torch.corrcoef(found.T) - torch.eye(CLASSES)
    assert correlation.abs().max() < 5 / math.sqrt(len(found))


@dataclass(frozen=True, kw_only=True)
class NoiseOnTheWinnerOnly(NoisyVotes):
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        noisy = super().privatize(answers, prior)
        bare = NoisyVotes(noise_multiplier=1e-9, teachers=self.teachers).privatize(answers, prior)
        return torch.where(bare == bare.amax(-1, keepdim=True), noisy, bare)


@dataclass(frozen=True, kw_only=True)
class MeanInsteadOfSum(NoisyVotes):
    """Noise divided as well: a mean's sensitivity is smaller, this adds noise as if it were not."""

    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        return super().privatize(answers, prior) / TEACHERS


@dataclass(frozen=True, kw_only=True)
class NoNoise(NoisyVotes):
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        return NoisyVotes(noise_multiplier=1e-9, teachers=self.teachers).privatize(answers, prior)


@pytest.mark.parametrize("broken", [NoiseOnTheWinnerOnly, MeanInsteadOfSum, NoNoise])
def test_broken_sums_do_not(
    broken: type[NoisyVotes], noise: ReproducibleNoise, seal_classes: Seal
) -> None:
    mechanism = broken(noise_multiplier=3.0, teachers=TEACHERS, noise=noise)
    assert follows_channel(mechanism, seal_classes) < 1e-6


@SUMS
@settings(max_examples=50)
@given(
    weights=st.lists(st.floats(0, 1), min_size=CLASSES, max_size=CLASSES),
    said=st.lists(st.integers(0, CLASSES - 1), min_size=4, max_size=4),
    changed=st.integers(0, CLASSES - 1),
)
def test_one_teacher_moves_a_sum_by_no_more_than_the_sensitivity(
    kind: type[NoisySum], weights: list[float], said: list[int], changed: int
) -> None:
    prior = torch.tensor([weights], dtype=torch.float64) + 1e-9
    prior = prior / prior.sum()
    mechanism = kind(noise_multiplier=1.0, teachers=4)

    def total(classes: list[int]) -> Tensor:
        votes = torch.bincount(torch.tensor(classes), minlength=CLASSES).double()
        return mechanism._summed(votes.unsqueeze(0), prior)

    moved = (total(said) - total([changed, *said[1:]])).norm()
    assert moved <= kind.sensitivity * (1 + 1e-9)


@SUMS
def test_shares_are_unbiased(kind: type[NoisySum], seal_classes: Seal) -> None:
    count = 50_000
    said = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 3, 3]).unsqueeze(-1).expand(-1, count)
    mechanism = kind(noise_multiplier=2.0, teachers=TEACHERS, noise=ReproducibleNoise(seed=2))
    prior = PRIOR.expand(count, -1)
    released = mechanism.privatize(seal_classes(said, CLASSES), prior)
    shares = mechanism.shares(released, prior)
    truth = torch.tensor([6, 1, 3, 2, 0]) / 12
    error = (shares.mean(0) - truth).abs() / (shares.std(0) / math.sqrt(count))
    assert error.max() < 5
    predicted = torch.full((count,), 2)
    assert mechanism.agreement(released, prior, predicted).equal(shares[:, 2])


@SUMS
def test_likelihood_is_the_definition(kind: type[NoisySum], seal_classes: Seal) -> None:
    mechanism = kind(noise_multiplier=2.0, teachers=TEACHERS, noise=ReproducibleNoise(seed=3))
    said = torch.randint(0, CLASSES, (TEACHERS, 40), generator=torch.Generator().manual_seed(0))
    prior = PRIOR.expand(40, -1)
    release = mechanism.privatize(seal_classes(said, CLASSES), prior)
    mechanism = mechanism.informed(release, prior)
    known = mechanism.disagreement
    assert known is not None
    added = signatures(kind, PRIOR)
    found = mechanism.log_likelihood(release, prior)
    for c in range(CLASSES):
        rest = float(1 - known.agreement[c]) / (CLASSES - 1)
        share = torch.full((CLASSES,), rest, dtype=torch.float64)
        share[c] = known.agreement[c]
        mean = (share.unsqueeze(-1) * added).sum(0)
        deviation = math.sqrt((2.0 / TEACHERS) ** 2 + known.spread**2)
        density = torch.distributions.Normal(mean, deviation).log_prob(release.double() / TEACHERS)
        torch.testing.assert_close(found[:, c], density.sum(-1))


@SUMS
def test_disagreement_is_estimated_from_releases(kind: type[NoisySum], seal_classes: Seal) -> None:
    """Teachers that agree by 80 % on one class and by 50 % on another are told apart."""
    random = torch.Generator().manual_seed(0)
    count, teachers = 3_000, 200
    truth = torch.arange(count) % CLASSES
    agreement = torch.tensor([0.8, 0.5, 0.8, 0.5, 0.8])
    other = (truth + torch.randint(1, CLASSES, (teachers, count), generator=random)) % CLASSES
    agrees = torch.rand((teachers, count), generator=random) < agreement[truth]
    said = torch.where(agrees, truth, other)
    mechanism = kind(noise_multiplier=20.0, teachers=teachers, noise=ReproducibleNoise(seed=4))
    prior = torch.full((count, CLASSES), 1 / CLASSES, dtype=torch.float64)
    release = mechanism.privatize(seal_classes(said, CLASSES), prior)
    informed = mechanism.informed(release, prior)
    assert informed.disagreement is not None
    assert (informed.disagreement.agreement - agreement).abs().max() < 0.03
    assert informed.disagreement.spread < 0.06
    right = informed.log_likelihood(release, prior).argmax(-1) == truth
    assert right.double().mean() > 0.95


def test_records_cost_what_the_closed_form_says() -> None:
    """20,000 queries at ε = 10, δ = 1e-5: the noise on votes is 100."""
    asked = Exposure.of_rounds([5_000] * 4)
    budget = Budget(epsilon=10.0, delta=1e-5, adjacency="teacher")
    votes = calibrate(NoisyVotes(teachers=250), budget, asked)
    gradients = calibrate(SummedGradients(teachers=250), budget, asked)
    assert votes.noise_multiplier == pytest.approx(100, rel=0.01)
    assert votes.noise_multiplier is not None
    assert gradients.noise_multiplier is not None
    assert gradients.noise_multiplier / votes.noise_multiplier == pytest.approx(math.sqrt(2))
    cost = spent(votes.event(), asked, delta=1e-5)
    assert cost.under(Adjacency.TEACHER) == pytest.approx(10, rel=1e-5)
    assert cost.under(Adjacency.TEACHER) <= 10
    assert cost.rdp["teacher"] == pytest.approx(10, rel=0.1)


@SUMS
def test_wrong_numbers_of_teachers_are_refused(kind: type[NoisySum], seal_classes: Seal) -> None:
    mechanism = kind(noise_multiplier=1.0, teachers=3)
    prior = PRIOR.expand(2, -1)
    for said in (torch.zeros(2), torch.zeros(4, 2)):
        with pytest.raises(ConfigError, match="is for 3 teachers"):
            mechanism.privatize(seal_classes(said.long(), CLASSES), prior)
    with pytest.raises(ConfigError, match="train-teacher --shards"):
        kind().for_members(1)
    with pytest.raises(ValueError, match="teachers must be at least 2"):
        kind(teachers=1)
    with pytest.raises(ValueError, match="noise_multiplier must be positive"):
        kind(noise_multiplier=math.nan)


@pytest.mark.parametrize("one", [RandomizedResponse(), Gaussian()])
def test_mechanisms_for_one_teacher_refuse_many(one: RandomizedResponse | Gaussian) -> None:
    with pytest.raises(ConfigError, match="NoisyVotes or SummedGradients"):
        one.for_members(5)

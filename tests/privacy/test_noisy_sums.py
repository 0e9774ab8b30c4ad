"""Sums over many teachers: sensitivity, noise, channel, and what is learned about disagreement."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dp_accounting
import pytest
import torch
from dp_accounting import NeighboringRelation
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from dpsd.errors import ConfigError
from dpsd.privacy.accounting import pld_epsilon, spent
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.mechanisms import (
    ConfidentVotes,
    Gaussian,
    NoisySum,
    NoisyVotes,
    RandomizedResponse,
    SummedGradients,
)
from dpsd.privacy.randomness import ReproducibleNoise, SystemNoise
from dpsd.privacy.targets import Adjacency, Budget, Exposure

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
    lengths: Tensor = gradients.norm(dim=-1, keepdim=True)
    return gradients / lengths


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
def test_disagreement_is_the_same_from_parts(
    kind: type[NoisySum], seal_classes: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    mechanism = kind(noise_multiplier=2.0, teachers=TEACHERS, noise=ReproducibleNoise(seed=3))
    said = torch.randint(0, CLASSES, (TEACHERS, 41), generator=torch.Generator().manual_seed(0))
    prior = PRIOR.expand(41, -1).half()
    release = mechanism.privatize(seal_classes(said, CLASSES), prior.float())
    whole = mechanism.informed(release, prior).disagreement
    monkeypatch.setattr("dpsd.privacy.mechanisms.sums._MOST_RELEASED", 6 * CLASSES)
    parts = mechanism.informed(release, prior).disagreement
    assert whole is not None
    assert parts is not None
    torch.testing.assert_close(parts.agreement, whole.agreement)
    assert parts.spread == pytest.approx(whole.spread)


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


def shown(consensus: float, count: int, mechanism: NoisyVotes, seal: Seal) -> Tensor:
    """Releases for queries on which ``consensus`` of the teachers say class 1, the others 2."""
    said = torch.full((TEACHERS, count), 2)
    said[: round(consensus * TEACHERS)] = 1
    return mechanism.privatize(seal(said, CLASSES), PRIOR.expand(count, -1))


def confident(**settings: Any) -> ConfidentVotes:
    return ConfidentVotes(
        noise_multiplier=1.5,
        teachers=TEACHERS,
        noise=ReproducibleNoise(seed=6),
        **{"threshold": 0.75, "test_noise": 2.0, "answered": 1.0, **settings},
    )


def test_the_consensus_test_passes_as_often_as_its_noise_says(seal_classes: Seal) -> None:
    count = 20_000
    for consensus in (0.5, 0.75, 1.0):
        release = shown(consensus, count, confident(), seal_classes)
        answered = release.isfinite().all(-1)
        assert (release.isnan().all(-1) | answered).all()
        largest = max(consensus, 1 - consensus) * TEACHERS
        expected = float(stats.norm.sf(0.75 * TEACHERS - largest, scale=2.0 * 1.5))
        found = float(answered.double().mean())
        assert abs(found - expected) < 5 * math.sqrt(0.25 / count)
        # What is answered has fresh noise, which the test says nothing about.
        noise = (release[answered][:, 1] - consensus * TEACHERS) / 1.5
        assert stats.kstest(noise.numpy(), "norm").pvalue > 1e-4


@dataclass(frozen=True, kw_only=True)
class QuietlyTested(ConfidentVotes):
    def privatize(self, answers: RawAnswers, prior: Tensor, *, batches: int = 1) -> Tensor:
        quiet: dict[str, Any] = {
            "threshold": self.threshold,
            "answered": self.answered,
            "test_noise": 1e-9,
        }
        return ConfidentVotes(
            noise_multiplier=self.noise_multiplier, teachers=self.teachers, **quiet
        ).privatize(answers, prior, batches=batches)


def test_a_test_without_noise_is_caught(seal_classes: Seal) -> None:
    broken = QuietlyTested(noise_multiplier=1.5, teachers=TEACHERS, threshold=0.75)
    passed = shown(1.0, 2_000, broken, seal_classes).isfinite().all(-1).double().mean()
    assert abs(float(passed) - 0.5) < 1e-9  # the cap, and not the chance of 0.84 of passing
    passed = shown(0.5, 2_000, broken, seal_classes).isfinite().all(-1).double().mean()
    assert float(passed) == 0  # where noise would let 16 % pass


@pytest.mark.parametrize("count", [1, 7, 100])
def test_no_more_is_answered_than_is_paid_for(count: int, seal_classes: Seal) -> None:
    release = shown(1.0, count, confident(answered=0.3, threshold=1e-6), seal_classes)
    assert int(release.isfinite().all(-1).sum()) <= 0.3 * count


def test_tests_and_answers_cost_what_they_cost_apart() -> None:
    mechanism = confident(answered=0.25)
    tests, answers = 800, 200
    accountant = RdpAccountant(None, NeighboringRelation.REPLACE_ONE)
    accountant.compose(dp_accounting.GaussianDpEvent(2.0 * 1.5), tests)
    accountant.compose(dp_accounting.GaussianDpEvent(1.5 / math.sqrt(2)), answers)
    together = RdpAccountant(None, NeighboringRelation.REPLACE_ONE)
    together.compose(mechanism.mean_event(), tests)
    assert together.get_epsilon(1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    asked = Exposure.of_rounds([tests])
    cost = spent(mechanism.event(), asked, delta=1e-5, mean_event=mechanism.mean_event())
    assert cost.response == pytest.approx(
        pld_epsilon(
            dp_accounting.GaussianDpEvent(1 / math.sqrt(2 / 1.5**2 + 1 / 3.0**2)),
            count=1,
            delta=1e-5,
        )
    )
    calibrated = calibrate(
        ConfidentVotes(teachers=9, answered=0.25), Budget(epsilon=3, adjacency="teacher"), asked
    )
    spending = spent(
        calibrated.event(), asked, delta=1e-5, mean_event=calibrated.mean_event()
    ).teacher
    assert 2.999 < spending <= 3


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"answered": 1.1}, {"test_noise": -1}])
def test_consensus_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ConfidentVotes(**wrong)


class Silence(SystemNoise):
    """What a mechanism releases before its noise, on the grid that the noise would have."""

    def discrete_gaussian(self, shape: tuple[int, ...], *, scale: float) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64)


@SUMS
@settings(deadline=None)
@given(data=st.data())
def test_on_any_grid_a_teacher_moves_the_sum_by_no_more_than_the_sensitivity(
    kind: type[NoisySum], data: st.DataObject
) -> None:
    """Cut to a coarse grid after summing, it could be moved by more."""
    weights = st.lists(st.floats(1e-3, 1), min_size=CLASSES, max_size=CLASSES)
    prior = torch.tensor([data.draw(weights)], dtype=torch.float64)
    prior = prior / prior.sum()
    noise = data.draw(st.floats(0.5, 20_000))
    said = data.draw(st.lists(st.integers(0, CLASSES - 1), min_size=TEACHERS, max_size=TEACHERS))
    other = [data.draw(st.integers(0, CLASSES - 1)), *said[1:]]
    mechanism = kind(noise_multiplier=noise, teachers=TEACHERS, noise=Silence())
    one, changed = (
        mechanism.privatize(
            RawAnswers.seal(
                torch.eye(CLASSES)[torch.tensor(labels)].unsqueeze(1),
                batch=1,
                num_classes=CLASSES,
                scores="probabilities",
            ),
            prior,
        ).double()
        for labels in (said, other)
    )
    assert float((one - changed).norm()) <= kind.sensitivity * (1 + 1e-6)

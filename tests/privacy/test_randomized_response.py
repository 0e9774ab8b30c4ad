"""Randomised response: what it releases is exactly the channel that it states."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from dpsd.errors import ConfigError
from dpsd.privacy.answers import RawAnswers, open_for_mechanism
from dpsd.privacy.mechanisms import RandomizedResponse
from dpsd.privacy.randomness import ReproducibleNoise, SystemNoise

PRIOR = torch.tensor([0.4, 0.05, 0.3, 0.05, 0.2], dtype=torch.float64)
FLAT = torch.full((5,), 0.2, dtype=torch.float64)
RELEASES_PER_CLASS = 20_000
Candidates = Literal["per-query", "all"] | int


def answers_of(classes: Tensor, num_classes: int) -> RawAnswers:
    return RawAnswers.seal(
        torch.nn.functional.one_hot(classes, num_classes),
        batch=classes.shape[-1],
        num_classes=num_classes,
        scores="probabilities",
    )


def channel(mechanism: RandomizedResponse, prior: Tensor) -> Tensor:
    """``log P(release | class)`` for one query, ``(K releases, K classes)``."""
    every_release = torch.arange(len(prior))
    return mechanism.log_likelihood(every_release, prior.expand(len(prior), -1))


def follows_channel(mechanism: RandomizedResponse, prior: Tensor) -> float:
    """p-value of a chi-square test: releases for every teacher class against the stated channel."""
    stated = channel(mechanism, prior).exp()
    statistic, freedom = 0.0, 0
    for teacher_class in range(len(prior)):
        classes = torch.full((RELEASES_PER_CLASS,), teacher_class)
        released = mechanism.privatize(
            answers_of(classes, len(prior)), prior.expand(RELEASES_PER_CLASS, -1)
        )
        observed = torch.bincount(released, minlength=len(prior)).double()
        expected = stated[:, teacher_class] * RELEASES_PER_CLASS
        possible = expected > 0
        if observed[~possible].any():
            return 0.0
        statistic += float(((observed - expected)[possible].square() / expected[possible]).sum())
        freedom += int(possible.sum()) - 1
    return float(stats.chi2.sf(statistic, freedom))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("candidates", ["per-query", "all", 2, 3, 5])
@pytest.mark.parametrize("prior", [PRIOR, FLAT], ids=["peaked", "flat"])
def test_releases_follow_the_stated_channel(
    epsilon: float, candidates: Candidates, prior: Tensor, noise: ReproducibleNoise
) -> None:
    mechanism = RandomizedResponse(epsilon=epsilon, candidates=candidates, noise=noise)
    if not bool(mechanism.needs_answer(prior.unsqueeze(0))):
        pytest.skip("a single candidate: never asked")
    assert follows_channel(mechanism, prior) > 1e-4


def test_releases_follow_the_channel_with_system_noise() -> None:
    mechanism = RandomizedResponse(epsilon=1.0, candidates=3, noise=SystemNoise())
    assert follows_channel(mechanism, PRIOR) > 1e-9  # rarer than a broken computer


@dataclass(frozen=True, kw_only=True)
class ForgetsTheNoise(RandomizedResponse):
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        return open_for_mechanism(answers).argmax(-1)


@dataclass(frozen=True, kw_only=True)
class CandidatesFromTheAnswer(RandomizedResponse):
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        return super().privatize(answers, open_for_mechanism(answers))


@dataclass(frozen=True, kw_only=True)
class WrongProbability(RandomizedResponse):
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        weaker = RandomizedResponse(
            epsilon=1.2 * self._epsilon, candidates=self.candidates, noise=self.noise
        )
        return weaker.privatize(answers, prior)


@dataclass(frozen=True, kw_only=True)
class LiesIncludeTheTruth(RandomizedResponse):
    """The textbook's slip: a "lie" that is uniform over all candidates, the truth among them."""

    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        labels = open_for_mechanism(answers).argmax(-1)
        tell_truth, other = self.noise.uniform((2, len(labels)))
        truth = self._chances(torch.tensor(prior.shape[-1]))[0]
        return torch.where(tell_truth < truth, labels, (other * prior.shape[-1]).long())


@pytest.mark.parametrize(
    ("broken", "candidates"),
    [
        (ForgetsTheNoise, "all"),
        (ForgetsTheNoise, 3),
        (CandidatesFromTheAnswer, 3),
        (WrongProbability, "all"),
        (WrongProbability, 3),
        (LiesIncludeTheTruth, "all"),
    ],
)
def test_broken_mechanisms_do_not(
    broken: type[RandomizedResponse], candidates: Candidates, noise: ReproducibleNoise
) -> None:
    mechanism = broken(epsilon=1.0, candidates=candidates, noise=noise)
    assert follows_channel(mechanism, PRIOR) < 1e-6


@st.composite
def priors(draw: st.DrawFn) -> Tensor:
    weights = draw(st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=9))
    return torch.tensor(weights, dtype=torch.float64) / sum(weights)


@st.composite
def mechanisms_with_priors(draw: st.DrawFn) -> tuple[RandomizedResponse, Tensor]:
    prior = draw(priors())
    counts = st.integers(2, len(prior))
    named: list[Literal["per-query", "all"]] = ["per-query", "all"]
    candidates = draw(st.sampled_from(named) | counts)
    epsilon = draw(st.floats(1e-3, 25))
    return RandomizedResponse(epsilon=epsilon, candidates=candidates), prior


@settings(max_examples=150, deadline=None)
@given(mechanisms_with_priors())
def test_no_release_tells_two_classes_apart_by_more_than_epsilon(
    case: tuple[RandomizedResponse, Tensor],
) -> None:
    mechanism, prior = case
    stated = channel(mechanism, prior)
    # A release is possible under every class or under none.
    impossible = stated.isinf()
    assert bool((impossible.all(-1) == impossible.any(-1)).all())
    ratios = stated[~impossible.any(-1)]
    gap = float((ratios.amax(-1) - ratios.amin(-1)).max())
    assert gap <= mechanism._epsilon + 1e-9


@settings(max_examples=150, deadline=None)
@given(mechanisms_with_priors())
def test_likelihoods_sum_to_one_over_releases(case: tuple[RandomizedResponse, Tensor]) -> None:
    mechanism, prior = case
    total = channel(mechanism, prior).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total))


@settings(max_examples=50, deadline=None)
@given(mechanisms_with_priors())
def test_candidates_maximise_the_chance_of_a_truthful_report(
    case: tuple[RandomizedResponse, Tensor],
) -> None:
    mechanism, prior = case
    per_query = replace(mechanism, candidates="per-query")
    if float(prior.max()) < 1.1 / len(prior):
        assert bool(per_query.needs_answer(prior.unsqueeze(0)))
        return

    def chance(candidates: int) -> float:
        weight = math.exp(mechanism._epsilon)
        likeliest = prior.sort(descending=True).values[:candidates]
        return weight / (weight + candidates - 1) * float(likeliest.sum())

    chosen = int(channel(per_query, prior).isfinite().all(-1).sum())
    assert chance(chosen) == pytest.approx(max(chance(k) for k in range(1, len(prior) + 1)))
    assert bool(per_query.needs_answer(prior.unsqueeze(0))) == (chosen > 1)


def test_a_large_epsilon_still_lies() -> None:
    # In single precision the chance of the truth rounds to one from about 17 on.
    mechanism = RandomizedResponse(epsilon=25.0, candidates="all")
    stated = channel(mechanism, PRIOR)
    assert float(stated[0, 0] - stated[1, 0]) == pytest.approx(25.0)
    truth, lie = mechanism._chances(torch.tensor(5))
    assert float(1 - truth) == pytest.approx(4 * float(lie), rel=1e-3)
    assert float(lie) == pytest.approx(math.exp(-25))


def test_releases_outside_the_candidates_are_impossible() -> None:
    stated = channel(RandomizedResponse(epsilon=1.0, candidates=3), PRIOR)
    assert stated[[1, 3]].eq(-torch.inf).all()
    assert stated[[0, 2, 4]].isfinite().all()


def test_a_class_outside_the_candidates_is_answered_uniformly() -> None:
    stated = channel(RandomizedResponse(epsilon=1.0, candidates=3), PRIOR).exp()
    torch.testing.assert_close(stated[[0, 2, 4], 1], torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3, 0.1])
def test_a_nearly_flat_prior_has_all_classes_as_candidates(epsilon: float) -> None:
    rippled = torch.tensor([[0.102, 0.099, 0.1, 0.101, 0.098, 0.1, 0.1, 0.1, 0.1, 0.1]])
    mechanism = RandomizedResponse(epsilon=epsilon)
    assert mechanism.needs_answer(rippled).all()
    assert mechanism.log_likelihood(torch.tensor([4]), rippled).isfinite().all()


def test_several_teachers_each_get_their_own_answer(noise: ReproducibleNoise) -> None:
    teachers, queries = 3, 5_000
    classes = torch.randint(5, (teachers, queries), generator=torch.Generator().manual_seed(0))
    prior = PRIOR.expand(queries, -1)
    mechanism = RandomizedResponse(epsilon=1.0, candidates="all", noise=noise)
    released = mechanism.privatize(answers_of(classes, 5), prior)
    assert released.shape == (teachers, queries)
    truth = math.e / (math.e + 4)
    for teacher in range(teachers):
        truthful = int((released[teacher] == classes[teacher]).sum())
        assert stats.binomtest(truthful, queries, truth).pvalue > 1e-4
    evidence = mechanism.log_likelihood(released, prior)
    assert evidence.shape == (teachers, queries, 5)
    for teacher in range(teachers):
        alone = mechanism.log_likelihood(released[teacher], prior)
        torch.testing.assert_close(evidence[teacher], alone)


def test_each_query_has_its_own_candidates(noise: ReproducibleNoise) -> None:
    priors = torch.stack([PRIOR, PRIOR.flip(0), FLAT]).repeat(1_000, 1)
    mechanism = RandomizedResponse(epsilon=0.5, candidates=2, noise=noise)
    released = mechanism.privatize(answers_of(torch.zeros(3_000, dtype=torch.long), 5), priors)
    assert set(released[0::3].tolist()) == {0, 2}
    assert set(released[1::3].tolist()) == {4, 2}
    assert set(released[2::3].tolist()) == {0, 1}


def test_more_candidates_than_classes_are_refused() -> None:
    # The k-ary event gets cheaper with k, so counting classes that are not there would understate.
    mechanism = RandomizedResponse(epsilon=1.0, candidates=6)
    with pytest.raises(ConfigError, match="candidates is 6, but there are only 5 classes"):
        mechanism.privatize(answers_of(torch.tensor([0]), 5), FLAT.unsqueeze(0))


@pytest.mark.parametrize("epsilon", [0, -1, math.nan, math.inf, 31])
def test_meaningless_epsilons_are_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon must be positive"):
        RandomizedResponse(epsilon=epsilon)


@pytest.mark.parametrize("candidates", [1, 0, -2, "some", 2.5])
def test_meaningless_candidates_are_refused(candidates: object) -> None:
    with pytest.raises(ValueError, match="candidates must be"):
        RandomizedResponse(epsilon=1.0, candidates=candidates)  # type: ignore[arg-type]


def test_an_uncalibrated_mechanism_does_not_answer() -> None:
    with pytest.raises(ValueError, match="calibrate"):
        RandomizedResponse().privatize(answers_of(torch.tensor([0]), 5), FLAT.unsqueeze(0))


def test_face_value_is_the_reported_class() -> None:
    prior = torch.full((2, 3), 1 / 3)
    label = RandomizedResponse(epsilon=1.0).face_value(torch.tensor([2, 0]), prior)
    assert label.tolist() == [[0, 0, 1], [1, 0, 0]]

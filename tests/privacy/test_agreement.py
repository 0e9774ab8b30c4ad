"""How often student and teacher agree, read off noisy releases without bias."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpsd.distillation.quality import Agreement
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import Gaussian, Mechanism, RandomizedResponse, Scaling
from dpsd.privacy.randomness import NoiseSource, ReproducibleNoise

CLASSES = 6
QUERIES = 20_000
SealClasses = Callable[[Tensor, int], RawAnswers]

MECHANISMS: list[Mechanism] = [
    RandomizedResponse(epsilon=0.5, candidates="all"),
    RandomizedResponse(epsilon=2.0, candidates="all"),
    RandomizedResponse(epsilon=0.01, candidates="per-query"),
    RandomizedResponse(epsilon=1.0, candidates="per-query"),
    *[
        Gaussian(noise_multiplier=0.8, bound=1.5, scaling=scaling, top_k=top_k)
        for scaling in Scaling
        for top_k in (None, 3)
    ],
]
EACH_MECHANISM = pytest.mark.parametrize("mechanism", MECHANISMS, ids=repr)


class NoNoise(NoiseSource):
    is_private = False
    description = "none"

    def bits(self, count: int) -> NDArray[np.uint64]:
        raise AssertionError("not needed")

    def discrete_gaussian(self, shape: tuple[int, ...], *, scale: float) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64)


def flat_priors(count: int) -> Tensor:
    uneven = 1 + 0.02 * torch.rand((count, CLASSES), generator=torch.Generator().manual_seed(5))
    return uneven / uneven.sum(-1, keepdim=True)


def scores_of(
    mechanism: Mechanism, seal_classes: SealClasses, *, share_right: float, count: int = QUERIES
) -> tuple[Tensor, Tensor]:
    """Scores, and whether each was right, for a student that is right on a share of the queries."""
    random = torch.Generator().manual_seed(6)
    predicted = torch.randint(CLASSES, (count,), generator=random)
    wrong = (predicted + torch.randint(1, CLASSES, (count,), generator=random)) % CLASSES
    right = torch.rand(count, generator=random) < share_right
    teacher = torch.where(right, predicted, wrong)
    prior = flat_priors(count)
    release = mechanism.privatize(seal_classes(teacher, CLASSES), prior)
    return mechanism.agreement(release, prior, predicted), right


@EACH_MECHANISM
@pytest.mark.parametrize("share_right", [0.0, 0.35, 1.0])
def test_the_mean_of_scores_is_unbiased(
    mechanism: Mechanism, share_right: float, seal_classes: SealClasses, noise: ReproducibleNoise
) -> None:
    scores, right = scores_of(mechanism.with_noise(noise), seal_classes, share_right=share_right)
    known = scores.isfinite()
    estimate = Agreement.of(scores)
    assert estimate is not None
    truth = float(right[known].double().mean())
    assert abs(estimate.mean - truth) < 5 * estimate.standard_error


def test_the_mean_of_scores_notices_a_wrong_channel(
    seal_classes: SealClasses, noise: ReproducibleNoise
) -> None:
    told = RandomizedResponse(epsilon=1.0, candidates="all", noise=noise)
    scores, right = scores_of(replace(told, epsilon=1.2), seal_classes, share_right=0.8)
    stretched = scores * 1.2
    estimate = Agreement.of(stretched)
    assert estimate is not None
    assert abs(estimate.mean - float(right.double().mean())) > 5 * estimate.standard_error


@pytest.mark.parametrize("scaling", list(Scaling))
@pytest.mark.parametrize("top_k", [None, 2, 4])
def test_gaussian_scores_are_exactly_one_or_zero_without_noise(
    scaling: Scaling, top_k: int | None, seal_classes: SealClasses
) -> None:
    mechanism = Gaussian(noise_multiplier=1e-9, scaling=scaling, top_k=top_k, noise=NoNoise())
    teacher, predicted = torch.cartesian_prod(torch.arange(CLASSES), torch.arange(CLASSES)).T
    prior = flat_priors(1).expand(len(teacher), -1)
    scores = mechanism.agreement(
        mechanism.privatize(seal_classes(teacher, CLASSES), prior), prior, predicted
    )
    released = prior[0].sort(descending=True, stable=True).indices[: top_k or CLASSES]
    known = torch.isin(predicted, released)
    assert scores.isfinite().equal(known)
    expected = (teacher == predicted).double()
    torch.testing.assert_close(scores[known], expected[known], atol=1e-4, rtol=0)


def test_nothing_is_said_where_the_prior_had_an_opinion(
    seal_classes: SealClasses, noise: ReproducibleNoise
) -> None:
    prior = torch.tensor([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
    answer = seal_classes(torch.tensor([0]), CLASSES)
    for mechanism in MECHANISMS:
        mechanism = mechanism.with_noise(noise)
        if bool(mechanism.needs_answer(prior)):
            release = mechanism.privatize(answer, prior)
            assert mechanism.agreement(release, prior, torch.tensor([0])).isnan().all()


def test_nothing_is_said_about_classes_that_are_no_candidates(
    seal_classes: SealClasses, noise: ReproducibleNoise
) -> None:
    prior = flat_priors(1)
    order = prior[0].argsort(descending=True)
    mechanism = RandomizedResponse(epsilon=1.0, candidates=3, noise=noise)
    release = mechanism.privatize(seal_classes(torch.tensor([0]), CLASSES), prior)
    assert mechanism.agreement(release, prior, order[:1]).isfinite().all()
    assert mechanism.agreement(release, prior, order[-1:]).isnan().all()


def test_nothing_is_said_about_soft_answers(
    seal_classes: SealClasses, noise: ReproducibleNoise
) -> None:
    mechanism = Gaussian(noise_multiplier=1.0, harden=False, noise=noise)
    prior = flat_priors(3)
    release = mechanism.privatize(seal_classes(torch.tensor([0, 1, 2]), CLASSES), prior)
    assert mechanism.agreement(release, prior, torch.tensor([0, 1, 2])).isnan().all()


@EACH_MECHANISM
def test_confidence_intervals_cover_the_truth(
    mechanism: Mechanism, seal_classes: SealClasses, noise: ReproducibleNoise
) -> None:
    scores, right = scores_of(
        mechanism.with_noise(noise), seal_classes, share_right=0.6, count=80_000
    )
    known = scores.isfinite()
    scores, right = scores[known], right[known].double()
    covered = 0
    runs = list(zip(scores.split(100), right.split(100), strict=True))
    for part, _ in runs:
        estimate = Agreement.of(part)
        assert estimate is not None
        covered += abs(estimate.mean - 0.6) < 1.96 * estimate.standard_error
    assert 0.91 < covered / len(runs) < 0.985


def test_standard_error_shrinks_with_the_square_root_of_the_count() -> None:
    scores = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    few, many = Agreement.of(scores[:400]), Agreement.of(scores)
    assert few is not None
    assert many is not None
    assert few.standard_error / many.standard_error == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize("scores", [[], [1.0], [math.nan, math.nan], [1.0, math.nan]])
def test_too_few_scores_give_no_estimate(scores: list[float]) -> None:
    assert Agreement.of(torch.tensor(scores)) is None

"""The Gaussian mechanism: its sensitivity, its noise, and its channel."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from dpsd.privacy.answers import RawAnswers, open_for_mechanism
from dpsd.privacy.mechanisms import Gaussian, Scaling
from dpsd.privacy.randomness import NoiseSource, ReproducibleNoise, SystemNoise

PRIOR = torch.tensor([0.4, 0.05, 0.3, 0.07, 0.18], dtype=torch.float64)
CLASSES = len(PRIOR)
RELEASES_PER_CLASS = 4_000
CHANNELS = pytest.mark.parametrize(
    ("scaling", "top_k"), [(scaling, top_k) for scaling in Scaling for top_k in (None, 2, 3)]
)


class NoNoise(NoiseSource):
    """Shows what a mechanism releases before its noise: on a grid, fine for little noise."""

    is_private = False
    description = "none"

    def bits(self, count: int) -> NDArray[np.uint64]:
        raise AssertionError("not needed")

    def discrete_gaussian(self, shape: tuple[int, ...], *, scale: float) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64)


def sealed(probabilities: Tensor) -> RawAnswers:
    *_, batch, classes = probabilities.shape
    return RawAnswers.seal(probabilities, batch=batch, num_classes=classes, scores="probabilities")


def certain(teacher_class: int, count: int = 1) -> RawAnswers:
    return sealed(torch.eye(CLASSES)[teacher_class].expand(count, -1))


def mean_release(mechanism: Gaussian, prior: Tensor, answer: Tensor) -> NDArray[np.float64]:
    """What the definition says a release is centred on, for one query, in plain NumPy."""
    likely, shown = prior.double().numpy(), answer.double().numpy()
    kept = np.argsort(-likely, kind="stable")[: mechanism.top_k]
    gradient = (likely - shown)[kept]
    return mechanism.bound * widening(mechanism, likely) * scaled(mechanism, gradient)


def scaled(mechanism: Gaussian, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    norm = float(np.linalg.norm(gradient))
    factor = {Scaling.NORMALIZE: 1 / norm, Scaling.CLIP: min(1.0, 1.0 / norm), Scaling.NONE: 1.0}
    scaled_gradient: NDArray[np.float64] = gradient * factor[mechanism.scaling]
    return scaled_gradient


def widening(mechanism: Gaussian, prior: NDArray[np.float64]) -> float:
    """How much longer gradients are made, from all pairs of classes and no formula for them."""
    if not mechanism.harden:
        return 1.0
    kept = np.argsort(-prior, kind="stable")[: mechanism.top_k]
    every = [scaled(mechanism, (prior - shown)[kept]) for shown in np.eye(len(prior))]
    apart = max(float(np.linalg.norm(one - other)) for one in every for other in every)
    if mechanism.scaling is not Scaling.NORMALIZE:
        assert apart <= math.sqrt(2) + 1e-12
        apart = math.sqrt(2)
    step = mechanism._step(mechanism._deviation) / mechanism.bound
    return max(1.0, (2 - step * math.sqrt(len(kept))) / apart)


def residuals(mechanism: Gaussian) -> NDArray[np.float64]:
    """Releases for every class, less their means, in units of the noise they should have."""
    deviation = mechanism._noise_multiplier * mechanism.bound
    parts = []
    for teacher_class in range(CLASSES):
        released = mechanism.privatize(
            certain(teacher_class, RELEASES_PER_CLASS), PRIOR.expand(RELEASES_PER_CLASS, -1)
        )
        centre = mean_release(mechanism, PRIOR, torch.eye(CLASSES)[teacher_class])
        parts.append((released.double().numpy() - centre) / deviation)
    return np.concatenate(parts)


def follows_channel(mechanism: Gaussian) -> float:
    """p-value of a Kolmogorov-Smirnov test of all residuals against the standard normal."""
    return float(stats.kstest(residuals(mechanism).ravel(), "norm").pvalue)


@CHANNELS
def test_releases_follow_the_stated_channel(
    scaling: Scaling, top_k: int | None, noise: ReproducibleNoise
) -> None:
    mechanism = Gaussian(noise_multiplier=0.7, bound=2.0, top_k=top_k, scaling=scaling, noise=noise)
    assert follows_channel(mechanism) > 1e-4


def test_releases_follow_the_channel_with_system_noise() -> None:
    assert follows_channel(Gaussian(noise_multiplier=0.7, noise=SystemNoise())) > 1e-9


def test_noise_is_independent_with_the_right_variance(noise: ReproducibleNoise) -> None:
    found = residuals(Gaussian(noise_multiplier=1.3, bound=0.5, noise=noise))
    count = len(found)
    assert np.abs(found.mean(0)).max() < 5 / math.sqrt(count)
    covariance = np.cov(found.T)
    assert np.abs(np.diag(covariance) - 1).max() < 5 * math.sqrt(2 / count)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 5 / math.sqrt(count)


@dataclass(frozen=True, kw_only=True)
class HalfTheNoise(Gaussian):
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        return self._noisy(_bare(self, answers, prior), self._deviation / 2).float()


@dataclass(frozen=True, kw_only=True)
class NoiseOnFewerCoordinates(Gaussian):
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        noisy = super().privatize(answers, prior)
        noisy[..., -1] = _bare(self, answers, prior)[..., -1]
        return noisy


@dataclass(frozen=True, kw_only=True)
class CoordinatesFromTheAnswer(Gaussian):
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        chosen = open_for_mechanism(answers).double() + 1e-3 * prior
        kept = chosen.argsort(-1, descending=True)[..., : self.top_k]
        gradient = (prior - open_for_mechanism(answers)).gather(-1, kept)
        _, _, wider = self._coordinates(prior)
        gradient = wider * gradient / gradient.norm(dim=-1, keepdim=True)
        return self._noisy(gradient, self._deviation).float()


@dataclass(frozen=True, kw_only=True)
class WidenedOnceMore(Gaussian):
    """Right for the flat prior of two classes alone, where answers are opposite."""

    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        return self._noisy(1.1 * _bare(self, answers, prior), self._deviation).float()


def _bare(mechanism: Gaussian, answers: RawAnswers, prior: Tensor) -> Tensor:
    plain = Gaussian(
        noise_multiplier=mechanism.noise_multiplier, top_k=mechanism.top_k, noise=NoNoise()
    )
    return plain.privatize(answers, prior)


@pytest.mark.parametrize(
    "broken", [HalfTheNoise, NoiseOnFewerCoordinates, CoordinatesFromTheAnswer, WidenedOnceMore]
)
def test_broken_mechanisms_do_not(broken: type[Gaussian], noise: ReproducibleNoise) -> None:
    mechanism = broken(noise_multiplier=0.7, top_k=3, noise=noise)
    assert follows_channel(mechanism) < 1e-6


@st.composite
def distributions(draw: st.DrawFn, count: int) -> list[Tensor]:
    weights = st.lists(st.floats(0, 1), min_size=CLASSES, max_size=CLASSES)
    drawn = [torch.tensor(draw(weights), dtype=torch.float64) + 1e-9 for _ in range(count)]
    return [weight / weight.sum() for weight in drawn]


@settings(max_examples=200, deadline=None)
@given(
    distributions(count=3),
    st.sampled_from(list(Scaling)),
    st.sampled_from([None, 2, 3, 5]),
    st.booleans(),
    st.floats(0.01, 100),
)
def test_two_answers_move_a_release_by_at_most_twice_the_bound(
    drawn: list[Tensor], scaling: Scaling, top_k: int | None, harden: bool, bound: float
) -> None:
    prior, *answers = (part.unsqueeze(0) for part in drawn)
    mechanism = Gaussian(
        noise_multiplier=1.0,
        bound=bound,
        top_k=top_k,
        scaling=scaling,
        harden=harden or scaling is Scaling.NONE,
        noise=NoNoise(),
    )
    one, other = (mechanism.privatize(sealed(answer), prior).double() for answer in answers)
    assert float((one - other).norm()) <= 2 * bound * (1 + 1e-5)
    # Loud noise has a coarse grid: what is cut off there must not take two answers further apart.
    coarse = replace(mechanism, noise_multiplier=2e3)
    one, other = (coarse.privatize(sealed(answer), prior).double() for answer in answers)
    assert float((one - other).norm()) <= 2 * bound * (1 + 1e-5)


@settings(max_examples=200, deadline=None)
@given(
    distributions(count=1),
    st.sampled_from([Scaling.NORMALIZE, Scaling.NONE]),
    st.sampled_from([None, 2, 3, 5]),
    st.floats(1e-4, 1.0),
)
def test_the_sensitivity_is_reached_under_every_prior(
    drawn: list[Tensor], scaling: Scaling, top_k: int | None, sharpness: float
) -> None:
    prior = (drawn[0].log() / sharpness).softmax(-1).unsqueeze(0)
    prior = prior.clamp_min(1e-3)  # sure, but not beyond what numbers can tell
    mechanism = Gaussian(
        noise_multiplier=1e-6, bound=3.0, top_k=top_k, scaling=scaling, noise=NoNoise()
    )
    shown = [
        mechanism.privatize(sealed(torch.eye(CLASSES)[c : c + 1]), prior).double()
        for c in range(CLASSES)
    ]
    apart = max(float((one - other).norm()) for one in shown for other in shown)
    assert apart == pytest.approx(6.0, rel=1e-5)


def test_gradients_left_as_they_are_tell_every_two_classes_apart_as_well() -> None:
    mechanism = Gaussian(noise_multiplier=1e-6, scaling=Scaling.NONE, noise=NoNoise())
    for prior in (PRIOR, torch.tensor([0.96, 0.01, 0.01, 0.01, 0.01])):
        rows = prior.expand(CLASSES, -1)
        released = mechanism.privatize(sealed(torch.eye(CLASSES)), rows).double()
        apart = torch.cdist(released, released)[~torch.eye(CLASSES, dtype=torch.bool)]
        torch.testing.assert_close(apart, torch.full_like(apart, 2.0), atol=1e-5, rtol=0)


def test_probabilities_reach_it_as_they_are() -> None:
    mechanism = Gaussian(noise_multiplier=1e-6, bound=3.0, harden=False, noise=NoNoise())
    prior = torch.tensor([[0.5, 0.5]])
    one, other = (mechanism.privatize(sealed(torch.eye(2)[i : i + 1]), prior) for i in range(2))
    assert float((one - other).norm()) == pytest.approx(6.0, rel=1e-5)


def test_an_answer_equal_to_the_prior_is_released_as_noise_around_zero() -> None:
    mechanism = Gaussian(noise_multiplier=1.0, harden=False, noise=NoNoise())
    prior = torch.tensor([[0.25, 0.25, 0.5]])
    released = mechanism.privatize(sealed(prior), prior)
    assert released.isfinite().all()
    assert float(released.norm()) <= 1


def test_soft_answers_are_released_as_they_are_and_hard_ones_as_classes() -> None:
    answer = torch.tensor([[0.1, 0.1, 0.5, 0.2, 0.1]])
    for harden, seen in ((False, answer[0]), (True, torch.eye(CLASSES)[2])):
        mechanism = Gaussian(noise_multiplier=1e-6, harden=harden, noise=NoNoise())
        released = mechanism.privatize(sealed(answer), PRIOR.unsqueeze(0))[0].double().numpy()
        order = np.argsort(-PRIOR.numpy(), kind="stable")
        in_order = PRIOR[order.copy()], seen[order.copy()]
        np.testing.assert_allclose(released, mean_release(mechanism, *in_order), atol=1e-6)


@CHANNELS
def test_face_value_is_the_prior_less_the_release(scaling: Scaling, top_k: int | None) -> None:
    mechanism = Gaussian(noise_multiplier=1.0, scaling=scaling, top_k=top_k)
    prior = PRIOR.unsqueeze(0)
    likeliest = PRIOR.argsort(descending=True, stable=True)[:top_k]
    release = torch.arange(1.0, len(likeliest) + 1).unsqueeze(0)
    expected = PRIOR.clone().float()
    expected[likeliest] -= release[0] / widening(mechanism, PRIOR.numpy())
    torch.testing.assert_close(mechanism.face_value(release, prior)[0], expected)


@CHANNELS
def test_log_likelihood_is_the_density(scaling: Scaling, top_k: int | None) -> None:
    mechanism = Gaussian(noise_multiplier=0.9, bound=1.7, top_k=top_k, scaling=scaling)
    dimensions = top_k or CLASSES
    random = torch.Generator().manual_seed(1)
    releases = 3 * torch.randn((20, dimensions), generator=random)
    found = mechanism.log_likelihood(releases, PRIOR.expand(20, -1))
    for teacher_class in range(CLASSES):
        centre = mean_release(mechanism, PRIOR, torch.eye(CLASSES)[teacher_class])
        density = stats.multivariate_normal(centre, (0.9 * 1.7) ** 2)
        expected = density.logpdf(releases.double().numpy())
        np.testing.assert_allclose(found[:, teacher_class], expected, rtol=1e-5)


def test_coordinates_come_from_the_prior_alone() -> None:
    mechanism = Gaussian(noise_multiplier=1.0, top_k=2, noise=NoNoise())
    # Classes 1, 3 and 4 are outside the prior's top two: nothing tells them apart.
    outside = [mechanism.privatize(certain(c), PRIOR.unsqueeze(0)) for c in (1, 3, 4)]
    assert outside[0].shape == (1, 2)
    assert outside[0].equal(outside[1])
    assert outside[0].equal(outside[2])


def test_several_teachers_each_get_their_own_noise(noise: ReproducibleNoise) -> None:
    mechanism = Gaussian(noise_multiplier=0.5, top_k=3, noise=noise)
    answers = torch.eye(CLASSES)[torch.tensor([[0, 1, 2, 3], [4, 4, 0, 2]])]
    prior = PRIOR.expand(4, -1)
    released = mechanism.privatize(sealed(answers), prior)
    assert released.shape == (2, 4, 3)
    assert len({round(value, 6) for value in released.flatten().tolist()}) == 24
    evidence = mechanism.log_likelihood(released, prior)
    assert evidence.shape == (2, 4, CLASSES)
    for teacher in range(2):
        alone = mechanism.log_likelihood(released[teacher], prior)
        torch.testing.assert_close(evidence[teacher], alone)


def test_float32_priors_are_good_enough() -> None:
    mechanism = Gaussian(noise_multiplier=0.05)
    release = torch.randn((50, CLASSES), generator=torch.Generator().manual_seed(2))
    prior = PRIOR.expand(50, -1)
    exact = mechanism.log_likelihood(release, prior)
    torch.testing.assert_close(
        mechanism.log_likelihood(release, prior.float()).double(), exact, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize(
    ("settings_", "reason"),
    [
        ({"noise_multiplier": 0.0}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"noise_multiplier": math.inf}, "noise_multiplier"),
        ({"bound": 0.0}, "bound"),
        ({"bound": math.inf}, "bound"),
        ({"top_k": 1}, "top_k"),
        ({"scaling": "shrink"}, "shrink"),
        ({"scaling": "none", "harden": False}, "harden"),
    ],
)
def test_meaningless_settings_are_refused(settings_: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Gaussian(**settings_)


def test_an_uncalibrated_mechanism_does_not_answer() -> None:
    with pytest.raises(ValueError, match="calibrate"):
        Gaussian().privatize(certain(0), PRIOR.unsqueeze(0))

"""Noise that ends too early is caught by what one world releases and the other never could."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dpsd.attacks.audit import audit
from dpsd.attacks.tails import TailGame, far_case, tail_games
from dpsd.privacy.mechanisms import Gaussian, GaussianNoise, NoisyVotes, SummedGradients
from dpsd.privacy.randomness import SystemNoise, reach

DRAWS = 1_000_000
KINDS = [Gaussian(top_k=2), NoisyVotes(), SummedGradients()]


class EndsAtThirteen(SystemNoise):
    """A table of which nothing beyond 13 deviations is left."""

    def discrete_gaussian(self, shape: tuple[int, ...], *, scale: float) -> Tensor:
        least, largest = ends_at_thirteen(scale)
        return super().discrete_gaussian(shape, scale=scale).clamp(least, largest)


def ends_at_thirteen(scale: float) -> tuple[int, int]:
    return -int(13 * scale), int(13 * scale)


def broken(game: TailGame) -> TailGame:
    """The same game, noise multiplier and all, on a table that ends too early."""
    mechanism = game.game.mechanism.with_noise(EndsAtThirteen())
    return TailGame(game=replace(game.game, mechanism=mechanism), ends=ends_at_thirteen)


def with_noise_of(mechanism: GaussianNoise, noise: float) -> TailGame:
    """The game at a level of noise that no budget would choose."""
    game = far_case(mechanism, epsilon=1.0)
    level = replace(game.game.mechanism, noise_multiplier=noise)  # type: ignore[type-var]
    return replace(game, game=replace(game.game, mechanism=level))


def test_a_table_that_ends_at_thirteen_deviations_is_caught() -> None:
    """With the noise that ε = 80 for one answer would cost if tables had no end."""
    found = audit(broken(with_noise_of(Gaussian(top_k=2), 0.21869637)), draws=DRAWS)
    assert found.lower_bound == math.inf > found.claimed
    assert not found.holds


@pytest.mark.parametrize(
    ("mechanism", "noise"),
    [
        (Gaussian(top_k=2), 0.12324283),
        (NoisyVotes(), 0.08714584),
        (SummedGradients(), 0.12324283),
    ],
)
def test_no_finite_claim_is_made_near_the_end_of_the_table(
    mechanism: GaussianNoise, noise: float
) -> None:
    """With the noise that ε = 200 for one answer would cost if tables had no end."""
    game = with_noise_of(mechanism, noise)
    assert game.claimed == math.inf
    assert broken(game).impossible(0, DRAWS // 10) > 0


@pytest.mark.parametrize("mechanism", KINDS)
def test_what_a_run_is_asked_for_does_not_come_near_the_end(mechanism: GaussianNoise) -> None:
    for epsilon in (1.0, 30.0):
        found = audit(far_case(mechanism, epsilon=epsilon), draws=DRAWS // 10)
        assert found.claimed == pytest.approx(epsilon, rel=1e-3)
        assert (found.lower_bound, found.holds) == (0, True)


def test_as_calibrated_the_strongest_claims_hold() -> None:
    games = [*tail_games(), far_case(Gaussian(top_k=2), epsilon=80.0)]
    assert {game.name.split(",")[0] for game in games} == {
        *("tail: gaussian", "tail: noisy-votes", "tail: summed-gradients")
    }
    for game in games:
        assert audit(game, draws=DRAWS // 2).holds, game.name


def test_worlds_lie_as_far_apart_in_one_number_as_the_mechanism_allows() -> None:
    game = far_case(Gaussian(top_k=2), epsilon=8.0)
    one, other = (game._extreme(world, end=0) for world in (0, 1))
    apart = (one - other).flatten().abs()
    assert 1.98 < float(apart.max()) <= float(apart.norm()) <= 2.0 + 1e-6


class Bits(SystemNoise):
    """Which are all the same: the sampler's ends."""

    def __init__(self, word: int) -> None:
        self.word = word

    def bits(self, count: int):  # type: ignore[no-untyped-def]
        return torch.full((count,), self.word).numpy().astype("uint64")


@pytest.mark.parametrize("scale", [0.01, 0.7, 10.0, 5_000.0])
def test_the_reach_is_what_the_sampler_can_return(scale: float) -> None:
    least, largest = (int(Bits(word).discrete_gaussian((), scale=scale)) for word in (0, -1))
    assert (least, largest) == reach(scale)

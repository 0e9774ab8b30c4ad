"""Votes with a share of the noise: what the server sees, and what all others see."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from dpsd import ReproducibleNoise
from dpsd.privacy.accounting import pld_epsilon, rdp_epsilon
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import NoisyVotes, SharedNoiseVotes
from dpsd.privacy.mechanisms.shares import ALIKE, sum_divergence

CLASSES = 4


def votes(teachers: int, count: int) -> RawAnswers:
    """All teachers name class 1; one teacher's answers have no dimension of teachers."""
    said = torch.eye(CLASSES)[torch.ones((teachers, count), dtype=torch.int64)]
    shown = said if teachers > 1 else said[0]
    return RawAnswers.seal(shown, batch=count, num_classes=CLASSES, scores="probabilities")


def released(share: SharedNoiseVotes, count: int) -> Tensor:
    prior = torch.full((count, CLASSES), 1 / CLASSES)
    return share.privatize(votes(share.teachers or 1, count), prior)


@pytest.mark.parametrize("teachers", [1, 7])
def test_a_release_is_votes_and_noise(teachers: int) -> None:
    noise = ReproducibleNoise(seed=1)
    share = SharedNoiseVotes(noise_multiplier=2.0, clients=3, noise=noise).for_members(teachers)
    assert isinstance(share, SharedNoiseVotes)
    found = released(share, 20_000).double()
    assert found.mean(0).tolist() == pytest.approx([0, teachers, 0, 0], abs=0.1)
    assert found.std(0).tolist() == pytest.approx([2.0] * CLASSES, rel=0.05)
    assert stats.kstest((found[:, 0] / 2).numpy(), "norm").pvalue > 1e-6


@settings(max_examples=60, deadline=None)
@given(
    noise=st.floats(0.1, 1e4),
    teachers=st.integers(1, 10_000),
    clients=st.integers(3, 40),
)
def test_sums_of_releases_are_not_rounded_and_their_grid_is_fine(
    noise: float, teachers: int, clients: int
) -> None:
    share = SharedNoiseVotes(noise_multiplier=noise, teachers=teachers, clients=clients)
    step = share._step(noise)
    scale = noise / step
    assert scale >= 16
    assert sum_divergence(scale, clients) == 0
    # The largest release that there is: float32 holds it exactly, and float64 every sum.
    assert step == SharedNoiseVotes(noise_multiplier=noise, clients=3)._step(noise), (
        "of all clients"
    )
    most = teachers / step + 21 * scale
    assert most < 2**24
    assert most * clients < 2**53
    assert teachers / step == teachers // step, "votes are on the grid"


def test_the_divergence_of_a_sum_is_bounded() -> None:
    """Against the exact convolution, at scales where it differs visibly."""
    reach = np.arange(-60, 61)
    for scale in (0.8, 1.0, 1.3):
        one = np.exp(-(reach**2) / (2 * scale**2))
        one /= one.sum()
        whole, shares = one, 1
        while shares < 4:
            whole, shares = np.convolve(whole, one), shares + 1
            wide = np.arange(len(whole)) - len(whole) // 2
            ideal = np.exp(-(wide**2) / (2 * shares * scale**2))
            ideal /= ideal.sum()
            near = np.abs(wide) <= 10 * scale
            apart = np.abs(np.log(whole[near] / ideal[near])).max()
            assert apart <= sum_divergence(scale, shares)
    assert apart > 1e-13, "the bound is tested where there is something to bound"


@given(clients=st.integers(3, 1000), noise=st.floats(0.2, 100))
def test_others_see_the_noise_of_all_clients_but_one(clients: int, noise: float) -> None:
    share = SharedNoiseVotes(noise_multiplier=noise, teachers=1, clients=clients)
    counted = share.event_against_others().noise_multiplier ** 2
    there_is = (clients - 1) * noise**2 / 2  # relative to the sensitivity, the square root of 2
    assert there_is * (1 - 3 * ALIKE) < counted < there_is
    assert share.event().noise_multiplier == pytest.approx(noise / math.sqrt(2))


def test_both_costs_agree_with_a_second_accountant() -> None:
    share = SharedNoiseVotes(noise_multiplier=4.0, teachers=1, clients=5)
    server, others = (
        pld_epsilon(event, count=10, delta=1e-5)
        for event in (share.event(), share.event_against_others())
    )
    assert others < server / 1.9
    for event, found in ((share.event(), server), (share.event_against_others(), others)):
        assert found <= rdp_epsilon(event, count=10, delta=1e-5) <= 1.2 * found


def test_a_sum_is_read_like_noisy_votes() -> None:
    share = SharedNoiseVotes(noise_multiplier=2.0, teachers=3, clients=4)
    pooled = share.pooled(shares=4, teachers=12)
    assert type(pooled) is NoisyVotes
    assert pooled.parameters()["noise_multiplier"] == 4.0
    assert pooled.parameters()["teachers"] == 12


@pytest.mark.parametrize("changed", [{"clients": 4}, {"noise_multiplier": 2.001}])
def test_clients_that_add_other_noise_are_not_alike(changed: dict[str, float]) -> None:
    own = {"noise_multiplier": 2.0, "clients": 3}
    share = SharedNoiseVotes(**own)  # type: ignore[arg-type]
    assert share.is_like(SharedNoiseVotes(**own | {"noise_multiplier": 2.0 + 1e-9}))  # type: ignore[arg-type]
    assert not share.is_like(SharedNoiseVotes(**own | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"clients": 2}, "clients must be at least 3"),
        ({"teachers": 0}, "teachers must be from 1 to 10,000"),
        ({"teachers": 10_001}, "teachers must be from 1 to 10,000"),
        ({"noise_multiplier": 0.09}, "noise_multiplier must be at least 0.1"),
    ],
)
def test_what_would_break_the_promise_is_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SharedNoiseVotes(**wrong)  # type: ignore[arg-type]

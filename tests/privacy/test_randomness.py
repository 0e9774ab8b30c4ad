"""Noise: secret by default, repeatable only by name, and of the right distribution."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from dpsd.privacy.randomness import (
    EXACT_REACH,
    NoiseSource,
    ReproducibleNoise,
    SystemNoise,
    _boundaries,
)

COUNT = 50_000


@pytest.fixture(params=["system", "reproducible"])
def source(request: pytest.FixtureRequest) -> NoiseSource:
    return SystemNoise() if request.param == "system" else ReproducibleNoise(seed=3)


def test_system_noise_depends_on_no_seed() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        drawn.append(SystemNoise().bits(100))
    one, other = drawn
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    "draw",
    [
        lambda source: source.uniform((1_000,)),
        lambda source: source.discrete_gaussian((1_000,), scale=3.0),
        lambda source: source.for_round(2).bits(10),
    ],
)
def test_no_source_touches_the_global_generators(
    source: NoiseSource, draw: Callable[[NoiseSource], object]
) -> None:
    def numpy_state() -> NDArray[np.uint32]:
        state: NDArray[np.uint32] = np.random.get_state(legacy=False)["state"]["key"]
        return state.copy()

    before = torch.get_rng_state(), numpy_state(), random.getstate()
    draw(source)
    assert torch.get_rng_state().equal(before[0])
    assert np.array_equal(numpy_state(), before[1])
    assert random.getstate() == before[2]


def test_system_noise_takes_every_bit_from_the_operating_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def urandom(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    monkeypatch.setattr("dpsd.privacy.randomness.os.urandom", urandom)
    SystemNoise().uniform((5, 2))
    assert asked == [160]


def test_only_system_noise_is_private() -> None:
    assert SystemNoise().is_private
    assert not ReproducibleNoise(seed=0).is_private
    assert "NOT PRIVATE" in ReproducibleNoise(seed=0).description
    assert "NOT PRIVATE" not in SystemNoise().description


def test_no_repr_tells_the_seed() -> None:
    assert repr(ReproducibleNoise(seed=90210)) == "ReproducibleNoise()"


class ExtremeBits(NoiseSource):
    is_private = False
    description = "all zeros, or all ones"

    def __init__(self, word: int) -> None:
        self.word = word

    def bits(self, count: int) -> NDArray[np.uint64]:
        return np.full(count, self.word, dtype=np.uint64)


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_uniform_numbers_are_never_zero_or_one(word: int) -> None:
    value = float(ExtremeBits(word).uniform(()))
    assert 0 < value < 1


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_extreme_bits_give_the_largest_noise_that_there_is(word: int) -> None:
    drawn = ExtremeBits(word).discrete_gaussian((4,), scale=100.0)
    assert len(set(drawn.tolist())) == 1
    # exp(-21²/2) is about 2^-318: beyond, 320 bits hold nothing.
    assert 2_080 < abs(int(drawn[0])) < 2_140


def test_bits_on_a_boundary_are_decided_by_more_bits() -> None:
    class OnABoundary(NoiseSource):
        is_private = False
        description = "upper bits of a boundary, then all zeros or all ones"

        def __init__(self, more: int) -> None:
            self.words = [_boundaries(10.0).exact[200] >> 256, *[more] * 4]

        def bits(self, count: int) -> NDArray[np.uint64]:
            return np.array([self.words.pop(0) for _ in range(count)], dtype=np.uint64)

    below, above = (
        int(OnABoundary(more).discrete_gaussian((1,), scale=10.0)) for more in (0, 2**64 - 1)
    )
    assert above == below + 1


def test_uniform_numbers_are_uniform(source: NoiseSource) -> None:
    drawn = source.uniform((COUNT,))
    assert drawn.dtype == torch.float64
    assert stats.kstest(drawn.numpy(), "uniform").pvalue > 1e-7


@pytest.mark.parametrize("scale", [0.3, 1.0, 7.5])
def test_discrete_gaussian_numbers_have_their_chances(source: NoiseSource, scale: float) -> None:
    drawn = source.discrete_gaussian((COUNT,), scale=scale)
    assert drawn.dtype == torch.int64
    values = np.arange(-200, 201)
    chances = np.exp(-(values.astype(float) ** 2) / (2 * scale**2))
    chances /= chances.sum()
    # What is too rare to count on its own is counted with its neighbour further in.
    reach = int(values[chances * COUNT > 5].max())
    bins = np.arange(-reach, reach + 2) - 0.5
    expected = np.histogram(values.clip(-reach, reach), bins=bins, weights=chances)[0]
    found = np.histogram(drawn.numpy().clip(-reach, reach), bins=bins)[0]
    assert stats.chisquare(found, COUNT * expected).pvalue > 1e-7


def test_discrete_gaussian_noise_on_a_fine_grid_is_gaussian(source: NoiseSource) -> None:
    drawn = source.discrete_gaussian((COUNT,), scale=5_000.0).double() / 5_000
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-7
    one, other = drawn[: COUNT // 2], drawn[COUNT // 2 :]
    for left, right in ((one, other), (one.square(), other.square())):
        assert abs(float(torch.corrcoef(torch.stack([left, right]))[0, 1])) < 6 / (COUNT / 2) ** 0.5


def test_chances_are_exact_to_320_bits() -> None:
    """Against weights in 300 digits, with nothing in common with the recurrence."""
    scale = Fraction(7, 2)
    exact = _boundaries(float(scale)).exact
    reach = len(exact) // 2
    with localcontext() as context:
        context.prec = 300
        weights = [
            (-Decimal(k * k) / (2 * Decimal("12.25"))).exp() for k in range(-reach - 40, reach + 41)
        ]
        total = sum(weights, Decimal(0))
        cumulative = sum(weights[:41], Decimal(0))
        for index, boundary in enumerate(exact):
            assert abs(cumulative / total - Decimal(boundary) / 2**320) < Decimal(2) ** -314
            cumulative += weights[41 + index]


def test_every_value_within_reach_has_its_own_chance() -> None:
    """At the coarsest grid that is allowed for; beyond, δ has to make up for what is missing."""
    scale = 10.0**6
    with localcontext() as context:
        context.prec = 60
        least = (-(Decimal(EXACT_REACH) ** 2) / 2).exp() / (Decimal(scale) * Decimal("2.51"))
        assert least > Decimal(2) ** -256


def test_small_uniform_numbers_are_as_fine_as_large_ones() -> None:
    class NoCoarseBits(NoiseSource):
        is_private = False
        description = "zeros, then ones"

        def bits(self, count: int) -> NDArray[np.uint64]:
            return np.array([0] * (count // 2) + [5 << 12] * (count // 2), dtype=np.uint64)

    assert float(NoCoarseBits().uniform(())) == 5.5 * 2.0**-104


def test_whole_numbers_are_uniform_below_each_end(source: NoiseSource) -> None:
    ends = torch.tensor([1, 2, 9, 1_000]).repeat_interleave(COUNT)
    drawn = source.below(ends).view(4, COUNT)
    for end, numbers in zip((1, 2, 9, 1_000), drawn, strict=True):
        found = torch.bincount(numbers, minlength=end)
        assert len(found) == end
        if end > 1:
            assert stats.chisquare(found.numpy()).pvalue > 1e-7


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3, 5), (0, 4)])
def test_shapes(source: NoiseSource, shape: tuple[int, ...]) -> None:
    assert source.uniform(shape).shape == shape
    assert source.discrete_gaussian(shape, scale=2.0).shape == shape


def test_reproducible_noise_repeats_itself_in_the_same_round_only() -> None:
    def draw(seed: int, round_index: int) -> list[int]:
        words: list[int] = ReproducibleNoise(seed=seed).for_round(round_index).bits(8).tolist()
        return words

    assert draw(1, 1) == draw(1, 1)
    distinct = {tuple(draw(seed, index)) for seed in range(3) for index in range(3)}
    assert len(distinct) == 9


def test_what_was_drawn_before_does_not_change_a_round() -> None:
    noise = ReproducibleNoise(seed=1)
    fresh = noise.for_round(2).uniform((4,))
    noise.uniform((100,))
    noise.for_round(1).uniform((100,))
    assert noise.for_round(2).uniform((4,)).equal(fresh)


def test_a_stream_does_not_repeat_itself(source: NoiseSource) -> None:
    assert not source.uniform((8,)).equal(source.uniform((8,)))

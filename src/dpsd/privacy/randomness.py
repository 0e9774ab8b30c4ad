"""Where a mechanism's noise comes from.

A mechanism never draws from the run's seed: whoever knows the seed could subtract the noise.
:class:`SystemNoise`, the default, takes every bit from the operating system's cryptographically
secure generator. :class:`ReproducibleNoise` repeats itself and so protects nothing; it is for tests
and benchmarks, must be asked for by name, and every certificate of a run that used it says so.

>>> noise = ReproducibleNoise(seed=7)
>>> bool((noise.uniform((3,)) == noise.uniform((3,))).all())  # a stream, not a constant
False
>>> SystemNoise().is_private, noise.is_private
(True, False)

Gaussian noise is drawn as whole steps of a grid. Noise in floating point leaves gaps between the
numbers that it can reach, and the gaps tell what it was added to (Mironov, "On Significance of the
Least Significant Bits for Differential Privacy", CCS 2012; Holohan & Braghin, "Secure Random
Sampling in Differential Privacy", ESORICS 2021); every point of a grid can be reached from every
other.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpsd.errors import ConfigError


class NoiseSource(ABC):
    """A stream of random bits, and the two distributions that mechanisms need."""

    #: Whether an adversary who knows everything about the run still cannot predict the noise.
    is_private: bool
    #: How certificates name the source.
    description: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def bits(self, count: int) -> NDArray[np.uint64]:
        """``count`` words of 64 independent, uniform bits."""

    def for_round(self, round_index: int) -> NoiseSource:
        """The source to use for one round; rounds never share a stream."""
        return self

    def for_process(self, rank: int) -> NoiseSource:
        """The source to use in one of several processes; processes never share a stream.

        Args:
            rank: of the process, from 0.

        Raises:
            ConfigError: a source that does not say how its streams differ.
        """
        if rank:
            raise ConfigError(
                f"{type(self).__name__} has one stream of noise, and several processes need one "
                "each: override for_process"
            )
        return self

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Independent float64 numbers, uniform on the open interval (0, 1)."""
        # 52 bits and a half fit a float64 exactly; with 53, the largest would be rounded to 1.
        words = self.bits(math.prod(shape)) >> np.uint64(12)
        values = (words.astype(np.float64) + 0.5) * 2.0**-52
        return torch.from_numpy(values.reshape(shape))

    def discrete_gaussian(self, shape: tuple[int, ...], *, scale: float) -> Tensor:
        """Independent int64 numbers ``k`` with probability proportional to ``exp(-k²/2 scale²)``.

        By inversion: 64 uniform bits are looked up among the cumulative probabilities, and 64 more
        decide where they fall on a boundary, so chances are right to 128 bits.

        Args:
            shape: of the result.
            scale: > 0; the standard deviation, to 1e-9 from 2 on.

        Source: Canonne, Kamath & Steinke, "The Discrete Gaussian for Differential Privacy",
        NeurIPS 2020; its theorems hold for this distribution however it is sampled.
        """
        boundaries = _boundaries(scale)
        if not boundaries.exact:  # at a scale this small, nothing but zero has a chance
            return torch.zeros(shape, dtype=torch.int64)
        words = self.bits(math.prod(shape))
        drawn = np.asarray(np.searchsorted(boundaries.high, words, side="right"))
        undecided = np.flatnonzero((drawn > 0) & (boundaries.high[drawn - 1] == words))
        for index, more in zip(undecided, self.bits(len(undecided)), strict=True):
            drawn[index] = bisect_right(boundaries.exact, (int(words[index]) << 64) | int(more))
        return torch.from_numpy(drawn - len(boundaries.exact) // 2).reshape(shape)


@dataclass(frozen=True)
class _Boundaries:
    """Cumulative probabilities, in units of 2^-128, and their upper 64 bits."""

    exact: list[int]
    high: NDArray[np.uint64]


@lru_cache(maxsize=8)
def _boundaries(scale: float) -> _Boundaries:
    """Of the discrete Gaussian's values, from the least to all but the largest."""
    # Weights exp(-k²/2s²) by recurrence, in fixed point: each is the one before times a ratio, and
    # ratios fall by a constant factor. What is less than 2^-136 of the largest is cut off.
    one = 192
    with localcontext() as context:
        context.prec = 80
        ratio = int((-1 / (2 * Decimal(scale) ** 2)).exp() * (1 << one))
    factor = ratio * ratio >> one
    weights = [1 << one]
    while weights[-1] >> (one - 136):
        weights.append(weights[-1] * ratio >> one)
        ratio = ratio * factor >> one
    weights.pop()
    cumulative = list(accumulate(weights[:0:-1] + weights))
    exact = [(part << 128) // cumulative[-1] for part in cumulative[:-1]]
    return _Boundaries(exact, np.array([part >> 64 for part in exact], dtype=np.uint64))


def reach(scale: float) -> tuple[int, int]:
    """The least and the largest ``k`` that :meth:`NoiseSource.discrete_gaussian` can return.

    >>> least, largest = reach(100.0)
    >>> least < -1_300 and 1_300 < largest
    True
    """
    exact = _boundaries(scale).exact
    # A value whose chance is below 2^-128 has the boundary of the one before, and is never drawn.
    return bisect_right(exact, 0) - len(exact) // 2, len(exact) - len(exact) // 2


class SystemNoise(NoiseSource):
    """The operating system's cryptographically secure generator. The only private source."""

    is_private = True
    description = "operating system (os.urandom)"

    def bits(self, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(os.urandom(8 * count), dtype=np.uint64)

    def for_process(self, rank: int) -> NoiseSource:
        return self


class ReproducibleNoise(NoiseSource):
    """Noise that repeats itself for a seed. NOT PRIVATE; for tests and benchmarks.

    Args:
        seed: non-negative; the same seed gives the same noise in the same round and process.

    >>> noise = ReproducibleNoise(seed=7).for_round(1)
    >>> bool((noise.uniform((3,)) == noise.for_process(1).uniform((3,))).any())
    False
    """

    is_private = False
    description = "NOT PRIVATE: reproducible noise"

    def __init__(self, *, seed: int, round_index: int = 0, rank: int = 0) -> None:
        self.seed = seed
        self._round_index = round_index
        # Process 0 draws what one alone would draw.
        entropy = [seed, round_index, *([rank] if rank else [])]
        self._generator = np.random.Generator(np.random.Philox(seed=entropy))

    def bits(self, count: int) -> NDArray[np.uint64]:
        return self._generator.integers(0, 2**64, size=count, dtype=np.uint64)

    def for_round(self, round_index: int) -> NoiseSource:
        return ReproducibleNoise(seed=self.seed, round_index=round_index)

    def for_process(self, rank: int) -> NoiseSource:
        return ReproducibleNoise(seed=self.seed, round_index=self._round_index, rank=rank)

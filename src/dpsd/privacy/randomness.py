"""The sources of a mechanism's noise.

A mechanism never draws from the run's seed: whoever knows the seed could subtract the noise.
:class:`SystemNoise`, the default, takes every bit from the operating system's cryptographically
secure generator. :class:`ReproducibleNoise` repeats itself and so protects nothing; it is for tests
and benchmarks, must be asked for by name, and every certificate of a run that used it says so.

>>> noise = ReproducibleNoise(seed=7)
>>> bool((noise.uniform((3,)) == noise.uniform((3,))).all())  # a stream, not a constant
False
>>> SystemNoise().is_private, noise.is_private
(True, False)

Gaussian noise is drawn as whole steps of a grid. Floating-point noise leaves gaps between the
numbers that it can reach, and the gaps reveal what it was added to (Mironov, "On Significance of
the Least Significant Bits for Differential Privacy", CCS 2012; Holohan & Braghin, "Secure Random
Sampling in Differential Privacy", ESORICS 2021). On a grid, every point can be reached from every
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
    """A stream of random bits, with the distributions that mechanisms need."""

    #: Whether an adversary who knows everything about the run still cannot predict the noise.
    is_private: bool
    #: The name of the source in certificates.
    description: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def bits(self, count: int) -> NDArray[np.uint64]:
        """Return ``count`` words of 64 independent, uniform bits."""

    def for_round(self, round_index: int) -> NoiseSource:
        """Return the source to use for one round; rounds never share a stream."""
        return self

    def for_process(self, rank: int) -> NoiseSource:
        """Return the source to use in one of several processes; they never share a stream.

        Args:
            rank: the rank of the process, from 0.

        Raises:
            ConfigError: the source does not define separate streams for processes.
        """
        if rank:
            raise ConfigError(
                f"{type(self).__name__} has one stream of noise, but several processes need one "
                "each: override for_process"
            )
        return self

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Return independent float64 numbers, uniform on the open interval (0, 1).

        Each is made from 104 bits, so that the probability of a number below ``x`` is right to a
        relative 2^-52 for every ``x`` above 2^-52, however small.
        """
        count = math.prod(shape)
        coarse, fine = self.bits(2 * count).reshape(2, count) >> np.uint64(12)
        values = (coarse + (fine + 0.5) * 2.0**-52) * 2.0**-52
        # Without the limit, the largest would be rounded to 1.
        return torch.from_numpy(np.minimum(values, 1 - 2.0**-53).reshape(shape))

    def below(self, ends: Tensor) -> Tensor:
        """Return independent int64 numbers, uniform from 0 to one below each of ``ends``.

        Args:
            ends: the exclusive upper ends, int64 and at least 1; above 2^32, probabilities would be
                uneven by more than 2^-32.
        """
        words = self.bits(ends.numel()).reshape(ends.shape)
        drawn = words % ends.cpu().numpy().astype(np.uint64)
        return torch.from_numpy(drawn.astype(np.int64)).to(ends.device)

    def discrete_gaussian(self, shape: tuple[int, ...], *, scale: float) -> Tensor:
        """Return independent int64 ``k`` with probability proportional to ``exp(-k²/2 scale²)``.

        Numbers are drawn by inversion: 64 uniform bits are looked up among the cumulative
        probabilities, and 256 more decide if they fall on a boundary, so probabilities are right to
        320 bits. The table ends at 21 standard deviations, and up to :data:`EXACT_REACH`, the
        probability of each value is right to a relative 2^-64. What that leaves out is part of a
        run's δ; see :mod:`dpsd.privacy.accounting`.

        Args:
            shape: the shape of the result.
            scale: the scale, > 0 and at most 1e6; from 2 on, it is the standard deviation to 1e-9.

        Source: Canonne, Kamath & Steinke, "The Discrete Gaussian for Differential Privacy",
        NeurIPS 2020; its theorems hold for this distribution however it is sampled.
        """
        boundaries = _boundaries(scale)
        if not boundaries.exact:  # at a scale this small, zero is the only possible value
            return torch.zeros(shape, dtype=torch.int64)
        words = self.bits(math.prod(shape))
        drawn = np.asarray(np.searchsorted(boundaries.high, words, side="right"))
        undecided = np.flatnonzero((drawn > 0) & (boundaries.high[drawn - 1] == words))
        for index in undecided:
            more = self.bits(_BITS // 64 - 1)
            exact = int.from_bytes(words[index].tobytes()[::-1] + more.tobytes(), "big")
            drawn[index] = bisect_right(boundaries.exact, exact)
        return torch.from_numpy(drawn - len(boundaries.exact) // 2).reshape(shape)


#: The number of random bits that decide a value of the noise.
_BITS = 320
#: The number of standard deviations within which every value has a probability of at least 2^-256,
#: in which the table is off by 2^-320: the density there is 2^-222, spread over up to 10^6 values
#: per deviation.
EXACT_REACH = 17.5


@dataclass(frozen=True)
class _Boundaries:
    """Cumulative probabilities, in units of 2^-320, and their upper 64 bits."""

    exact: list[int]
    high: NDArray[np.uint64]


@lru_cache(maxsize=4)
def _boundaries(scale: float) -> _Boundaries:
    """Compute the boundaries between the discrete Gaussian's values, in ascending order."""
    # The weights exp(-k²/2s²) are computed by recurrence, in fixed point: each is the previous one
    # times a ratio, and ratios fall by a constant factor. Weights below 2^-328 of the largest are
    # cut off.
    one = _BITS + 64
    with localcontext() as context:
        context.prec = 140
        ratio = int((-1 / (2 * Decimal(scale) ** 2)).exp() * (1 << one))
    factor = ratio * ratio >> one
    weights = [1 << one]
    while weights[-1] >> (one - _BITS - 8):
        weights.append(weights[-1] * ratio >> one)
        ratio = ratio * factor >> one
    weights.pop()
    cumulative = list(accumulate(weights[:0:-1] + weights))
    exact = [(part << _BITS) // cumulative[-1] for part in cumulative[:-1]]
    return _Boundaries(exact, np.array([part >> (_BITS - 64) for part in exact], dtype=np.uint64))


def reach(scale: float) -> tuple[int, int]:
    """Return the least and the largest ``k`` that :meth:`NoiseSource.discrete_gaussian` can draw.

    >>> least, largest = reach(100.0)
    >>> least < -2_050 and 2_050 < largest
    True
    """
    exact = _boundaries(scale).exact
    # A value of probability below 2^-320 shares its predecessor's boundary, and is never drawn.
    return bisect_right(exact, 0) - len(exact) // 2, len(exact) - len(exact) // 2


class SystemNoise(NoiseSource):
    """The operating system's cryptographically secure generator, the only private source."""

    is_private = True
    description = "operating system (os.urandom)"

    def bits(self, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(os.urandom(8 * count), dtype=np.uint64)

    def for_process(self, rank: int) -> NoiseSource:
        return self


class ReproducibleNoise(NoiseSource):
    """Noise that repeats itself for a seed. NOT PRIVATE; for tests and benchmarks.

    Args:
        seed: a non-negative seed, which gives the same noise in the same round and process.

    >>> noise = ReproducibleNoise(seed=7).for_round(1)
    >>> bool((noise.uniform((3,)) == noise.for_process(1).uniform((3,))).any())
    False
    """

    is_private = False
    description = "NOT PRIVATE: reproducible noise"

    def __init__(self, *, seed: int, round_index: int = 0, rank: int = 0) -> None:
        self.seed = seed
        self._round_index = round_index
        # Process 0 draws the same noise as a process that runs alone.
        entropy = [seed, round_index, *([rank] if rank else [])]
        self._generator = np.random.Generator(np.random.Philox(seed=entropy))

    def bits(self, count: int) -> NDArray[np.uint64]:
        return self._generator.integers(0, 2**64, size=count, dtype=np.uint64)

    def for_round(self, round_index: int) -> NoiseSource:
        return ReproducibleNoise(seed=self.seed, round_index=round_index)

    def for_process(self, rank: int) -> NoiseSource:
        return ReproducibleNoise(seed=self.seed, round_index=self._round_index, rank=rank)

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
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Independent float64 numbers, uniform on the open interval (0, 1)."""
        # 52 bits and a half fit a float64 exactly; with 53, the largest would be rounded to 1.
        words = self.bits(math.prod(shape)) >> np.uint64(12)
        values = (words.astype(np.float64) + 0.5) * 2.0**-52
        return torch.from_numpy(values.reshape(shape))

    def gaussian(self, shape: tuple[int, ...]) -> Tensor:
        """Independent float64 numbers from the standard normal distribution (Box-Muller)."""
        count = math.prod(shape)
        pairs = (count + 1) // 2
        radius = (-2.0 * self.uniform((pairs,)).log()).sqrt()
        angle = 2.0 * math.pi * self.uniform((pairs,))
        values = torch.cat([radius * angle.cos(), radius * angle.sin()])
        return values[:count].reshape(shape)


class SystemNoise(NoiseSource):
    """The operating system's cryptographically secure generator. The only private source."""

    is_private = True
    description = "operating system (os.urandom)"

    def bits(self, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(os.urandom(8 * count), dtype=np.uint64)


class ReproducibleNoise(NoiseSource):
    """Noise that repeats itself for a seed. NOT PRIVATE; for tests and benchmarks.

    Args:
        seed: non-negative; the same seed gives the same noise in the same round.
    """

    is_private = False
    description = "NOT PRIVATE: reproducible noise"

    def __init__(self, *, seed: int, round_index: int = 0) -> None:
        self.seed = seed
        self._generator = np.random.Generator(np.random.Philox(seed=[seed, round_index]))

    def bits(self, count: int) -> NDArray[np.uint64]:
        return self._generator.integers(0, 2**64, size=count, dtype=np.uint64)

    def for_round(self, round_index: int) -> NoiseSource:
        return ReproducibleNoise(seed=self.seed, round_index=round_index)

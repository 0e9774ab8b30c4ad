"""Features whose inner products are kernels: what a mean embedding is a mean of.

Every feature vector has a norm of at most 1, whatever the image, so that a record's part in a mean
of them is bounded.

>>> images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
>>> features = FourierFeatures.drawn(64, 100, random=torch.Generator().manual_seed(0))
>>> features(images).shape, bool((features(images).norm(dim=1) <= 1 + 1e-6).all())
(torch.Size([4, 100]), True)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from dpsd.errors import ConfigError

#: From images in [0, 1], ``(N, C, H, W)``, to features ``(N, D)`` of norm at most 1.
Features: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class FourierFeatures:
    """Random Fourier features of the Gaussian kernel ``exp(-|x - y|² / 2b)``.

    Args:
        frequencies: ``(pixels, D / 2)``, normal with variance ``1 / b``.

    Source: Rahimi & Recht, "Random Features for Large-Scale Kernel Machines", NeurIPS 2007.
    """

    frequencies: Tensor

    @classmethod
    def drawn(cls, pixels: int, count: int, *, random: torch.Generator) -> FourierFeatures:
        """Draw features for images of so many numbers, by a public rule.

        The squared bandwidth ``b`` is a sixth of the pixels, the mean squared distance of two
        images of uniform noise: 131 for 28x28 pixels, where the authors of DP-MERF take 105 for
        MNIST and 127 for Fashion-MNIST.

        Raises:
            ConfigError: the count is not even.
        """
        if count % 2:
            raise ConfigError(f"features must be even (a sine and a cosine each), not {count}")
        normal = torch.randn((pixels, count // 2), generator=random)
        return cls(frequencies=normal / math.sqrt(pixels / 6))

    def __call__(self, images: Tensor) -> Tensor:
        phases = images.flatten(1) @ self.frequencies.to(images.device)
        return torch.cat([phases.cos(), phases.sin()], dim=1) / math.sqrt(phases.shape[1])


@dataclass(frozen=True, kw_only=True)
class HermiteFeatures:
    """Hermite features of a sum kernel: a Gaussian kernel on each pixel, the mean over pixels.

    By Mehler's formula ``exp(-r (x - y)² / (1 - r²))`` is a sum of products over all degrees. It is
    cut off after ``order``, so that a feature vector's norm stays below 1.

    Args:
        order: the highest degree, at least 1.
        correlation: r, in (0, 1): how fast higher degrees lose weight, and how sharp the kernel is.

    Source: Vinaroz et al., "Hermite Polynomial Features for Private Data Generation", ICML 2022,
    sections 2 and 3.
    """

    order: int
    correlation: float

    def __call__(self, images: Tensor) -> Tensor:
        pixels, rate = images.flatten(1), self.correlation
        # The polynomials are scaled by their weights and by what makes the kernel Gaussian.
        current = (1 - rate**2) ** 0.25 * (-rate / (1 + rate) * pixels.square()).exp()
        before = torch.zeros_like(current)
        degrees = [current]
        for degree in range(self.order):
            raised = math.sqrt(2 * rate / (degree + 1)) * pixels * current
            lowered = rate * math.sqrt(degree / (degree + 1)) * before
            current, before = raised - lowered, current
            degrees.append(current)
        return torch.cat(degrees, dim=1) / math.sqrt(pixels.shape[1])

"""Dead leaves: textured shapes of all sizes, each of which hides what lies behind it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpsd.images.names import Shape
from dpsd.synthesis.sources import Source, integer


class Leaves(Source):
    """Shapes of power-law sizes that occlude one another, as objects do in scenes.

    The shapes are ellipses, boxes and diamonds, some of them cut off along a line. Each has a
    colour of its own, a smooth shading, and perhaps stripes and the image's 1/f noise, which is
    also on the ground. Edges are one to three pixels wide.

    Source: Lee, Mumford & Huang, "Occlusion Models for Natural Images", IJCV 2001; as training
    data: Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021.
    """

    name = "leaves"
    leaves = 16

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        channels, height, width = self.shape
        pixel = 2 / min(height, width)

        def uniform(low: float, high: float, *each: int) -> Tensor:
            return low + (high - low) * torch.rand(
                (count, *(each or (1, 1, 1))), generator=generator
            )

        def in_some(share: float, amounts: Tensor) -> Tensor:
            return amounts * (torch.rand((count, 1, 1, 1), generator=generator) < share)

        def colours(low: float, high: float) -> Tensor:
            return uniform(low, high, channels, 1, 1)

        rows = torch.linspace(-1, 1, height).view(1, 1, height, 1)
        columns = torch.linspace(-1, 1, width).view(1, 1, 1, width)
        clouds = spectral_noise(count, self.shape, decay=uniform(0.8, 2), generator=generator)
        grain = in_some(0.7, uniform(0, 0.2))
        ground = in_some(0.75, colours(0.05, 0.95))
        images = ground + grain * clouds
        wanted = torch.randint(2, self.leaves + 1, (count, 1, 1, 1), generator=generator)
        softness = pixel * uniform(1, 3)
        smallest, largest = max(0.08, pixel), uniform(0.4, 0.9)
        for index in range(self.leaves):
            # The density of sizes r is as 1/r: any octave has as many leaves as any other.
            size = smallest * (largest / smallest) ** uniform(0, 1)
            angle = uniform(0, math.pi)
            down, right = rows - uniform(-1, 1), columns - uniform(-1, 1)
            along = (right * angle.cos() + down * angle.sin()) / size
            across = (down * angle.cos() - right * angle.sin()) / size * uniform(1, 2.5)
            # Lengths in three norms make ellipses, boxes and diamonds.
            norm = (torch.hypot, torch.hypot, torch.maximum, torch.add)[integer(4, generator)]
            reach = norm(along.abs(), across.abs())
            reach = torch.maximum(reach, along * in_some(0.4, uniform(1, 3)))
            mask = (0.5 + (1 - reach) * size / softness).clamp(0, 1) * (index < wanted)
            moved = clouds.roll((integer(height, generator), integer(width, generator)), (2, 3))
            leaf = colours(0.05, 0.95) + colours(-0.15, 0.15) * across + grain * moved
            if integer(3, generator) == 0:
                waves = torch.sin(uniform(3, 25) * size * along + uniform(0, 2 * math.pi))
                leaf = leaf + colours(-0.4, 0.4) * waves
            images = torch.lerp(images, leaf, mask)
        return images.clamp(0, 1)


def spectral_noise(
    count: int, shape: Shape, *, decay: Tensor, generator: torch.Generator
) -> Tensor:
    """Make Gaussian noise ``(count, *shape)`` whose amplitudes fall with the frequency f as f^-a.

    It is periodic, and has mean 0 and variance 1 in each channel. As in photographs, colour
    channels share a field and each adds one of its own.

    Args:
        count: the number of images.
        shape: the shape of an image, ``(channels, height, width)``.
        decay: the exponent a of each image, ``(count, 1, 1, 1)``; photographs have about 1.
        generator: a CPU random generator, the source of all randomness here.
    """
    channels, height, width = shape
    white = torch.randn((count, *shape), generator=generator)
    if channels > 1:
        white = 0.8 * torch.randn((count, 1, height, width), generator=generator) + 0.6 * white
    down, across = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    frequency = (down.square().unsqueeze(1) + across.square()).sqrt()
    frequency[0, 0] = math.inf  # takes away the mean
    waves = torch.fft.rfft2(white) * frequency**-decay
    noise: Tensor = torch.fft.irfft2(waves, s=(height, width))
    return noise / noise.std((2, 3), keepdim=True)

"""Images of generators with random weights: what a generator shows before it learns anything."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.synthesis.drawn import across_its_level
from dpsd.synthesis.sources import Source, integer, is_blank


class RandomNetworks(Source):
    """Images of generators with random weights, of which a new one makes every few images.

    Nothing is drawn by hand here: noise passes through a linear layer, upsampling, convolutions
    and BatchNorm, as in a DCGAN, with weights, scales and biases that are drawn anew. All images of
    one such generator are of one class for most teachers. What makes images of many classes is that
    there are many generators, of various depths, and that the last layer of each sees the
    coordinates of a pixel too (as in CoordConv and in compositional pattern-producing networks)
    with weights, a bias, a gain and an activation (sigmoid, or a bump around zero) that are drawn
    for each image. Coordinates weigh so that most images are brighter in the middle than at the
    frame.

    Source: Stanley, "Compositional pattern producing networks", 2007; Liu et al., "An intriguing
    failing of convolutional neural networks and the CoordConv solution", NeurIPS 2018.
    """

    name = "networks"
    images_each = 8
    latent = 100
    width = 4
    bumps = 0.3

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        def gaussian(mean: float, deviation: float) -> Tensor:
            return mean + deviation * torch.randn((count, 1, 1, 1), generator=generator)

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand((count, 1, 1, 1), generator=generator)

        _, height, width = self.shape
        rows = torch.linspace(-1, 1, height).view(1, 1, height, 1)
        columns = torch.linspace(-1, 1, width).view(1, 1, 1, width)
        seen = self._features(count, generator) + gaussian(-1, 1)
        seen = seen + gaussian(0, 1) * rows + gaussian(0, 1) * columns
        # A squared radius of mean zero, so that only the bias moves the brightness as a whole.
        seen = seen - gaussian(2, 1.5) * (rows.square() + columns.square() - 2 / 3)
        gain = 2 * 8 ** uniform(0, 1)
        is_bump, breadth = uniform(0, 1) < self.bumps, uniform(0.1, 0.6)

        def activated(seen: Tensor, rows: Tensor | slice) -> Tensor:
            bump = breadth[rows] - seen.abs()
            return torch.sigmoid(gain[rows] * torch.where(is_bump[rows], bump, seen))

        images = activated(seen, slice(None))
        blank = is_blank(images)
        images[blank] = activated(across_its_level(seen[blank]), blank)
        return images

    def _features(self, count: int, generator: torch.Generator) -> Tensor:
        """What the convolutions of random generators make of noise, ``(count, *shape)``.

        All images of a generator together have mean 0 and variance 1. The generators are computed
        at once, as the groups of one convolution.
        """
        channels, *sides = self.shape
        networks = math.ceil(count / self.images_each)
        cells = 2 << integer(3, generator)  # about so many per side before the first doubling
        doublings = max(1, round(math.log2(max(sides) / cells)))
        height, width = (math.ceil(side / 2**doublings) for side in sides)
        widths = [self.width * 2 ** min(left, 2) for left in range(doublings, -1, -1)]

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        def normalised(maps: Tensor) -> Tensor:
            """Apply BatchNorm with a random scale and bias."""
            each = (1, maps.shape[1], 1, 1)
            normal_maps = F.batch_norm(maps, None, None, training=True)
            return normal_maps * normal(*each) + normal(*each)

        noise = normal(self.images_each, networks, self.latent)
        weights = normal(networks, self.latent, widths[0] * height * width)
        maps = torch.einsum("inl,nlo->ino", noise, weights).reshape(
            self.images_each, networks * widths[0], height, width
        )
        maps = normalised(maps)
        for before, after in itertools.pairwise(widths):
            maps = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
            weights = normal(networks * after, before, 3, 3)
            maps = F.leaky_relu(
                normalised(F.conv2d(maps, weights, padding=1, groups=networks)), 0.2
            )
        weights = normal(networks * channels, widths[-1], 3, 3)
        maps = F.conv2d(maps, weights, padding=1, groups=networks)
        maps = F.batch_norm(maps, None, None, training=True)
        top, left = ((maps.shape[2 + i] - side) // 2 for i, side in enumerate(sides))
        maps = maps[:, :, top : top + sides[0], left : left + sides[1]]
        return maps.reshape(-1, *self.shape)[:count]

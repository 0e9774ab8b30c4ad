"""Blends of images: MixUp, CutMix, and a source that blends the images of other sources.

What a teacher says between two kinds of images, and about parts of one inside another, tells where
its decision boundaries are, which no source shows on its own.

>>> black, white = torch.zeros((2, 1, 8, 8)), torch.ones((2, 1, 8, 8))
>>> between = blended(black, white, generator=torch.Generator().manual_seed(0))
>>> between.shape, 0 < float(between.mean()) < 1
(torch.Size([2, 1, 8, 8]), True)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dpsd.images.names import Shape
from dpsd.synthesis.drawn import smooth_field
from dpsd.synthesis.names import MIXED
from dpsd.synthesis.sources import Source, is_blank


class Mixed(Source):
    """Images of two other sources, blended by MixUp or CutMix (:func:`blended`).

    The two sources change from one chunk of images to the next. They differ if there are two.

    Args:
        shape: the shape of the images.
        sources: the other sources, at least one, all of this shape.
    """

    name = MIXED

    def __init__(self, shape: Shape, sources: Sequence[Source]) -> None:
        super().__init__(shape)
        self.sources = list(sources)

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        order = torch.randperm(len(self.sources), generator=generator)
        one, other = (
            self.sources[int(number)].sample(count, generator=generator)
            for number in (order[0], order[-1])
        )
        return blended(one, other, generator=generator)


def blended(one: Tensor, other: Tensor, *, generator: torch.Generator) -> Tensor:
    """Blend each image with another one: half by MixUp, and half by CutMix.

    MixUp is a convex combination, with a weight from 0.2 to 0.8. In CutMix, half of the images get
    a box of the other image, and half what lies inside a random smooth outline.

    Args:
        one: the images, float32 ``(N, C, H, W)`` in [0, 1].
        other: as many other images of the same shape.
        generator: a CPU random generator, the source of all randomness here.

    Returns:
        The blends, of the same shape. None is blank if none of the images is.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al.,
    "CutMix", ICCV 2019; smooth outlines: Harris et al., "FMix", 2020.
    """
    count, _, height, width = one.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((count, 1, 1, 1), generator=generator)

    down = torch.linspace(-1, 1, height).view(1, 1, height, 1) - uniform(-0.7, 0.7)
    across = torch.linspace(-1, 1, width).view(1, 1, 1, width) - uniform(-0.7, 0.7)
    box = (down.abs() < uniform(0.25, 0.9)) & (across.abs() < uniform(0.25, 0.9))
    field = smooth_field(count, (1, height, width), cells=(2, 4), generator=generator)
    outline = torch.sigmoid(uniform(4, 20) * (field - uniform(-0.3, 0.3)))
    cut = torch.where(uniform(0, 1) < 0.5, box, outline)
    weight = torch.where(uniform(0, 1) < 0.5, uniform(0.2, 0.8), cut)
    images = torch.lerp(one, other, weight)
    # A black part of one image may cover all that the other shows.
    blank = is_blank(images)
    images[blank] = torch.lerp(one[blank], other[blank], 0.5)
    return images

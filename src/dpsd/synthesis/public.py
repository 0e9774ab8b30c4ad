"""Public images of the domain itself, as a source: each is shown in ever new ways."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpsd.errors import DataError
from dpsd.images.augmentation import draw_distortions, moved
from dpsd.images.pixels import to_unit_range
from dpsd.synthesis.blending import blended
from dpsd.synthesis.jitter import jittered_colours
from dpsd.synthesis.names import PUBLIC
from dpsd.synthesis.sources import Source, made_visible


class Public(Source):
    """Public, unlabelled images of the teacher's domain, moved, recoloured and blended.

    Every image that is made is a new one, so a run can ask more queries than there are images, each
    once. A quarter of the images stay nearly as they are (moved by up to two pixels). The others
    are cropped to 70 to 100 % of their area, rotated, slanted and stretched
    (:func:`~dpsd.images.augmentation.draw_distortions`, which mirrors half of the images that have
    colours), and their brightness, contrast and colours change. A quarter of all are blended with
    another public image (:func:`~dpsd.synthesis.blending.blended`).

    Args:
        images: the public images, uint8 ``(N, C, H, W)``, N at least 1. They are not copied.

    Raises:
        DataError: there is no image, or the images are not uint8 ``(N, C, H, W)``.

    >>> images = torch.arange(3 * 64, dtype=torch.uint8).view(3, 1, 8, 8)
    >>> Public(images).sample(100, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([100, 1, 8, 8])
    """

    name = PUBLIC

    def __init__(self, images: Tensor) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8 or not len(images):
            raise DataError(
                "public images must be uint8 (N, C, H, W) with N at least 1, not "
                f"{images.dtype} {tuple(images.shape)}"
            )
        _, channels, height, width = images.shape
        super().__init__((channels, height, width))
        self._images = images

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        channels, height, width = self.shape

        def uniform(low: float, high: float, each: int = 1) -> Tensor:
            return low + (high - low) * torch.rand((count, each, 1, 1), generator=generator)

        def chance(probability: float) -> Tensor:
            return uniform(0, 1) < probability

        chosen = torch.randint(0, len(self._images), (count,), generator=generator)
        images = to_unit_range(self._images[chosen])
        as_it_is = chance(0.25)
        maps = draw_distortions(count, channels=channels, generator=generator)
        side = uniform(math.sqrt(0.7), 1).view(-1, 1, 1)
        corner = uniform(-1, 1, 2).view(-1, 2, 1)
        cropping = torch.cat([side * maps[:, :, :2], (1 - side) * corner], dim=2)
        # Positions are in half sides, and moves are no whole pixels, so that each is another one.
        move = 2 * corner * torch.tensor([[2 / width], [2 / height]])
        moving = torch.cat([torch.eye(2).expand(count, 2, 2), move], dim=2)
        images = moved(images, torch.where(as_it_is.view(-1, 1, 1), moving, cropping))
        # Neighbours in a chunk were drawn independently of each other.
        another = blended(images, images.roll(1, 0), generator=generator)
        images = torch.where(chance(0.25), another, images)
        recoloured = jittered_colours(images, generator=generator)
        recoloured = (recoloured - 0.5) * uniform(0.8, 1.2) + 0.5 + uniform(-0.1, 0.1)
        images = torch.where(as_it_is, images, recoloured)
        return made_visible(images)

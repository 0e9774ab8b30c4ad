"""Public unlabelled images of the domain as a source of queries.

>>> source = Public((1, 8, 8), torch.zeros((5, 1, 8, 8), dtype=torch.uint8))
>>> source.sample(3, generator=torch.Generator().manual_seed(0)).shape
torch.Size([3, 1, 8, 8])
"""

from __future__ import annotations

import torch
from torch import Tensor

from dpsd.errors import DataError
from dpsd.images.augmentation import augment_images, default_augmentation
from dpsd.images.names import Shape
from dpsd.images.pixels import to_unit_range
from dpsd.synthesis.sources import Source


class Public(Source):
    """Public images, shifted at random, and mirrored if they are in colour.

    Args:
        shape: the shape of the images.
        images: the images, uint8 ``(N, *shape)``.

    Raises:
        DataError: there is no image, or the images have another shape or type.
    """

    name = "public"

    def __init__(self, shape: Shape, images: Tensor) -> None:
        super().__init__(shape)
        if images.dtype != torch.uint8 or not len(images) or images.shape[1:] != shape:
            raise DataError(
                f"public images are {images.dtype} {tuple(images.shape)}, not uint8 (N, "
                f"{', '.join(map(str, shape))}) with at least one image"
            )
        self._images = images

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(0, len(self._images), (count,), generator=generator)
        moves = default_augmentation(self.shape)
        return to_unit_range(augment_images(self._images[chosen], moves, generator=generator))

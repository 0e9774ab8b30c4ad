"""Augmentation: shifts, mirroring and distortions that do not change the class of an image.

>>> default_augmentation((1, 28, 28))
'shift'
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.images.names import Augmentation as Augmentation


def default_augmentation(input_shape: tuple[int, int, int]) -> Augmentation:
    """Return the augmentation that suits images of this shape.

    Colour images are taken to be photographs, whose mirror images are just as good; grey images may
    be writing, whose mirror images are not.

    >>> default_augmentation((1, 28, 28)), default_augmentation((3, 32, 32))
    ('shift', 'shift-flip')
    """
    return "shift" if input_shape[0] == 1 else "shift-flip"


def augment_images(images: Tensor, augment: Augmentation, *, generator: torch.Generator) -> Tensor:
    """Shift, and optionally mirror, every image of a batch independently.

    A single gather moves the whole batch: row ``i`` of an image moved by ``d`` is row ``i + d`` of
    the padded original, and the same holds for columns. A shift is at most two pixels, or an eighth
    of the side for images under 16 pixels.

    Args:
        images: the images, ``(N, C, H, W)``, of any type.
        augment: the augmentation to apply.
        generator: a CPU random generator, the source of all randomness here.

    >>> dot = torch.zeros(4, 1, 8, 8); dot[:, :, 4, 4] = 1
    >>> moved = augment_images(dot, "shift", generator=torch.Generator().manual_seed(0))
    >>> moved.shape, moved.sum().item()
    (torch.Size([4, 1, 8, 8]), 4.0)
    """
    if augment == "none":
        return images
    count, _, height, width = images.shape
    reach = max(1, min(2, min(height, width) // 8))
    padded = F.pad(images, (reach,) * 4)
    offsets = torch.randint(0, 2 * reach + 1, (2, count, 1), generator=generator)
    rows = offsets[0] + torch.arange(height)
    columns = offsets[1] + torch.arange(width)
    if augment == "shift-flip":
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    every = torch.arange(count)[:, None, None]
    index = [part.to(images.device) for part in (every, rows[:, :, None], columns[:, None, :])]
    # Advanced indices around a slice put the channels last. Moving them back is free, because
    # (N, H, W, C) storage is what channels-last means.
    return padded[index[0], :, index[1], index[2]].permute(0, 3, 1, 2)


#: The largest rotation, slant, and stretch or squeeze of each axis of a distorted image.
_TURN = math.radians(15)
_SLANT = 0.2
_STRETCH = math.log(1.2)


def distort_images(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Rotate, slant and stretch every image of a batch independently.

    This is for training on a handful of images: the distortions imitate other handwriting, other
    builds and other points of view. Half of colour images, taken to be photographs, are mirrored
    too.

    Args:
        images: the images, ``(N, C, H, W)``, in floating point.
        generator: a CPU random generator, the source of all randomness here. What is drawn from it
            does not depend on the images, so the result for one does not depend on the others.

    Returns:
        As many images of the same shape and type.

    >>> seven = torch.zeros(4, 1, 28, 28); seven[:, :, 6, 8:20] = seven[:, :, 6:24, 18] = 1
    >>> sevens = distort_images(seven, generator=torch.Generator().manual_seed(0))
    >>> sevens.shape, bool(0 <= sevens.min() and sevens.max() <= 1)
    (torch.Size([4, 1, 28, 28]), True)
    """
    count, channels, _, _ = images.shape
    return moved(images, draw_distortions(count, channels=channels, generator=generator))


def draw_distortions(count: int, *, channels: int, generator: torch.Generator) -> Tensor:
    """Draw affine maps, ``(count, 2, 3)``, each of which rotates, slants and stretches an image.

    >>> draw_distortions(5, channels=1, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2, 3])
    """

    def upto(most: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * most

    angle, slant = upto(_TURN), upto(_SLANT)
    wide, high = upto(_STRETCH).exp(), upto(_STRETCH).exp()
    if channels > 1:
        wide = torch.where(torch.rand(count, generator=generator) < 0.5, -wide, wide)
    still = torch.zeros(count)
    rows = [
        torch.stack([angle.cos() * wide, slant - angle.sin() * high, still], dim=1),
        torch.stack([angle.sin() * wide, angle.cos() * high, still], dim=1),
    ]
    return torch.stack(rows, dim=1)


def moved(images: Tensor, maps: Tensor) -> Tensor:
    """Return each image ``(N, C, H, W)`` under its own affine map ``(N, 2, 3)``."""
    where = F.affine_grid(maps.to(images), list(images.shape), align_corners=False)
    # Writing is on an empty page, but a photograph continues beyond its frame.
    beyond = "zeros" if images.shape[1] == 1 else "reflection"
    return F.grid_sample(images, where, padding_mode=beyond, align_corners=False)

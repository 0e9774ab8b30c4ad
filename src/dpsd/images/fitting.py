"""Fitting public images to the shape that a teacher takes: their size, and grey or colour.

An image is scaled until it covers the size, and cropped at its centre.

>>> fitted(torch.zeros((2, 3, 10, 12), dtype=torch.uint8), (1, 8, 8)).shape
torch.Size([2, 1, 8, 8])
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dpsd.errors import ConfigError, DataError
from dpsd.images.names import Shape
from dpsd.images.reading import read_picture
from dpsd.images.value_range import ValueRange

#: The most numbers of images that are scaled at once.
_MOST_NUMBERS = 1 << 24

#: The weights of red, green and blue in grey, as ITU-R BT.601 has them and image files are read.
_LUMA = (0.299, 0.587, 0.114)


def read_fitted(file: Path, shape: Shape, *, value_range: ValueRange | None = None) -> Tensor:
    """Read a public image file, fitted to a shape.

    Args:
        file: the path of the file.
        shape: the channels, height and width; image files give 1 or 3 channels.
        value_range: the stored values of grey images that are black and white, where the file does
            not say it (:func:`dpsd.images.reading.read_picture`).

    Returns:
        The image, uint8 ``(channels, height, width)``.

    Raises:
        ConfigError: the number of channels is neither 1 nor 3.
        DataError: the file cannot be read.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise ConfigError(f"image files give 1 or 3 channels, not {channels}")
    try:
        picture = read_picture(file, value_range=value_range)
    except DataError as error:
        raise DataError("public images: ", *error.parts) from None
    picture = picture.convert("L" if channels == 1 else "RGB")
    down, across = _covering((picture.height, picture.width), (height, width))
    is_smaller = down < picture.height
    picture = picture.resize((across, down), Image.Resampling.BOX if is_smaller else None)
    left, top = (across - width) // 2, (down - height) // 2
    pixels = np.asarray(picture.crop((left, top, left + width, top + height)))
    return torch.from_numpy(pixels.copy()).reshape(height, width, channels).permute(2, 0, 1)


def fitted(images: Tensor, shape: Shape) -> Tensor:
    """Return images fitted to a shape; those that have it are returned as they are.

    Args:
        images: the images, uint8 ``(N, C, H, W)``.
        shape: the channels, height and width. Grey becomes colour and colour becomes grey; other
            numbers of channels must be equal.

    Returns:
        The images, uint8 ``(N, *shape)``.

    Raises:
        DataError: the images have another number of channels, which cannot be converted.
    """
    channels, height, width = shape
    found = images.shape[1]
    if images.shape[1:] == shape:
        return images
    if not can_convert(found, channels):
        raise DataError(
            f"public images {tuple(images.shape)} have {found} channels as (N, C, H, W) and the "
            f"teacher takes {channels}: give images with {channels}"
        )
    down, across = size = _covering(images.shape[2:], (height, width))
    top, left = (down - height) // 2, (across - width) // 2
    largest = max(images[0].numel(), channels * down * across)
    parts = []
    for part in torch.split(images, max(1, _MOST_NUMBERS // largest)):
        pixels = part.float()
        if channels < found:
            pixels = (pixels * pixels.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        if size != part.shape[2:]:
            pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
        pixels = pixels[:, :, top : top + height, left : left + width]
        fitting = pixels.round().clamp(0, 255).to(torch.uint8)
        parts.append(fitting.expand(-1, channels, -1, -1).contiguous())
    return torch.cat(parts)


def can_convert(found: int, channels: int) -> bool:
    """Return whether images of a number of channels can get another number.

    >>> can_convert(1, 3), can_convert(16, 16), can_convert(16, 1)
    (True, True, False)
    """
    return found == channels or {found, channels} == {1, 3}


def _covering(size: tuple[int, ...] | torch.Size, frame: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of an image that is scaled just enough to cover a frame."""
    zoom = max(frame[0] / size[0], frame[1] / size[1])
    return max(frame[0], math.ceil(size[0] * zoom)), max(frame[1], math.ceil(size[1] * zoom))

"""Converting images between bytes and numbers from 0 to 1.

>>> to_pixels(to_unit_range(torch.tensor([0, 7, 255], dtype=torch.uint8))).tolist()
[0, 7, 255]
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit_range(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in ``[0, 1]``, and float images unchanged.

    >>> to_unit_range(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([0., 1.])
    """
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def to_pixels(images: Tensor) -> Tensor:
    """Return images in ``[0, 1]`` as the nearest bytes.

    >>> to_pixels(torch.tensor([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    return (images * 255).round_().to(torch.uint8)

"""Random changes of colour, which leave an image's content as it is."""

from __future__ import annotations

import torch
from torch import Tensor


def jittered_colours(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Change the saturation and the hue of each image, and turn a tenth of them grey.

    Each channel becomes a mixture of all channels: between its own value and their mean (less or
    more saturated), and a little of every other (another hue).

    Args:
        images: the images, float32 ``(N, C, H, W)``; those with one channel are returned unchanged.
        generator: a CPU random generator, the source of all randomness here.

    Returns:
        The images, of the same shape. Values may leave [0, 1].

    >>> grey = torch.full((2, 1, 8, 8), 0.5)
    >>> jittered_colours(grey, generator=torch.Generator().manual_seed(0)).equal(grey)
    True
    """
    count, channels, _, _ = images.shape
    if channels == 1:
        return images
    own, mean = torch.eye(channels), torch.full((channels, channels), 1 / channels)
    saturation = 1.6 * torch.rand((count, 1, 1), generator=generator)
    saturation[torch.rand((count,), generator=generator) < 0.1] = 0
    hue = 0.15 * torch.randn((count, channels, channels), generator=generator)
    # What hues add to a channel sums to nothing, so white stays white.
    hue = hue - hue.mean(2, keepdim=True)
    mixture = mean + saturation * (own - mean + hue)
    return (mixture @ images.flatten(2)).view_as(images)

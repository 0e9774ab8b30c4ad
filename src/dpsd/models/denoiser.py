"""The denoiser of diffusion: a small U-Net, sized for the images.

>>> denoiser = build_denoiser((1, 28, 28), seed=0)
>>> denoiser(torch.randn(2, 1, 28, 28), torch.tensor([0.1, 0.9])).shape
torch.Size([2, 1, 28, 28])
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpsd.images.names import Shape
from dpsd.models.registry import build_module, require_shape

#: The most cells per side of the finest feature maps; a cell is a square of pixels.
_CELLS = 16

_FREQUENCIES = 16
_GROUPS = 8


class Denoiser(nn.Module):
    """A U-Net of three levels that predicts ``v`` from a noisy image and its time.

    Pixels are folded into the channels of cells (:func:`pixels_per_cell`), so that the finest of
    the maps has at most 16 cells per side and the cost hardly depends on the size of the images.
    Larger images get more channels instead.

    Args:
        input_shape: the channels, height and width of the images.

    Source: Ronneberger et al., "U-Net", MICCAI 2015; ``v``: Salimans and Ho, "Progressive
    Distillation for Fast Sampling of Diffusion Models", ICLR 2022.
    """

    frequencies: Tensor

    def __init__(self, *, input_shape: Shape) -> None:
        super().__init__()
        channels, *sides = input_shape
        self.cell = pixels_per_cell(sides)
        fine = min(96, 16 * self.cell)
        coarse, timed = 2 * fine, 4 * fine
        folded = channels * self.cell**2
        self.register_buffer("frequencies", torch.logspace(0, 2, _FREQUENCIES))
        self.time = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, timed), nn.SiLU(), nn.Linear(timed, timed), nn.SiLU()
        )
        self.enter = nn.Conv2d(folded, fine, 3, padding=1)
        self.down = nn.ModuleList(
            [_Block(fine, fine, timed), _Block(fine, coarse, timed), _Block(coarse, coarse, timed)]
        )
        self.middle = _Block(coarse, coarse, timed)
        self.up = nn.ModuleList(
            [
                _Block(2 * coarse, coarse, timed),
                _Block(2 * coarse, coarse, timed),
                _Block(coarse + fine, fine, timed),
            ]
        )
        self.leave = nn.Sequential(
            nn.GroupNorm(_GROUPS, fine), nn.SiLU(), nn.Conv2d(fine, folded, 3, padding=1)
        )

    def forward(self, images: Tensor, time: Tensor) -> Tensor:
        """Predict ``v``.

        Args:
            images: the noisy images, float32 ``(N, C, H, W)``; clean ones are in [-1, 1].
            time: the time of each, ``(N,)``, from 0 (clean) to 1 (noise alone).

        Returns:
            ``v = α ε - σ x`` for the clean image ``x`` and the noise ``ε``, ``(N, C, H, W)``.
        """
        height, width = images.shape[-2:]
        angles = time[:, None] * self.frequencies
        embedded = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        missing = (0, -width % self.cell, 0, -height % self.cell)
        cells = F.pixel_unshuffle(F.pad(images, missing, mode="replicate"), self.cell)
        maps = self.enter(cells)
        skipped = []
        for level, block in enumerate(self.down):
            maps = block(maps if level == 0 else F.avg_pool2d(maps, 2, ceil_mode=True), embedded)
            skipped.append(maps)
        maps = self.middle(maps, embedded)
        for block in self.up:
            beside = skipped.pop()
            maps = F.interpolate(maps, size=beside.shape[-2:])
            maps = block(torch.cat([maps, beside], dim=1), embedded)
        folded = F.pixel_shuffle(self.leave(maps), self.cell)
        return folded[..., :height, :width]


class _Block(nn.Module):
    """Two convolutions beside a shortcut, shifted and scaled by the time."""

    def __init__(self, channels_in: int, channels_out: int, timed: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels_in),
            nn.SiLU(),
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
        )
        self.norm = nn.GroupNorm(_GROUPS, channels_out)
        self.time = nn.Linear(timed, 2 * channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        nn.init.zeros_(self.second.weight)  # so that a block begins as its shortcut
        self.shortcut = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Conv2d(channels_in, channels_out, 1)
        )

    def forward(self, maps: Tensor, embedded: Tensor) -> Tensor:
        scale, shift = self.time(embedded)[:, :, None, None].chunk(2, dim=1)
        found = self.norm(self.first(maps)) * (1 + scale) + shift
        result: Tensor = self.shortcut(maps) + self.second(F.silu(found))
        return result


def pixels_per_cell(sides: Sequence[int]) -> int:
    """Return the side of a cell in pixels, a power of two from 2 on.

    >>> pixels_per_cell([14, 14]), pixels_per_cell([28, 28]), pixels_per_cell([224, 160])
    (2, 2, 16)
    """
    return int(2 ** max(1, math.ceil(math.log2(max(sides) / _CELLS))))


def build_denoiser(input_shape: Shape, *, seed: int) -> Denoiser:
    """Build a denoiser of images of a shape, from a seed; torch's generator is not changed.

    Raises:
        ConfigError: the shape is not three positive integers.
    """
    require_shape(input_shape)
    built, _ = build_module("denoiser", "unet", {"unet": Denoiser}, seed, input_shape=input_shape)
    assert isinstance(built, Denoiser)
    return built

"""Generators, which map noise to images in ``[0, 1]``.

>>> import torch
>>> generator = build_generator("dcgan", input_shape=(3, 32, 32), seed=0)
>>> generator(torch.randn(4, generator.latent_dim)).shape
torch.Size([4, 3, 32, 32])
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from dpsd.devices.layout import answer_in_float32, hand_its_type
from dpsd.errors import ConfigError
from dpsd.images.names import Shape
from dpsd.models.registry import build_module, probe, require_shape, settle_layout

DEFAULT_LATENT_DIM = 100
"""The length of the noise vector that an image is made from, as in DCGAN and DAFL."""

SMALLEST_SIDE = 4
LARGEST_SIDE = 512
"""The heights and widths that the generators can make, in pixels."""

_WIDEST = 512
_INITIAL_CONTRAST = 4.0


class Generator(nn.Module):
    """The upsampling generator of DAFL (Chen et al., ICCV 2019), sized for the images.

    A linear layer fills a map of about 7x7. Nearest-neighbour doublings and convolutions, each with
    half the channels of the one before, bring it to at least the size of the images, and the centre
    is cropped. The last BatchNorm of DAFL is left out: it holds the pixels of a batch to one mean
    and one contrast, so images with a plain background are out of reach and a cold start stays in
    one class. Instead, the last convolution starts with weights large enough for black and white.

    Args:
        input_shape: the channels, height and width of the images.
        latent_dim: the length of the noise vector.
        width: the channels of the last hidden layer with two doublings or more.
    """

    def __init__(self, *, input_shape: Shape, latent_dim: int, width: int = 8) -> None:
        super().__init__()
        channels, height, rows = input_shape
        self.latent_dim = latent_dim
        self.sides = height, rows
        doublings = max(1, round(math.log2(max(self.sides) / 7)))
        scale = 2**doublings
        # Two halvings even for a single doubling, as channels are cheap at low resolution.
        widest = width * 2 ** max(doublings, 2)
        widths = [min(_WIDEST, widest // 2**stage) for stage in range(doublings + 1)]
        start = math.ceil(height / scale), math.ceil(rows / scale)
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, widths[0] * start[0] * start[1]),
            nn.Unflatten(1, (widths[0], *start)),
            nn.BatchNorm2d(widths[0]),
        ]
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
        last = nn.Conv2d(widths[-1], channels, 3, padding=1)
        with torch.no_grad():
            last.weight.mul_(_INITIAL_CONTRAST)
        layers += [last, nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Map noise ``(N, latent_dim)`` to images ``(N, C, H, W)`` in ``[0, 1]``."""
        images: Tensor = self.layers(latent)
        top, left = ((images.shape[2 + i] - side) // 2 for i, side in enumerate(self.sides))
        return images[:, :, top : top + self.sides[0], left : left + self.sides[1]]


_GENERATORS: dict[str, Callable[..., nn.Module]] = {
    "dcgan": Generator,
    "dcgan-wide": partial(Generator, width=16),
    "dcgan-widest": partial(Generator, width=32),
}


def build_generator(
    generator: str | nn.Module | Callable[..., object] = "dcgan",
    *,
    input_shape: Shape,
    latent_dim: int | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Build a generator and check two of its images.

    Args:
        generator: a name (:func:`generator_names`), ``"package.module:factory"``, a factory, or a
            module, which is returned unchanged. A factory is called with ``input_shape`` and
            ``latent_dim`` as far as its signature takes them.
        input_shape: the channels, height and width of the images.
        latent_dim: the length of the noise vector; by default 100, or what a module states.
        seed: the seed of the initialisation. Torch's global generator is not changed.

    Returns:
        A module with an attribute ``latent_dim`` that maps noise ``(N, latent_dim)`` to images
        ``(N, C, H, W)`` in ``[0, 1]``.

    Raises:
        UnknownNameError: there is no generator of that name.
        ConfigError: the size is not supported, the factory failed, or the generator makes other
            images.

    >>> build_generator(input_shape=(1, 28, 28), latent_dim=16, seed=0).latent_dim
    16
    """
    require_shape(input_shape)
    _, height, rows = input_shape
    if generator in _GENERATORS and not (
        min(height, rows) >= SMALLEST_SIDE and max(height, rows) <= LARGEST_SIDE
    ):
        raise ConfigError(
            f"the generator cannot make images of {height}x{rows} pixels, only of "
            f"{SMALLEST_SIDE} to {LARGEST_SIDE} per side"
        )
    if latent_dim is not None and latent_dim < 1:
        raise ConfigError(f"latent_dim is {latent_dim}; it must be at least 1")
    built, label = build_module(
        "generator",
        generator,
        _GENERATORS,
        seed,
        input_shape=input_shape,
        latent_dim=DEFAULT_LATENT_DIM if latent_dim is None else latent_dim,
    )
    found = getattr(built, "latent_dim", None)
    if not isinstance(found, int):
        raise ConfigError(f"{label} needs an integer attribute latent_dim")
    if latent_dim is not None and found != latent_dim:
        raise ConfigError(f"{label} has latent_dim {found}, not {latent_dim}")
    noise = torch.randn(2, found, generator=torch.Generator().manual_seed(0))
    is_own = generator not in _GENERATORS
    if is_own:
        hand_its_type(built)
        answer_in_float32(built)
    images = probe(built, noise, label=label)
    if is_own:
        settle_layout(built, noise, label=label)
    if images.shape != (2, *input_shape):
        raise ConfigError(
            f"{label} makes images of shape {tuple(images.shape[1:])}, not {input_shape}"
        )
    if not (images.min() >= 0 and images.max() <= 1):
        raise ConfigError(f"{label} makes pixels outside [0, 1]")
    return built

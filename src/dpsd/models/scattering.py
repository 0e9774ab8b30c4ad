"""``scattering``: a linear classifier on fixed wavelet features, for little training data.

The features are a scattering transform: moduli of oriented wavelets, and of wavelets of those,
averaged over space. Nothing in them is learned, so they cost no data and no privacy, and a handful
of records per class is enough for the linear layer on top. Closed-form training (see
:mod:`dpsd.training.ensemble`) fits thousands of such classifiers in seconds. As a student, it needs
the fewest answers: what it learns on synthetic images carries over to real ones, as the features
do.

Source: Bruna & Mallat, "Invariant Scattering Convolution Networks", TPAMI 2013; for private
learning, Tramèr & Boneh, "Differentially Private Learning Needs Better Features", ICLR 2021.

>>> import torch
>>> model = scattering(input_shape=(1, 28, 28), num_classes=10)
>>> model(torch.rand(4, 1, 28, 28)).shape
torch.Size([4, 10])
>>> model.head
Linear(in_features=729, out_features=10, bias=True)
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.images.names import Shape
from dpsd.models.frozen import linear_on
from dpsd.models.layers import pool_to

_ORIENTATIONS = 8
_KERNEL = 7
#: Octaves stop where the feature map would be smaller than this many pixels per side.
_SMALLEST_MAP = 3
_MOST_OCTAVES = 4


def scattering(
    *, input_shape: Shape, num_classes: int, features: nn.Module | None = None
) -> nn.Sequential:
    """Wavelet features, pooled to 3x3 and brought to one scale, and a linear layer.

    Other ``features`` may take the place of the wavelets, see :func:`.linear_on`.

    >>> scattering(input_shape=(1, 8, 8), num_classes=10).head
    Linear(in_features=81, out_features=10, bias=True)
    """
    if features is not None:
        return linear_on(features, input_shape=input_shape, num_classes=num_classes)
    channels, height, width = input_shape
    octaves = 1
    while octaves < _MOST_OCTAVES and min(height, width) >> (octaves + 1) > 2 * _SMALLEST_MAP:
        octaves += 1
    wavelets = Scattering(octaves)
    pool, sides = pool_to((height >> octaves, width >> octaves), _SMALLEST_MAP)
    count = channels * wavelets.maps * sides[0] * sides[1]
    return nn.Sequential(
        OrderedDict(
            features=wavelets,
            pool=pool,
            compress=Compress(),
            flatten=nn.Flatten(),
            # Features differ in scale by orders of magnitude; normalised, one step size suits all.
            normalize=nn.BatchNorm1d(count, affine=False),
            head=nn.Linear(count, num_classes),
        )
    )


class Scattering(nn.Module):
    """The scattering transform to order two, as a pyramid of one small bank of Morlet wavelets.

    Args:
        octaves: the number of times the image is halved; each octave sees structure twice as large.
    """

    bank: Tensor

    def __init__(self, octaves: int) -> None:
        super().__init__()
        self.octaves = octaves
        self.register_buffer("bank", morlet_bank(), persistent=False)

    @property
    def maps(self) -> int:
        """The number of feature maps for each channel of the image."""
        pairs = self.octaves * (self.octaves - 1) // 2
        return 1 + _ORIENTATIONS * self.octaves + _ORIENTATIONS**2 * pairs

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to ``(N, C * maps, H >> octaves, W >> octaves)``."""
        smooth = images
        first: list[Tensor] = []
        second: list[Tensor] = []
        for _ in range(self.octaves):
            second += [self._modulus(order_one) for order_one in first]
            first.append(self._modulus(smooth))
            smooth = F.avg_pool2d(smooth, 2)
            first = [F.avg_pool2d(part, 2) for part in first]
            second = [F.avg_pool2d(part, 2) for part in second]
        return torch.cat([smooth, *first, *second], dim=1)

    def _modulus(self, maps: Tensor) -> Tensor:
        count, channels, height, width = maps.shape
        reach = _KERNEL // 2
        single = maps.reshape(count * channels, 1, height, width)
        # Reflection keeps the border from looking like an edge, but tiny maps are too small for it.
        mode = "reflect" if min(height, width) > reach else "replicate"
        waves = F.conv2d(F.pad(single, (reach,) * 4, mode=mode), self.bank.to(maps.dtype))
        energy = waves[:, :_ORIENTATIONS].square() + waves[:, _ORIENTATIONS:].square()
        return (energy + 1e-8).sqrt().reshape(count, channels * _ORIENTATIONS, height, width)


class Compress(nn.Module):
    """Takes the square root of features, so that faint structure counts nearly as strongly."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the compressed features, which are non-negative, in the same shape."""
        return (features.clamp_min(0) + 1e-3).sqrt()


def morlet_bank() -> Tensor:
    """Return the real, then the imaginary parts of a wavelet per orientation, ``(16, 1, 7, 7)``.

    Each is a wave of about three pixels under an elongated Gaussian, minus as much of the Gaussian
    as makes its mean zero, so that flat areas give zero.

    >>> bank = morlet_bank()
    >>> bool(bank.sum((1, 2, 3)).abs().max() < 1e-5)
    True
    """
    reach = torch.arange(_KERNEL) - _KERNEL // 2
    down, right = torch.meshgrid(reach.float(), reach.float(), indexing="ij")
    angle = (torch.arange(_ORIENTATIONS) * math.pi / _ORIENTATIONS).view(-1, 1, 1)
    along = angle.cos() * right + angle.sin() * down
    across = angle.cos() * down - angle.sin() * right
    envelope = torch.exp(-(along.square() + (across / 2).square()) / (2 * 0.8**2))
    envelope = envelope / envelope.sum((1, 2), keepdim=True)
    phase = 0.75 * math.pi * along
    waves = torch.cat([phase.cos() * envelope, phase.sin() * envelope])
    mean = waves.sum((1, 2), keepdim=True)
    return (waves - mean * envelope.repeat(2, 1, 1)).unsqueeze(1)

"""The convolutional network that DP-SGD trains where it has no fixed features."""

from __future__ import annotations

import torch
from torch import nn

from dpsd.images.names import Shape


def tempered_network(*, input_shape: Shape, num_classes: int) -> nn.Sequential:
    """The small network for DP-SGD of Papernot et al., AAAI 2021, table 1: tanh and no BatchNorm.

    Images under 16 pixels a side get smaller kernels.

    >>> network = tempered_network(input_shape=(1, 28, 28), num_classes=10)
    >>> sum(parameter.numel() for parameter in network.parameters())
    26010
    """
    channels, *sides = input_shape
    small = min(sides) < 16
    features = nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1)
        if small
        else nn.Conv2d(channels, 16, 8, 2, padding=2),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 3 if small else 4, 2),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
    )
    width = features(torch.zeros(1, *input_shape)).shape[-1]
    return nn.Sequential(*features, nn.Linear(width, 32), nn.Tanh(), nn.Linear(32, num_classes))

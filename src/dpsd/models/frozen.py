"""A linear classifier on a frozen backbone: the same kind of model as ``scattering``.

>>> import torch
>>> backbone = nn.Conv2d(1, 4, 3, stride=2)
>>> model = linear_on(backbone, input_shape=(1, 28, 28), num_classes=10)
>>> model(torch.rand(2, 1, 28, 28)).shape, [name for name, _ in model.head.named_parameters()]
(torch.Size([2, 10]), ['weight', 'bias'])
>>> [part.requires_grad for part in model.features.parameters()]
[False, False]
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Self

import torch
from torch import Tensor, nn

from dpsd.devices.layout import answer_in_float32, hand_its_type
from dpsd.errors import ConfigError
from dpsd.images.names import Shape
from dpsd.models.layers import pool_to

#: The most pixels per side of a backbone's feature maps, after pooling.
_SIDE = 3

#: The variance below which a feature is hardly amplified, where the mean variance is about one.
_LEAST_VARIANCE = 0.01


class Frozen(nn.Module):
    """A backbone that nothing trains: it stays in eval mode, and its weights have no gradients.

    Args:
        backbone: a module from images ``(N, C, H, W)`` to features, which is copied.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.training = False
        self.backbone = copy.deepcopy(backbone)
        for weight in self.backbone.parameters():
            weight.requires_grad_(False)
        hand_its_type(self.backbone)
        answer_in_float32(self.backbone)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to the backbone's features."""
        features: Tensor = self.backbone(images)
        return features

    def train(self, mode: bool = True) -> Self:
        """Stay as it is, whatever the mode of the model around it."""
        return self


def linear_on(backbone: nn.Module, *, input_shape: Shape, num_classes: int) -> nn.Sequential:
    """Return a linear classifier on features, which are pooled to 3x3 if they are maps.

    Args:
        backbone: a module in eval mode from images in [0, 1] to features, ``(N, F)`` or
            ``(N, M, h, w)``. It is copied.
        input_shape: the channels, height and width of an image.
        num_classes: the number of classes.

    Raises:
        ConfigError: two images do not give two rows of finite features.

    >>> linear_on(nn.Flatten(0), input_shape=(1, 8, 8), num_classes=2)
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: features are (128,) for two images; (2, F) or (2, M, h, w) is needed
    """
    features = Frozen(backbone)
    with torch.no_grad():
        found = features(torch.full((2, *input_shape), 0.5))
    if not isinstance(found, Tensor) or found.ndim not in (2, 4) or len(found) != 2:
        what = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ConfigError(f"features are {what} for two images; (2, F) or (2, M, h, w) is needed")
    if not bool(found.isfinite().all()):
        raise ConfigError("features of grey images are not finite")
    pool: nn.Module = nn.Identity()
    count = found.shape[1]
    if found.ndim == 4:
        pool, sides = pool_to((found.shape[2], found.shape[3]), _SIDE)
        count *= sides[0] * sides[1]
    return nn.Sequential(
        OrderedDict(
            features=features,
            pool=pool,
            flatten=nn.Flatten(),
            # Image by image first, so that teachers need no statistics. What hardly varies among
            # queries may vary much among real images, so it is not brought to the same scale.
            normalize=nn.Sequential(
                nn.LayerNorm(count, elementwise_affine=False),
                nn.BatchNorm1d(count, eps=_LEAST_VARIANCE, affine=False),
            ),
            head=nn.Linear(count, num_classes),
        )
    )

"""The network of dpsd's own backbones, and what lets it take images of any shape.

A backbone maps images to features, which are then fixed. :mod:`dpsd.training.pretraining` trains
dpsd's own on public images; this module says what they look like.

>>> import torch
>>> backbone = untrained_backbone("glyphs")
>>> taking_photographs = fitted(backbone, made_for=(1, 28, 28), input_shape=(3, 64, 64))
>>> taking_photographs(torch.rand(2, 3, 64, 64)).shape
torch.Size([2, 1152])
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.images.names import Shape
from dpsd.models.layers import classifier, conv, halved, pool_to

#: The channels, height and width of the images that each of dpsd's own backbones is trained on.
MADE_FOR: dict[str, Shape] = {"cifar100": (3, 32, 32), "glyphs": (1, 28, 28)}

#: The most pixels per side of the pooled feature maps.
_SIDE = 3

#: The channels of the first convolution.
_WIDTH = 32


def pretrained_network(*, input_shape: Shape, num_classes: int) -> nn.Sequential:
    """Five convolutions, two of which halve the image, pooled to 3x3, and a linear layer.

    >>> pretrained_network(input_shape=(3, 32, 32), num_classes=100).head
    Linear(in_features=1152, out_features=100, bias=True)
    """
    channels, height, width = input_shape
    features = nn.Sequential(
        # At full size, convolutions would take most of the time.
        conv(channels, _WIDTH, 5, stride=2),
        conv(_WIDTH, _WIDTH),
        conv(_WIDTH, 2 * _WIDTH, stride=2),
        conv(2 * _WIDTH, 2 * _WIDTH),
        conv(2 * _WIDTH, 4 * _WIDTH),
    )
    pool, sides = pool_to(halved(halved((height, width))), _SIDE)
    return classifier(features, pool, nn.Linear(4 * _WIDTH * sides[0] * sides[1], num_classes))


def untrained_backbone(name: str) -> nn.Sequential:
    """Return one of dpsd's own backbones, in eval mode, whose weights are yet to be filled in.

    >>> untrained_backbone("cifar100")[-1]
    Flatten(start_dim=1, end_dim=-1)
    """
    return body_of(pretrained_network(input_shape=MADE_FOR[name], num_classes=2)).eval()


def body_of(network: nn.Module) -> nn.Sequential:
    """Return a network without its last layer.

    >>> body_of(pretrained_network(input_shape=(1, 28, 28), num_classes=36))[-1]
    Flatten(start_dim=1, end_dim=-1)
    """
    return nn.Sequential(*list(network.children())[:-1])


def fitted(body: nn.Module, *, made_for: Shape, input_shape: Shape) -> nn.Module:
    """Return a backbone that takes images of another shape than those that it was made for.

    Args:
        body: the backbone.
        made_for: the channels, 1 or 3, and the height and width that it was made for.
        input_shape: the channels, height and width of the images.

    >>> fitted(nn.Identity(), made_for=(1, 28, 28), input_shape=(1, 28, 28))
    Identity()
    """
    if input_shape == made_for:
        return body
    return nn.Sequential(Reshaped(made_for), body)


class Reshaped(nn.Module):
    """Brings images to a shape: grey ones get three equal channels, and colours are averaged.

    Args:
        shape: the channels, height and width of the images that are returned.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, c, h, w)`` to ``(N, C, H, W)``."""
        channels, height, width = self.shape
        if images.shape[1] != channels:
            images = images.mean(1, keepdim=True).expand(-1, channels, -1, -1)
        # Averaged first, as interpolation looks at the nearest pixels alone.
        across = max(1, images.shape[2] // height), max(1, images.shape[3] // width)
        images = F.avg_pool2d(images, across)
        return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)

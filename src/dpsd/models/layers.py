"""The parts that the architectures share: pixel normalisation, convolutions and poolings.

>>> import torch
>>> PixelNormalize()(torch.tensor([0.0, 0.5, 1.0]))
tensor([-2.,  0.,  2.])
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

Sides = tuple[int, int]
"""The height and width of a feature map."""

LARGEST_SMALL_IMAGE = 64
"""Images of up to this many pixels per side keep their resolution through the stem."""


class PixelNormalize(nn.Module):
    """Normalises pixels from ``[0, 1]`` by fixed constants: ``(x - 0.5) / 0.25``.

    The constants are deliberately the same for every data set: a mean and a deviation measured on
    private images would be an unaccounted release about them.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` in ``[0, 1]`` to ``[-2, 2]``, of the same shape."""
        return (images - 0.5) * 4.0


def is_small(sides: Sides) -> bool:
    """Return whether images of these sides get the stem for small images.

    >>> is_small((32, 32)), is_small((224, 224))
    (True, False)
    """
    return max(sides) <= LARGEST_SMALL_IMAGE


def halved(sides: Sides) -> Sides:
    """Return the sides after a padded convolution of stride 2, or a 2x2 pooling of even sides.

    >>> halved((28, 7))
    (14, 4)
    """
    return (sides[0] + 1) // 2, (sides[1] + 1) // 2


def conv(
    channels_in: int,
    channels_out: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Return a convolution (padded to keep the size at stride 1), BatchNorm and an activation.

    >>> [type(layer).__name__ for layer in conv(3, 8)]
    ['Conv2d', 'BatchNorm2d', 'ReLU']
    """
    layers: list[nn.Module] = [
        nn.Conv2d(
            channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(channels_out),
    ]
    if activation is not None:
        layers.append(activation())
    return nn.Sequential(*layers)


def max_pool(sides: Sides) -> tuple[nn.Module, Sides]:
    """Return a max pooling that halves sides of more than one pixel, and the resulting sides.

    >>> max_pool((65, 1))
    (MaxPool2d(kernel_size=(2, 1), stride=(2, 1), padding=0, dilation=1, ceil_mode=False), (32, 1))
    """
    kernel = min(2, sides[0]), min(2, sides[1])
    return nn.MaxPool2d(kernel), (sides[0] // kernel[0], sides[1] // kernel[1])


def pool_to(sides: Sides, most: int) -> tuple[nn.Module, Sides]:
    """Return an average pooling to at most ``most`` pixels per side, and the resulting sides.

    The kernel is fixed when the model is built. An adaptive pooling whose output does not divide
    its input cannot be exported to ONNX, but this one can, and the two agree wherever the output
    divides the input.

    >>> pool_to((7, 7), 2)
    (AvgPool2d(kernel_size=(4, 4), stride=(3, 3), padding=0), (2, 2))
    >>> pool_to((2, 2), 5)
    (Identity(), (2, 2))
    """
    target = min(sides[0], most), min(sides[1], most)
    if target == sides:
        return nn.Identity(), sides
    stride = sides[0] // target[0], sides[1] // target[1]
    kernel = sides[0] - (target[0] - 1) * stride[0], sides[1] - (target[1] - 1) * stride[1]
    return nn.AvgPool2d(kernel, stride), target


def classifier(features: nn.Module, pool: nn.Module, head: nn.Module) -> nn.Sequential:
    """Chain normalisation, features, pooling and head; ``head`` must end in ``nn.Linear``.

    >>> model = classifier(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Linear(3, 10))
    >>> list(dict(model.named_children()))
    ['normalize', 'features', 'pool', 'flatten', 'head']
    """
    return nn.Sequential(
        OrderedDict(
            normalize=PixelNormalize(),
            features=features,
            pool=pool,
            flatten=nn.Flatten(),
            head=head,
        )
    )

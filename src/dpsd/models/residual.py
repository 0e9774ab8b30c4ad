"""Residual classifiers: ``resnet8`` to ``resnet50`` and the wide ``wrn16-1`` and ``wrn40-2``.

>>> import torch
>>> model = resnet8(input_shape=(3, 32, 32), num_classes=10)
>>> model(torch.rand(4, 3, 32, 32)).shape
torch.Size([4, 10])
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from dpsd.images.names import Shape
from dpsd.models.layers import classifier, conv, halved, is_small, pool_to


class _Block(Protocol):
    expansion: int

    def __call__(self, channels_in: int, width: int, stride: int) -> nn.Module: ...


class _Residual(nn.Module):
    """A residual block, ``relu(body(x) + shortcut(x))``."""

    def __init__(self, body: nn.Module, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = body
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = conv(channels_in, channels_out, 1, stride=stride, activation=None)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.body(inputs) + self.shortcut(inputs)
        return F.relu(output)


class BasicBlock(_Residual):
    """A block of two 3x3 convolutions with a shortcut (He et al., CVPR 2016)."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        body = nn.Sequential(
            conv(channels_in, width, stride=stride), conv(width, width, activation=None)
        )
        super().__init__(body, channels_in, width, stride)


class Bottleneck(_Residual):
    """A block of 1x1, 3x3 and 1x1 convolutions, the last four times as wide, with a shortcut."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        wide = width * self.expansion
        body = nn.Sequential(
            conv(channels_in, width, 1),
            conv(width, width, stride=stride),
            conv(width, wide, 1, activation=None),
        )
        super().__init__(body, channels_in, wide, stride)


class PreactivationBlock(nn.Module):
    """A block with BatchNorm and ReLU before each convolution (Zagoruyko & Komodakis, 2016)."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(channels_in), nn.ReLU())
        self.body = nn.Sequential(
            conv(channels_in, width, stride=stride),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels_in != width:
            self.shortcut = nn.Conv2d(channels_in, width, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, channels_in, H, W)`` to ``(N, width, H / stride, W / stride)``."""
        active = self.activate(inputs)
        kept = inputs if self.shortcut is None else self.shortcut(active)
        output: Tensor = kept + self.body(active)
        return output


def _residual(
    block: _Block,
    stem_width: int,
    widths: Sequence[int],
    depths: Sequence[int],
    *,
    input_shape: Shape,
    num_classes: int,
    last: type[nn.BatchNorm2d] | None = None,
) -> nn.Sequential:
    channels, *image = input_shape
    sides = image[0], image[1]
    if is_small(sides):
        layers: list[nn.Module] = [conv(channels, stem_width)]
    else:
        layers = [conv(channels, stem_width, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
        sides = halved(halved(sides))
    channels = stem_width
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for position in range(depth):
            stride = 2 if stage > 0 and position == 0 else 1
            layers.append(block(channels, width, stride))
            channels = width * block.expansion
        sides = sides if stage == 0 else halved(sides)
    if last is not None:  # pre-activation blocks end in a sum that is not normalised
        layers += [last(channels), nn.ReLU()]
    pool, _ = pool_to(sides, 1)
    return classifier(nn.Sequential(*layers), pool, nn.Linear(channels, num_classes))


def resnet8(*, input_shape: Shape, num_classes: int) -> nn.Sequential:
    """The CIFAR residual network of 8 layers: 16, 32, 64 channels, one block each.

    >>> sum(p.numel() for p in resnet8(input_shape=(3, 32, 32), num_classes=10).parameters())
    78042
    """
    return _residual(
        BasicBlock, 16, (16, 32, 64), (1, 1, 1), input_shape=input_shape, num_classes=num_classes
    )


def resnet20(*, input_shape: Shape, num_classes: int) -> nn.Sequential:
    """The CIFAR residual network of 20 layers: 16, 32, 64 channels, three blocks each.

    >>> resnet20(input_shape=(3, 32, 32), num_classes=10).head
    Linear(in_features=64, out_features=10, bias=True)
    """
    return _residual(
        BasicBlock, 16, (16, 32, 64), (3, 3, 3), input_shape=input_shape, num_classes=num_classes
    )


def _imagenet(
    block: _Block, depths: Sequence[int], *, input_shape: Shape, num_classes: int
) -> nn.Sequential:
    return _residual(
        block, 64, (64, 128, 256, 512), depths, input_shape=input_shape, num_classes=num_classes
    )


resnet18 = partial(_imagenet, BasicBlock, (2, 2, 2, 2))
resnet34 = partial(_imagenet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(_imagenet, Bottleneck, (3, 4, 6, 3))


def wide_resnet(*, input_shape: Shape, num_classes: int, depth: int, width: int) -> nn.Sequential:
    """WRN-``depth``-``width`` (Zagoruyko & Komodakis, BMVC 2016), without dropout.

    Args:
        input_shape: the channels, height and width of an image.
        num_classes: the number of classes.
        depth: the number of convolutional layers, ``6 n + 4``.
        width: the multiplier of the 16, 32 and 64 channels.

    >>> wide_resnet(input_shape=(3, 32, 32), num_classes=10, depth=16, width=1).head
    Linear(in_features=64, out_features=10, bias=True)
    """
    return _residual(
        PreactivationBlock,
        16,
        (16 * width, 32 * width, 64 * width),
        ((depth - 4) // 6,) * 3,
        input_shape=input_shape,
        num_classes=num_classes,
        last=nn.BatchNorm2d,
    )

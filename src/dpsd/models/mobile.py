"""MobileNetV2 (Sandler et al., CVPR 2018), with strides that suit the size of the images.

>>> import torch
>>> model = mobilenetv2(input_shape=(3, 32, 32), num_classes=10)
>>> model(torch.rand(2, 3, 32, 32)).shape
torch.Size([2, 10])
"""

from __future__ import annotations

from torch import Tensor, nn

from dpsd.images.names import Shape
from dpsd.models.layers import classifier, conv, halved, is_small, pool_to

# Table 2 of the paper: expansion, channels, blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """A block that widens by 1x1, filters each channel by 3x3, and narrows by a linear 1x1."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        widen = [conv(channels_in, wide, 1, activation=nn.ReLU6)] if expansion > 1 else []
        self.body = nn.Sequential(
            *widen,
            conv(wide, wide, stride=stride, groups=wide, activation=nn.ReLU6),
            conv(wide, channels_out, 1, activation=None),
        )
        self.keeps_shape = stride == 1 and channels_in == channels_out

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, channels_in, H, W)`` to ``(N, channels_out, H / stride, W / stride)``."""
        output: Tensor = self.body(inputs)
        return inputs + output if self.keeps_shape else output


def mobilenetv2(*, input_shape: Shape, num_classes: int) -> nn.Sequential:
    """MobileNetV2 of width 1, without the first two strides for images up to 64 pixels per side.

    >>> mobilenetv2(input_shape=(1, 8, 8), num_classes=7).head
    Linear(in_features=1280, out_features=7, bias=True)
    """
    channels, *image = input_shape
    sides = image[0], image[1]
    small = is_small(sides)
    layers: list[nn.Module] = [conv(channels, 32, stride=1 if small else 2, activation=nn.ReLU6)]
    sides = sides if small else halved(sides)
    channels = 32
    for stage, (expansion, width, depth, first_stride) in enumerate(_STAGES):
        stage_stride = 1 if small and stage == 1 else first_stride
        for position in range(depth):
            stride = stage_stride if position == 0 else 1
            layers.append(InvertedResidual(channels, width, stride=stride, expansion=expansion))
            channels = width
        sides = halved(sides) if stage_stride == 2 else sides
    layers.append(conv(channels, 1280, 1, activation=nn.ReLU6))
    pool, _ = pool_to(sides, 1)
    return classifier(nn.Sequential(*layers), pool, nn.Linear(1280, num_classes))

"""Plain convolutional classifiers: ``lenet5``, ``cnn`` (three convolutions) and ``vgg11``.

>>> import torch
>>> model = cnn(input_shape=(1, 28, 28), num_classes=10)
>>> model(torch.rand(4, 1, 28, 28)).shape
torch.Size([4, 10])
"""

from __future__ import annotations

from torch import nn

from dpsd.images.names import Shape
from dpsd.models.layers import classifier, conv, halved, is_small, max_pool, pool_to


def lenet5(*, input_shape: Shape, num_classes: int) -> nn.Sequential:
    """LeNet-5 (LeCun et al., 1998) with ReLU, BatchNorm and max pooling.

    At 28x28, it has exactly the classical 400 features. The second convolution pads smaller images
    instead of cropping them, and larger ones are pooled to 5x5.

    >>> lenet5(input_shape=(1, 28, 28), num_classes=10).head[0]
    Linear(in_features=400, out_features=120, bias=True)
    """
    channels, *image = input_shape
    half = image[0] // 2, image[1] // 2
    padding = 0 if min(half) >= 14 else 2
    quarter = (half[0] - 4 + 2 * padding) // 2, (half[1] - 4 + 2 * padding) // 2
    features = nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=padding, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    pool, sides = pool_to(quarter, 5)
    head = nn.Sequential(
        nn.Linear(16 * sides[0] * sides[1], 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )
    return classifier(features, pool, head)


def cnn(*, input_shape: Shape, num_classes: int, width: int = 16) -> nn.Sequential:
    """Three 3x3 convolutions of ``width``, ``2 width`` and ``4 width`` channels, pooled to 2x2.

    For images over 64 pixels per side, the first is a 7x7 convolution of stride 4.

    >>> cnn(input_shape=(3, 32, 32), num_classes=10, width=32).head
    Linear(in_features=512, out_features=10, bias=True)
    """
    channels, *image = input_shape
    sides = image[0], image[1]
    if is_small(sides):
        stem = conv(channels, width)
    else:
        stem = conv(channels, width, 7, stride=4)
        sides = halved(halved(sides))
    first, sides = max_pool(sides)
    second, sides = max_pool(sides)
    features = nn.Sequential(
        stem, first, conv(width, 2 * width), second, conv(2 * width, 4 * width)
    )
    pool, sides = pool_to(sides, 2)
    return classifier(features, pool, nn.Linear(4 * width * sides[0] * sides[1], num_classes))


def vgg11(*, input_shape: Shape, num_classes: int) -> nn.Sequential:
    """VGG-11 with BatchNorm (Simonyan & Zisserman, 2015) and a single linear layer as its head.

    Poolings are left out once a side is a single pixel, so small images work too.

    >>> vgg11(input_shape=(1, 8, 8), num_classes=10).head
    Linear(in_features=512, out_features=10, bias=True)
    """
    channels, *image = input_shape
    sides = image[0], image[1]
    layers: list[nn.Module] = []
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for width in stage:
            layers.append(conv(channels, width))
            channels = width
        if min(sides) > 1:
            layers.append(nn.MaxPool2d(2))
            sides = sides[0] // 2, sides[1] // 2
    pool, _ = pool_to(sides, 1)
    return classifier(nn.Sequential(*layers), pool, nn.Linear(channels, num_classes))

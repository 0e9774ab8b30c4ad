"""The generator of the baselines that make labelled images: an image of a class that is given.

>>> generator = ConditionalGenerator(input_shape=(1, 8, 8), num_classes=3, latent_dim=5, seed=0)
>>> images, labels = sampled(generator, 7, seed=0)
>>> images.shape, labels.tolist()
(torch.Size([7, 1, 8, 8]), [0, 1, 2, 0, 1, 2, 0])
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.images.names import Shape
from dpsd.images.pixels import to_pixels
from dpsd.models import build_generator
from dpsd.streams import stream

#: Images that share BatchNorm statistics when they are sampled.
_BATCH = 500


class ConditionalGenerator(nn.Module):
    """The generator of transcriptions, whose noise has the class appended to it.

    Args:
        input_shape: the channels, height and width of the images.
        num_classes: the number of classes.
        latent_dim: the length of the noise, apart from the class.
        seed: decides initial weights.
    """

    def __init__(self, *, input_shape: Shape, num_classes: int, latent_dim: int, seed: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.latent_dim = latent_dim
        self.maker = build_generator(
            input_shape=input_shape, latent_dim=latent_dim + num_classes, seed=seed
        )

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Map noise ``(N, latent_dim)`` and labels ``(N,)`` to images in [0, 1]."""
        classes = F.one_hot(labels, self.num_classes).to(noise.dtype)
        images: Tensor = self.maker(torch.cat([noise, classes], dim=1))
        return images

    def batch(self, labels: Tensor, random: torch.Generator) -> Tensor:
        """Return an image of each label, made from fresh noise."""
        noise = torch.randn((len(labels), self.latent_dim), generator=random)
        images: Tensor = self(noise.to(labels.device), labels)
        return images


def untrained_for(data: LabelledImages, *, latent_dim: int, seed: int) -> ConditionalGenerator:
    """Return an untrained generator of the images of a data set, where training runs."""
    return Execution.of().place(
        ConditionalGenerator(
            input_shape=data.input_shape,
            num_classes=data.num_classes,
            latent_dim=latent_dim,
            seed=seed,
        )
    )


def even_labels(count: int, num_classes: int) -> Tensor:
    """So many labels of all classes, each as often as the others up to one, on the device.

    >>> even_labels(5, 3).tolist()
    [0, 1, 2, 0, 1]
    """
    return torch.arange(count, device=Execution.of().device) % num_classes


def sampled(generator: ConditionalGenerator, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return images, uint8 ``(count, C, H, W)``, and their labels, as many of each class.

    The generator stays in train mode: each batch has statistics of its own, as in training.
    """
    random = stream(seed, 0, "synthetic records")
    labels = even_labels(count, generator.num_classes)
    generator.train()
    with torch.inference_mode():
        parts = [
            to_pixels(generator.batch(part, random).float()).cpu()
            for part in torch.split(labels, _BATCH)
        ]
    return torch.cat(parts), labels.cpu()

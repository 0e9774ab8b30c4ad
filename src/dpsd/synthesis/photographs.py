"""Sources made from public pictures: crops of photographs, and folders of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.errors import DataError
from dpsd.images.fitting import read_fitted
from dpsd.images.names import Shape
from dpsd.images.pixels import to_unit_range
from dpsd.images.reading import SUFFIXES, image_files
from dpsd.images.value_range import ValueRange
from dpsd.synthesis.jitter import jittered_colours
from dpsd.synthesis.sources import Source, integer, made_visible


class Crops(Source):
    """Heavily augmented crops of public photographs.

    Crops are of many scales, turned (some by any angle), sheared and mirrored. Some are blurred,
    their contrast, brightness and colours change, a tenth of those in colour become grey, and a
    fifth of all are inverted.

    Args:
        shape: the shape of the crops.
        photographs: the photographs, float32 ``(channels, height, width)`` in [0, 1], with 1 or 3
            channels each; by default, the two that scikit-learn ships.

    Source: Asano & Saeed, "The Augmented Image Prior", ICLR 2023.
    """

    name = "crops"

    def __init__(self, shape: Shape, *, photographs: Sequence[Tensor] | None = None) -> None:
        super().__init__(shape)
        self._pyramids = [
            _pyramid(_with_channels(photograph, shape[0]), smallest=max(shape[1:]))
            for photograph in (photographs or _sample_photographs())
        ]

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        _, height, width = self.shape
        pyramid = self._pyramids[integer(len(self._pyramids), generator)]
        image = pyramid[integer(len(pyramid), generator)]
        down, across = image.shape[-2:]
        # A pixel covers one to two of the photograph; other scales come from the pyramid's levels.
        zoom = 2.0 ** torch.rand((count, 1, 1), generator=generator)
        angle = 0.5 * torch.randn((count, 1, 1), generator=generator)
        turned = torch.rand((count, 1, 1), generator=generator)
        angle = torch.where(turned < 0.15, 2 * math.pi * turned / 0.15, angle)
        shear = 0.2 * torch.randn((count, 1, 1), generator=generator)
        flip = torch.randint(0, 2, (count, 1, 1), generator=generator) * 2.0 - 1.0
        rows = torch.linspace(-1, 1, height).view(1, height, 1) * height / 2 * zoom
        columns = torch.linspace(-1, 1, width).view(1, 1, width) * width / 2 * zoom * flip
        columns = columns + shear * rows
        x = (columns * angle.cos() - rows * angle.sin()) / (across / 2)
        y = (columns * angle.sin() + rows * angle.cos()) / (down / 2)
        x = x + 2 * torch.rand((count, 1, 1), generator=generator) - 1
        y = y + 2 * torch.rand((count, 1, 1), generator=generator) - 1
        # A single tall grid samples the photograph, which is thus never copied for each crop.
        grid = torch.stack([x, y], dim=-1).reshape(1, count * height, width, 2)
        crops = F.grid_sample(
            image.unsqueeze(0), grid, padding_mode="reflection", align_corners=False
        )
        crops = crops.reshape(-1, count, height, width).transpose(0, 1)
        blur = torch.rand((count, 1, 1, 1), generator=generator)
        near = F.avg_pool2d(F.pad(crops, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        crops = torch.where(blur < 0.15, torch.lerp(crops, near, blur / 0.15), crops)
        gain = 0.5 + 1.5 * torch.rand((count, 1, 1, 1), generator=generator)
        offset = 0.15 * torch.randn((count, crops.shape[1], 1, 1), generator=generator)
        crops = jittered_colours((crops - 0.5) * gain + 0.5 + offset, generator=generator)
        crops = made_visible(crops)
        inverted = torch.rand((count, 1, 1, 1), generator=generator) < 0.2
        return torch.where(inverted, 1 - crops, crops)


class Folder(Source):
    """A folder of public images (searched recursively), shifted and flipped at random.

    Args:
        shape: the shape that images are scaled and centre-cropped to.
        path: the folder.
        limit: the largest number of images to read.
        value_range: the stored values of grey images that are black and white, where the files do
            not say it (:func:`dpsd.images.reading.read_picture`).

    Raises:
        DataError: there is no such folder, or no image in it, or a file cannot be read.
    """

    name = "folder"

    def __init__(
        self,
        shape: Shape,
        path: Path,
        *,
        limit: int = 50_000,
        value_range: ValueRange | None = None,
    ) -> None:
        super().__init__(shape)
        if not path.is_dir():
            raise DataError(f"public images: {path} is not a folder")
        files = image_files(path)
        if not files:
            raise DataError(f"public images: no image ({', '.join(SUFFIXES)}, .dcm) in {path}")
        self._images = torch.stack(
            [read_fitted(file, shape, value_range=value_range) for file in files[:limit]]
        )

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        _, height, width = self.shape
        chosen = torch.randint(0, len(self._images), (count,), generator=generator)
        images = to_unit_range(self._images[chosen])
        reach = max(1, min(height, width) // 8)
        rows = torch.randint(-reach, reach + 1, (count, 1), generator=generator)
        columns = torch.randint(-reach, reach + 1, (count, 1), generator=generator)
        down = (torch.arange(height) + rows).clamp(0, height - 1).view(count, 1, height, 1)
        right = (torch.arange(width) + columns).clamp(0, width - 1).view(count, 1, 1, width)
        images = images.gather(2, down.expand_as(images)).gather(3, right.expand_as(images))
        flipped = torch.rand((count, 1, 1, 1), generator=generator) < 0.5
        return torch.where(flipped, images.flip(-1), images)


def _sample_photographs() -> list[Tensor]:
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images
    return [torch.from_numpy(picture.copy()).permute(2, 0, 1) / 255 for picture in pictures]


def _with_channels(image: Tensor, channels: int) -> Tensor:
    if image.shape[0] == channels:
        return image
    gray = image.mean(0, keepdim=True)
    return gray.expand(channels, -1, -1)


def _pyramid(image: Tensor, *, smallest: int) -> list[Tensor]:
    """Return an image at halved sizes, down to the smallest that a crop still fits in."""
    if min(image.shape[-2:]) < smallest:
        size = [math.ceil(side * smallest / min(image.shape[-2:])) for side in image.shape[-2:]]
        image = F.interpolate(image.unsqueeze(0), size=size, mode="bilinear")[0].clamp(0, 1)
    levels = [image.contiguous()]
    while min(levels[-1].shape[-2:]) // 2 >= smallest:
        levels.append(F.avg_pool2d(levels[-1].unsqueeze(0), 2)[0])
    return levels

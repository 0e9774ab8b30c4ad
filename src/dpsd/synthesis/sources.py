"""Where queries come from: public image sources that know nothing of any private data.

A source makes images; a teacher labels them. A run that starts from an untrained generator alone
collapses (all its images fall in one class), so the first queries must be diverse on their own.
None of these sources is fitted to a data set, and public data costs no privacy.

>>> import torch
>>> generator = torch.Generator().manual_seed(0)
>>> images = StructuredNoise((1, 28, 28)).sample(5, generator=generator)
>>> images.shape, 0 <= float(images.min()) <= float(images.max()) <= 1
(torch.Size([5, 1, 28, 28]), True)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dpsd.errors import ConfigError, DataError
from dpsd.images.names import Shape
from dpsd.images.pixels import to_pixels, to_unit_range

#: Images made in one vectorised step; what a step draws once (cells a side, a photograph) varies
#: from one to the next.
CHUNK = 256

#: Numbers in such a step, at most: of large images fewer are made at once.
_MOST_NUMBERS = CHUNK * 3 * 64 * 64

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


class Source(ABC):
    """A public source of images of one shape.

    Args:
        shape: channels, height and width of the images; 1 or 3 channels are usual.
    """

    #: How configurations and certificates name the source.
    name: str

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """``count`` images, float32 ``(count, channels, height, width)`` in [0, 1]."""
        return self._shuffled(list(self._chunks(count, generator)), generator)

    def pixels(self, count: int, *, generator: torch.Generator) -> Tensor:
        """The same images as bytes, uint8, which take a quarter of the memory."""
        return self._shuffled([to_pixels(c) for c in self._chunks(count, generator)], generator)

    def _chunks(self, count: int, generator: torch.Generator) -> Iterator[Tensor]:
        yield torch.zeros((0, *self.shape))
        size = chunk_size(self.shape)
        for start in range(0, count, size):
            yield self._chunk(min(size, count - start), generator)

    @staticmethod
    def _shuffled(chunks: list[Tensor], generator: torch.Generator) -> Tensor:
        """What a chunk shares must not become what a training batch shares."""
        images = torch.cat(chunks)
        return images[torch.randperm(len(images), generator=generator)]

    @abstractmethod
    def _chunk(self, count: int, generator: torch.Generator) -> Tensor: ...


class StructuredNoise(Source):
    """Smooth random fields, cut at a random level into soft blobs, or along it into soft strokes.

    Low-resolution Gaussian noise is upsampled bicubically, shifted by a random level, scaled by a
    random gain and squashed. A share of the images keeps the neighbourhood of the level instead of
    what lies above it: contour lines, as line drawings and edges have. In another share the level
    rises away from a random point, which leaves an island: a thing on a plain ground. Where the
    level is so far off that nothing would be seen, it is moved until the field just crosses it.

    Args:
        shape: of the images.
        cells: fewest and most cells a side of the low-resolution noise.
        strokes: share of contour-line images, in [0, 1].
        islands: share of images with a plain ground, in [0, 1].
    """

    name = "noise"

    def __init__(
        self,
        shape: Shape,
        *,
        cells: tuple[int, int] = (3, 10),
        strokes: float = 0.15,
        islands: float = 0.6,
    ) -> None:
        super().__init__(shape)
        self.cells = cells
        self.strokes = strokes
        self.islands = islands

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand((count, 1, 1, 1), generator=generator)

        def gaussian(mean: float, deviation: float) -> Tensor:
            return mean + deviation * torch.randn((count, 1, 1, 1), generator=generator)

        _, height, width = self.shape
        rows = torch.linspace(-1, 1, height).view(1, 1, height, 1) - gaussian(0, 0.3)
        columns = torch.linspace(-1, 1, width).view(1, 1, 1, width) - gaussian(0, 0.3)
        shore = uniform(0.2, 0.7)
        island = gaussian(-0.6, 0.4) + (rows.square() + columns.square()) / shore
        level = torch.where(uniform(0, 1) < self.islands, island, gaussian(0.3, 0.9))
        above = smooth_field(count, self.shape, cells=self.cells, generator=generator) - level
        thickness = uniform(0.1, 0.6)
        gain = 4 * 4 ** uniform(0, 1)
        is_stroke = uniform(0, 1) < self.strokes

        def drawn(above: Tensor, rows: Tensor | slice) -> Tensor:
            value = torch.where(is_stroke[rows], thickness[rows] - above.abs(), above)
            return torch.sigmoid(gain[rows] * value)

        images = drawn(above, slice(None))
        blank = _blank(images)
        images[blank] = drawn(_across_its_level(above[blank]), blank)
        return images


class Silhouettes(Source):
    """Random objects: ellipses and rounded boxes, joined or cut out, half of them mirrored.

    As objects in pictures do, they mostly stand upright and fill the frame. They are filled with a
    texture (smooth, striped or grainy; half of them part by part), on black (a third of colour
    images: on another texture).
    """

    name = "silhouettes"
    shapes = 6

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        channels, height, width = self.shape

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand((count, 1, 1), generator=generator)

        def chance(probability: float) -> Tensor:
            return uniform(0, 1) < probability

        rows = torch.linspace(-1, 1, height).view(1, height, 1) * uniform(0.55, 1.3)
        columns = torch.linspace(-1, 1, width).view(1, 1, width) * uniform(0.55, 1.3)
        mask = torch.zeros((count, height, width))
        paint = torch.zeros_like(mask)
        wanted = torch.randint(1, self.shapes + 1, (count, 1, 1), generator=generator)
        sharpness = uniform(8, 40)
        for index in range(self.shapes):
            # The first shape is the body: large and near the middle.
            reach, least = (0.2, 0.3) if index == 0 else (0.7, 0.1)
            angle = torch.where(chance(0.6), _upright(count, generator), uniform(0, math.pi))
            down, right = rows - uniform(-reach, reach), columns - uniform(-reach, reach)
            along = ((right * angle.cos() + down * angle.sin()) / uniform(least, 0.9)).square()
            across = ((down * angle.cos() - right * angle.sin()) / uniform(least, 0.6)).square()
            # A superellipse: an ellipse at power 2, nearly a box at power 8.
            squarings = _integer(3, generator)
            for _ in range(squarings):
                along, across = along.square(), across.square()
            radius = along + across
            for _ in range(squarings + 1):
                radius = radius.sqrt()
            shape = torch.sigmoid((1 - radius) * sharpness)
            cut = chance(0.3) & (index > 0)
            drawn = torch.where(cut, torch.minimum(mask, 1 - shape), torch.maximum(mask, shape))
            painted = torch.lerp(paint, uniform(0.3, 1), shape)
            paint = torch.where((index < wanted) & ~cut, painted, paint)
            mask = torch.where(index < wanted, drawn, mask)
        mirrored = chance(0.5)
        mask, paint = (
            torch.where(mirrored, torch.maximum(part, part.flip(-1)), part).unsqueeze(1)
            for part in (mask, paint)
        )
        paint = torch.where(chance(0.5).unsqueeze(1), paint, torch.ones(()))
        fill = self._texture(count, rows, columns, generator) * paint
        if channels == 1:
            return mask * fill
        ground = self._texture(count, rows, columns, generator)
        plain = chance(2 / 3).unsqueeze(1)
        return mask * fill + (1 - mask) * torch.where(plain, torch.zeros(()), ground)

    def _texture(
        self, count: int, rows: Tensor, columns: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Smooth shades; on some stripes, on some a grain."""

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand((count, 1, 1, 1), generator=generator)

        smooth = smooth_field(count, self.shape, cells=(2, 8), generator=generator)
        shades = torch.sigmoid(uniform(0, 2) + uniform(0, 1.5) * smooth)
        angle = torch.where(
            uniform(0, 1) < 0.6, _upright(count, generator).unsqueeze(1), uniform(0, math.pi)
        )
        across = columns.unsqueeze(1) * angle.cos() + rows.unsqueeze(1) * angle.sin()
        stripes = torch.sin(uniform(3, 40) * across + uniform(0, 2 * math.pi))
        grain = smooth_field(count, self.shape, cells=(8, 24), generator=generator)
        # Amounts below nothing are none: so many images have neither.
        striped = 1 + uniform(-0.4, 0.6).clamp_min(0) * (stripes - 1) / 2
        grainy = uniform(-0.2, 0.3).clamp_min(0) * grain / 2
        return (shades * striped + grainy).clamp(0, 1)


class Strokes(Source):
    """A line of a pen, or two that cross or meet: straight, bent, winding or with a corner.

    What was drawn is moved near the middle and scaled until it nearly fills the frame, as the
    characters in pictures of handwriting are. Lines are soft, of a standard deviation between a
    50th and a 15th of a side, and no finer than pixels; white on black, or one colour on another.
    """

    name = "strokes"
    points = 32

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        channels, height, width = self.shape

        def uniform(low: float, high: float, *each: int) -> Tensor:
            return low + (high - low) * torch.rand((count, *each), generator=generator)

        def in_some(share: float, amounts: Tensor) -> Tensor:
            return amounts * (torch.rand(amounts.shape, generator=generator) < share)

        def somewhere(line: Tensor) -> Tensor:
            chosen = torch.randint(0, self.points, (1, count, 1), generator=generator)
            return line.gather(2, chosen.expand(2, -1, -1))

        # A line is where a pen goes whose heading changes with time; (count, line, point) each.
        time = torch.linspace(0, 1, self.points)
        bend = in_some(0.75, 3 * torch.randn((count, 2, 1), generator=generator))
        sway = in_some(0.5, torch.randn((count, 2, 1), generator=generator))
        swing = torch.sin(2 * math.pi * (uniform(0.5, 1.2, 2, 1) * time + uniform(0, 1, 2, 1)))
        corner = in_some(0.5, uniform(-2.6, 2.6, 2, 1)) * (time > uniform(0.2, 0.8, 2, 1))
        heading = uniform(0, 2 * math.pi, 2, 1) + bend * time + sway * swing + corner
        step = uniform(0.6, 2.2, 2, 1) / self.points
        first, second = torch.stack([heading.cos(), heading.sin()]).mul(step).cumsum(-1).unbind(2)
        apart = in_some(0.2, 0.5 * torch.randn((count, 1), generator=generator))
        second = second + somewhere(first) - somewhere(second) + apart
        # Half of the drawings are a single line, drawn twice.
        path = torch.cat([first, torch.where(uniform(0, 1, 1) < 0.5, first, second)], dim=-1)

        low, high = path.amin(-1, keepdim=True), path.amax(-1, keepdim=True)
        zoom = uniform(1.1, 1.7, 1) / (high - low).amax(0).clamp_min(0.3)
        middle = 0.1 * torch.randn((2, count, 1), generator=generator)
        across, down = (path - (low + high) / 2) * zoom + middle
        # No finer than pixels, between which a line would be lost.
        thickness = uniform(0.04, 0.13, 1, 1).clamp_min(1 / min(height, width))

        def nearness(positions: Tensor, side: int) -> Tensor:
            away = (positions.unsqueeze(-1) - torch.linspace(-1, 1, side)) / thickness
            return torch.exp(-away.square() / 2)

        # A Gaussian dot at every point is a product of one along rows and one along columns.
        ink = nearness(down, height).transpose(1, 2) @ nearness(across, width)
        ink = ink * step.mean(1, keepdim=True) * zoom.unsqueeze(-1) / thickness
        drawn = 1 - torch.exp(-uniform(2, 6, 1, 1) * ink.square()).unsqueeze(1)
        if channels == 1:
            return drawn
        pen, ground = uniform(0, 1, channels, 1, 1), uniform(0, 1, channels, 1, 1)
        return torch.lerp(ground, pen, drawn)


class Crops(Source):
    """Heavily augmented crops of public photographs.

    Args:
        shape: of the crops.
        photographs: float32 ``(channels, height, width)`` in [0, 1], 1 or 3 channels each; by
            default the two that scikit-learn ships.

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
        pyramid = self._pyramids[_integer(len(self._pyramids), generator)]
        image = pyramid[_integer(len(pyramid), generator)]
        down, across = image.shape[-2:]
        # Zoom between one and two pixels of the photograph a pixel: smaller is another level.
        zoom = 2.0 ** torch.rand((count, 1, 1), generator=generator)
        angle = 0.5 * torch.randn((count, 1, 1), generator=generator)
        flip = torch.randint(0, 2, (count, 1, 1), generator=generator) * 2.0 - 1.0
        rows = torch.linspace(-1, 1, height).view(1, height, 1) * height / 2 * zoom
        columns = torch.linspace(-1, 1, width).view(1, 1, width) * width / 2 * zoom * flip
        x = (columns * angle.cos() - rows * angle.sin()) / (across / 2)
        y = (columns * angle.sin() + rows * angle.cos()) / (down / 2)
        x = x + 2 * torch.rand((count, 1, 1), generator=generator) - 1
        y = y + 2 * torch.rand((count, 1, 1), generator=generator) - 1
        # One tall grid over one photograph, so the photograph is never copied per crop.
        grid = torch.stack([x, y], dim=-1).reshape(1, count * height, width, 2)
        crops = F.grid_sample(
            image.unsqueeze(0), grid, padding_mode="reflection", align_corners=False
        )
        crops = crops.reshape(-1, count, height, width).transpose(0, 1)
        gain = 0.5 + 1.5 * torch.rand((count, 1, 1, 1), generator=generator)
        offset = 0.15 * torch.randn((count, crops.shape[1], 1, 1), generator=generator)
        crops = (crops - 0.5) * gain + 0.5 + offset
        # What is too dark or too bright everywhere is folded back into the range, as in a mirror.
        blank = _blank(crops)
        crops[blank] = 1 - (crops[blank] % 2 - 1).abs()
        inverted = torch.rand((count, 1, 1, 1), generator=generator) < 0.2
        return torch.where(inverted, 1 - crops, crops).clamp(0, 1)


class Folder(Source):
    """A folder of public images (searched recursively), shifted and flipped at random.

    Args:
        shape: the images are scaled and centre-cropped to it.
        path: the folder.
        limit: at most this many images are read.

    Raises:
        DataError: no such folder, no image in it, or a file that is no image.
    """

    name = "folder"

    def __init__(self, shape: Shape, path: Path, *, limit: int = 50_000) -> None:
        super().__init__(shape)
        if not path.is_dir():
            raise DataError(f"public images: {path} is not a folder")
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _IMAGE_SUFFIXES)
        if not files:
            raise DataError(f"public images: no image ({', '.join(_IMAGE_SUFFIXES)}) in {path}")
        self._images = torch.stack([_read_image(file, shape) for file in files[:limit]])

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


#: Sources that need nothing but a shape, by name; a folder needs a path as well.
SOURCES: dict[str, Callable[[Shape], Source]] = {
    source.name: source for source in (StructuredNoise, Strokes, Silhouettes, Crops)
}


def chunk_size(shape: Sequence[int]) -> int:
    """How many images of a shape ``(C, H, W)`` to make in one step.

    >>> chunk_size((1, 28, 28)), chunk_size((3, 224, 224))
    (256, 20)
    """
    return max(1, min(CHUNK, _MOST_NUMBERS // math.prod(shape)))


def smooth_field(
    count: int, shape: Shape, *, cells: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Smooth Gaussian fields, ``(count, *shape)``, of a variance a little below one.

    Colour channels share a field and differ by another, as those of photographs do.
    """
    channels, height, width = shape
    low, high = cells
    # Finer than two pixels a cell, a field is no longer smooth.
    high = max(low, min(high, min(height, width) // 2))
    side = low + _integer(high - low + 1, generator)
    coarse = torch.randn((count, channels, side, side), generator=generator)
    if channels > 1:
        shared = torch.randn((count, 1, side, side), generator=generator)
        coarse = 0.8 * shared + 0.6 * coarse
    return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)


def _blank(images: Tensor) -> Tensor:
    """Which images, once they are bytes, are black all over or white all over; bool ``(N,)``."""
    darkest, brightest = images.amin((1, 2, 3)), images.amax((1, 2, 3))
    return ((255 * brightest).round() <= 0) | ((255 * darkest).round() >= 255)


def _across_its_level(above: Tensor, *, reach: float = 0.25) -> Tensor:
    """Fields moved until they reach just across zero: from below or above, whichever is nearer."""
    low, high = above.amin((1, 2, 3), keepdim=True), above.amax((1, 2, 3), keepdim=True)
    is_below = above.mean((1, 2, 3), keepdim=True) < 0
    return above + torch.where(is_below, reach - high, -reach - low)


def _upright(count: int, generator: torch.Generator) -> Tensor:
    """Angles near the horizontal and the vertical, ``(count, 1, 1)``."""
    turned = torch.randint(0, 2, (count, 1, 1), generator=generator) * (math.pi / 2)
    return turned + 0.15 * torch.randn((count, 1, 1), generator=generator)


def _integer(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(0, below, (), generator=generator))


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
    """The image at halved sizes, down to the last that a crop still fits in."""
    if min(image.shape[-2:]) < smallest:
        size = [math.ceil(side * smallest / min(image.shape[-2:])) for side in image.shape[-2:]]
        image = F.interpolate(image.unsqueeze(0), size=size, mode="bilinear")[0].clamp(0, 1)
    levels = [image.contiguous()]
    while min(levels[-1].shape[-2:]) // 2 >= smallest:
        levels.append(F.avg_pool2d(levels[-1].unsqueeze(0), 2)[0])
    return levels


def _read_image(file: Path, shape: Shape) -> Tensor:
    channels, height, width = shape
    if channels not in (1, 3):
        raise ConfigError(f"image files give 1 or 3 channels, not {channels}")
    try:
        with Image.open(file) as image:
            picture = image.convert("L" if channels == 1 else "RGB")
            zoom = max(height / picture.height, width / picture.width)
            size = (math.ceil(picture.width * zoom), math.ceil(picture.height * zoom))
            picture = picture.resize(size, Image.Resampling.BOX if zoom < 1 else None)
            left, top = (size[0] - width) // 2, (size[1] - height) // 2
            pixels = np.asarray(picture.crop((left, top, left + width, top + height)))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"public images: {file} cannot be read as an image ({error})") from None
    return torch.from_numpy(pixels.copy()).reshape(height, width, channels).permute(2, 0, 1)

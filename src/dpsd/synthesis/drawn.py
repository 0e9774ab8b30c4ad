"""Sources of drawn images: structured noise, silhouettes and strokes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.images.names import Shape
from dpsd.synthesis.sources import Source, integer, is_blank


class StructuredNoise(Source):
    """Smooth random fields, cut at a random level into soft blobs, or along it into soft strokes.

    Low-resolution Gaussian noise is upsampled bicubically, shifted by a random level, scaled by a
    random gain and squashed. A share of the images shows the neighbourhood of the level instead of
    what lies above it: contour lines, as in line drawings and edges. In another share, the level
    rises away from a random point, which leaves an island: an object on a plain background. If the
    level is so far off that nothing would be visible, it is moved until the field just crosses it.

    Args:
        shape: the shape of the images.
        cells: the fewest and the most cells per side of the low-resolution noise.
        strokes: the share of contour-line images, in [0, 1].
        islands: the share of images with a plain background, in [0, 1].
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
        blank = is_blank(images)
        images[blank] = drawn(across_its_level(above[blank]), blank)
        return images


class Silhouettes(Source):
    """Random objects made of ellipses and rounded boxes, joined or cut out; half are mirrored.

    Like objects in pictures, they mostly stand upright and fill the frame. They are filled with a
    texture (smooth, striped or grainy; half of them part by part), on a black background (a third
    of colour images on another texture).
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
            squarings = integer(3, generator)
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
        texture = self._texture(count, rows, columns, generator)
        images = mask * texture * paint
        if channels > 1:
            ground = self._texture(count, rows, columns, generator)
            plain = chance(2 / 3).unsqueeze(1)
            images = images + (1 - mask) * torch.where(plain, torch.zeros(()), ground)
        # At a few pixels a side, what was cut out may be all that there was.
        blank = is_blank(images)
        images[blank] = texture[blank]
        return images

    def _texture(
        self, count: int, rows: Tensor, columns: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Make smooth shades, some with stripes and some with grain."""

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
        # Negative amounts count as zero, so many images have neither.
        striped = 1 + uniform(-0.4, 0.6).clamp_min(0) * (stripes - 1) / 2
        grainy = uniform(-0.2, 0.3).clamp_min(0) * grain / 2
        return (shades * striped + grainy).clamp(0, 1)


class Strokes(Source):
    """A pen stroke, or two that cross or meet: straight, bent, winding or with a corner.

    The drawing is moved near the middle and scaled until it nearly fills the frame, like characters
    in pictures of handwriting. Lines are soft, with a standard deviation between a 50th and a 15th
    of a side, and no finer than pixels. They are white on black, or one colour on another.
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

        # A line is the path of a pen whose heading changes with time; shapes are (count, line,
        # point).
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
        # No finer than pixels, as a thinner line would be lost between them.
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


def smooth_field(
    count: int, shape: Shape, *, cells: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Make smooth Gaussian fields, ``(count, *shape)``, of a variance a little below one.

    As in photographs, colour channels share a field and each adds one of its own.
    """
    channels, height, width = shape
    low, high = cells
    # With cells smaller than two pixels, a field would no longer be smooth.
    high = max(low, min(high, min(height, width) // 2))
    side = low + integer(high - low + 1, generator)
    coarse = torch.randn((count, channels, side, side), generator=generator)
    if channels > 1:
        shared = torch.randn((count, 1, side, side), generator=generator)
        coarse = 0.8 * shared + 0.6 * coarse
    return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)


def across_its_level(above: Tensor, *, reach: float = 0.25) -> Tensor:
    """Move fields until they just cross zero, from below or above, whichever is nearer."""
    low, high = above.amin((1, 2, 3), keepdim=True), above.amax((1, 2, 3), keepdim=True)
    is_below = above.mean((1, 2, 3), keepdim=True) < 0
    return above + torch.where(is_below, reach - high, -reach - low)


def _upright(count: int, generator: torch.Generator) -> Tensor:
    """Draw angles near the horizontal and the vertical, ``(count, 1, 1)``."""
    turned = torch.randint(0, 2, (count, 1, 1), generator=generator) * (math.pi / 2)
    return turned + 0.15 * torch.randn((count, 1, 1), generator=generator)

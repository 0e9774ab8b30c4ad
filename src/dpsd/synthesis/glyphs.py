"""Characters of the fonts that matplotlib ships, in many hands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageFont
from torch import Tensor

from dpsd.errors import ConfigError, UnknownNameError
from dpsd.images.names import Shape
from dpsd.images.pixels import to_pixels, to_unit_range
from dpsd.synthesis.drawn import smooth_field
from dpsd.synthesis.sources import Source, chunk_size

#: The side of a cell of the atlas, and the longer side of the character in its middle, in pixels.
_CELL, _LETTER = 40, 30

#: The kinds of characters, in the order in which the atlas has them.
KINDS = ("digits", "letters", "others")

_DIGITS = range(ord("0"), ord("9") + 1)
_LETTERS = [*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1)]
#: Punctuation, Greek, Cyrillic, arrows and geometric shapes.
_OTHERS = [
    code
    for first, last in (
        (0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E),
        (0x391, 0x3C9), (0x410, 0x44F), (0x2190, 0x2199), (0x25A0, 0x25FF),
    )
    for code in range(first, last + 1)
]  # fmt: skip


class Glyphs(Source):
    """Printed characters, distorted as if many hands had written them.

    A third of the characters are digits, a third letters, and a third other signs. Most images show
    one character, some a row of two or three. Each is turned, slanted, stretched, seen in
    perspective and bent, and its lines are made thicker or thinner. Grey images are mostly light on
    black, some on a soft texture, and a seventh are inverted; colour images are ink of one colour
    on paper of another, half of which has a texture.

    Which characters there are depends on the fonts of the matplotlib that is installed.

    Args:
        shape: the shape of the images.
        kinds: the kinds of characters that are drawn, each equally often, in any order: some of
            ``"digits"``, ``"letters"`` and ``"others"``. Without digits, the images say nothing of
            them but what letters do, some of which look alike.

    Raises:
        ConfigError: there are no kinds, or one is unknown.
    """

    name = "glyphs"
    most = 3

    def __init__(self, shape: Shape, *, kinds: Sequence[str] = KINDS) -> None:
        super().__init__(shape)
        if not kinds:
            raise ConfigError("glyphs need at least one kind of characters")
        for kind in kinds:
            if kind not in KINDS:
                raise UnknownNameError("kind of characters", kind, KINDS)
        self._kinds = torch.tensor(sorted({KINDS.index(kind) for kind in kinds}))

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        chance = torch.rand((count,), generator=generator)
        numbers = 1 + (chance < 0.25).long() + (chance < 0.06).long()
        drawn, _ = self._characters(numbers, generator)
        first = numbers.cumsum(0) - numbers
        ink = drawn[first]
        for place in range(1, self.most):
            rows = (numbers > place).nonzero().squeeze(1)
            ink[rows] = torch.maximum(ink[rows], drawn[first[rows] + place])
        return self._printed(ink, generator)

    def labelled(self, count: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Make images of one character each, and say which.

        Args:
            count: the number of images, at least 1.
            generator: a CPU random generator, the source of all randomness here.

        Returns:
            The images, uint8 ``(count, C, H, W)``, and the code point of the character of each, in
            lower case, int64 ``(count,)``.

        >>> glyphs = Glyphs((1, 28, 28), kinds=["digits"])
        >>> images, codes = glyphs.labelled(50, generator=torch.Generator().manual_seed(0))
        >>> images.shape, set(map(chr, codes.tolist())) == set("0123456789")
        (torch.Size([50, 1, 28, 28]), True)
        """
        images, codes = [], []
        size = chunk_size(self.shape)
        for start in range(0, count, size):
            ones = torch.ones(min(size, count - start), dtype=torch.long)
            ink, rows = self._characters(ones, generator)
            images.append(to_pixels(self._printed(ink, generator)))
            codes.append(_atlas().codes[rows])
        return torch.cat(images), torch.cat(codes)

    def _characters(self, numbers: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the characters of all images, in order, and return their rows in the atlas too.

        They are ``(sum(numbers), 1, H, W)`` in [0, 1].
        """
        _, height, width = self.shape
        count = int(numbers.sum())
        # The place of a character in its row, from the middle, in widths of a character.
        among = numbers.repeat_interleave(numbers).view(-1, 1, 1)
        first = (numbers.cumsum(0) - numbers).repeat_interleave(numbers)
        place = (torch.arange(count) - first).view(-1, 1, 1) - (among - 1) / 2

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand((count, 1, 1), generator=generator)

        def gaussian(deviation: float) -> Tensor:
            return deviation * torch.randn((count, 1, 1), generator=generator)

        size = uniform(0.65, 1.15) * among**-0.7
        rows = torch.linspace(-1, 1, height).view(1, height, 1) * (height / min(height, width))
        columns = torch.linspace(-1, 1, width).view(1, 1, width) * (width / min(height, width))
        down = (rows - gaussian(0.08)) / size
        across = (columns - gaussian(0.08)) / size - 1.2 * place
        angle = gaussian(0.2)
        x = (across * angle.cos() + down * angle.sin()) * gaussian(0.2).exp()
        y = (down * angle.cos() - across * angle.sin()) * gaussian(0.12).exp()
        x = x + gaussian(0.25) * y
        # Seen in perspective, and bent.
        nearer = 1 + uniform(-0.2, 0.2) * x + uniform(-0.2, 0.2) * y
        bends = smooth_field(2 * count, (1, height, width), cells=(2, 4), generator=generator)
        strength = uniform(0, 0.16).unsqueeze(-1)
        grid = torch.stack([x, y], -1) / nearer.clamp_min(0.2).unsqueeze(-1)
        grid = grid + strength * bends.view(count, 2, height, width).movedim(1, -1)
        cells, rows_in_atlas = self._cells(count, generator)
        soft = F.grid_sample(cells, grid, align_corners=False)
        # Thin lines may fall between pixels, but those of a character beyond the frame stay away.
        soft = soft / soft.amax((2, 3), keepdim=True).clamp_min(0.3)
        # Lines were blurred, so where they are cut off decides how thick they are.
        thinness, gain = uniform(0.2, 0.6).unsqueeze(1), uniform(2.5, 9).unsqueeze(1)
        return ((soft - thinness) * gain + 0.5).clamp(0, 1), rows_in_atlas

    def _cells(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw ``count`` characters from the atlas, at a resolution that suits the images.

        Their rows in the atlas are returned with them.
        """
        atlas = _atlas()
        kind = self._kinds[torch.randint(0, len(self._kinds), (count,), generator=generator)]
        of_kind = torch.tensor(atlas.sizes)
        within = (torch.rand((count,), generator=generator) * of_kind[kind]).long()
        rows = (of_kind.cumsum(0) - of_kind)[kind] + within
        cells = to_unit_range(atlas.cells(rows))
        return F.avg_pool2d(cells, max(1, _CELL // (5 * min(self.shape[1:]) // 4))), rows

    def _printed(self, ink: Tensor, generator: torch.Generator) -> Tensor:
        """Print ink ``(N, 1, H, W)`` on paper."""
        count, channels = len(ink), self.shape[0]

        def uniform(low: float, high: float, each: int = 1) -> Tensor:
            return low + (high - low) * torch.rand((count, each, 1, 1), generator=generator)

        texture = smooth_field(count, self.shape, cells=(2, 10), generator=generator)
        textured = uniform(0, 1) < (0.25 if channels == 1 else 0.5)
        texture = torch.where(textured, uniform(0.05, 0.3) * texture, torch.zeros(()))
        if channels == 1:
            images = torch.lerp(texture.clamp_min(0), uniform(0.6, 1), ink)
            images = torch.where(uniform(0, 1) < 1 / 7, 1 - images, images)
        else:
            paper, pen = uniform(0, 1, channels), uniform(0, 1, channels)
            alike = (pen - paper).abs().amax(1, keepdim=True) < 0.3
            pen = torch.where(alike, (paper + 0.5) % 1, pen)
            images = torch.lerp(paper + texture, pen, ink)
        return images.clamp(0, 1)


class _Atlas:
    """Characters of all fonts, blurred: digits, then letters, then others.

    Each is drawn when it is first wanted, as all of them would take longer than a small run.

    Args:
        kinds: the file of the font and the code of each character, for each of the kinds.
    """

    def __init__(self, kinds: Sequence[Sequence[tuple[Path, int]]]) -> None:
        self.sizes = [len(kind) for kind in kinds]
        self._characters = [character for kind in kinds for character in kind]
        #: The code point of each character in lower case, int64 ``(sum(sizes),)``.
        self.codes = torch.tensor([ord(chr(code).lower()[0]) for _, code in self._characters])
        self._cells = torch.empty((sum(self.sizes), 1, _CELL, _CELL), dtype=torch.uint8)
        self._is_drawn = torch.zeros(sum(self.sizes), dtype=torch.bool)

    def cells(self, rows: Tensor) -> Tensor:
        """Return characters by number, uint8 ``(n, 1, 40, 40)``, each with a pixel of 255."""
        missing = torch.unique(rows[~self._is_drawn[rows]])
        if len(missing):
            sharp = np.stack([_drawn(*self._characters[row]) for row in missing.tolist()])
            self._cells[missing] = _blurred(torch.from_numpy(sharp).unsqueeze(1))
            self._is_drawn[missing] = True
        return self._cells[rows]


@lru_cache(maxsize=1)
def _atlas() -> _Atlas:
    """List every character of every font."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    # Not the parts of large brackets, and not the font of last resort, whose boxes stand for
    # characters.
    known = [
        (file, set(FT2Font(str(file)).get_charmap()))
        for file in sorted(folder.glob("*.ttf"))
        if not file.name.startswith(("STIXSiz", "STIXNonUni", "cmex", "LastResort"))
    ]
    kinds = (_DIGITS, _LETTERS, _OTHERS)
    return _Atlas(
        [
            [(file, code) for file, codes in known for code in kind if code in codes]
            for kind in kinds
        ]
    )


@cache
def _font(file: Path) -> ImageFont.FreeTypeFont:
    # The basic layout does not depend on what else is installed.
    return ImageFont.truetype(str(file), _CELL, layout_engine=ImageFont.Layout.BASIC)


def _drawn(file: Path, code: int) -> npt.NDArray[np.uint8]:
    """Draw a character of a font, scaled to fill a cell but for a margin."""
    mask = _font(file).getmask(chr(code))
    zoom = _LETTER / max(mask.size)
    wide, high = (max(2, round(side * zoom)) for side in mask.size)
    letter = Image.frombytes("L", mask.size, bytes(mask)).resize((wide, high))
    cell = Image.new("L", (_CELL, _CELL))
    cell.paste(letter, ((_CELL - wide) // 2, (_CELL - high) // 2))
    return np.asarray(cell)


def _blurred(cells: Tensor, *, deviation: float = 1.5) -> Tensor:
    """Blur cells, uint8 ``(G, 1, S, S)``, by a Gaussian; the brightest pixel of each is 255."""
    places = torch.arange(cells.shape[-1])
    taps = torch.exp(-(places - places.unsqueeze(1)).square() / (2 * deviation**2))
    soft = taps @ cells.float() @ taps
    return (255 * soft / soft.amax((2, 3), keepdim=True)).round_().to(torch.uint8)

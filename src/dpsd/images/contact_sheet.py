"""Contact sheets, which show many small images on one page.

>>> import torch
>>> row = torch.zeros((3, 1, 8, 8), dtype=torch.uint8)
>>> contact_sheet([row, row], labels=["first", "second"]).mode
'RGB'
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dpsd.storage.files import replacing

#: Small images are enlarged to about this many pixels per side, so that people can see them.
_SIDE = 48
_GAP, _MARGIN = 2, 6
#: The size of the letters of labels in drawings.
_LETTERS = 11
_PAPER, _INK = "#e4e8ee", "#333333"


def contact_sheet(rows: Sequence[Tensor], *, labels: Sequence[str] = ()) -> Image.Image:
    """Draw rows of images, enlarged without smoothing if they are small.

    Args:
        rows: the rows, each uint8 ``(n, C, H, W)``; they may differ in length, and may be empty.
        labels: one label per row, shown at its left; none by default.
    """
    return stack_rows([image_row(row) for row in rows], labels=labels)


def image_row(images: Tensor) -> Image.Image:
    """Draw images, uint8 ``(n, C, H, W)``, side by side."""
    count, _, height, width = images.shape
    scale = max(1, round(_SIDE / max(height, width)))
    step = width * scale + _GAP
    row = Image.new("RGB", (max(1, count * step - _GAP), height * scale), _PAPER)
    for position, image in enumerate(images):
        # One channel is shown in grey and three in colour; of any other number, the mean is shown.
        pixels = image if image.shape[0] in (1, 3) else image.float().mean(0, keepdim=True).byte()
        array = pixels.permute(1, 2, 0).squeeze(-1).contiguous().numpy()
        picture = Image.fromarray(array).convert("RGB")
        picture = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        row.paste(picture, (position * step, 0))
    return row


def stack_rows(rows: Sequence[Image.Image], *, labels: Sequence[str] = ()) -> Image.Image:
    """Stack pictures below each other, with labels at the left."""
    font = ImageFont.load_default()
    indent = max((math.ceil(font.getlength(label)) for label in labels), default=-_MARGIN) + _MARGIN
    width = indent + max((row.width for row in rows), default=1) + 2 * _MARGIN
    height = sum(row.height + _GAP for row in rows) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for number, row in enumerate(rows):
        sheet.paste(row, (_MARGIN + indent, top))
        if labels:
            place = (_MARGIN, top + row.height / 2)
            draw.text(place, labels[number], fill=_INK, font=font, anchor="lm")
        top += row.height + _GAP
    return sheet


def drawn_rows(rows: Sequence[Image.Image], *, labels: Sequence[str]) -> str:
    """Return pictures below each other as SVG, with their labels at the left as text.

    Args:
        rows: the pictures, which are put in whole, so that the drawing fetches nothing.
        labels: one label per row.

    >>> drawn_rows([Image.new("L", (8, 8))], labels=["a & b"]).count("a &amp; b")
    1
    """
    # A letter is at most about 0.6 of the size of its font wide, on average.
    indent = math.ceil(0.6 * _LETTERS * max(map(len, labels), default=0)) + _MARGIN
    width = indent + max((row.width for row in rows), default=1) + 2 * _MARGIN
    parts, top = [], _MARGIN
    for row, label in zip(rows, labels, strict=True):
        file = io.BytesIO()
        row.save(file, format="PNG", optimize=True)
        content = base64.b64encode(file.getvalue()).decode()
        parts += [
            f'<text x="{_MARGIN}" y="{top + row.height / 2}" dominant-baseline="central">'
            f"{escape(label)}</text>",
            f'<image x="{_MARGIN + indent}" y="{top}" width="{row.width}" height="{row.height}" '
            f'href="data:image/png;base64,{content}"/>',
        ]
        top += row.height + _GAP
    height = top + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="{_LETTERS}" '
            f'fill="{_INK}">',
            f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG file, completely or not at all.

    Raises:
        RunError: the disk is full, or the folder cannot be written to.
    """
    with replacing(path) as temporary:
        image.save(temporary, format="PNG", optimize=True)

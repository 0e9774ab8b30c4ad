"""Pictures inside a page, scaled down until all of them fit into a number of bytes.

>>> from io import BytesIO
>>> file = BytesIO(); Image.new("RGB", (64, 32), "white").save(file, format="PNG")
>>> inlined(file.getvalue(), most=1_000).startswith("data:image/png;base64,")
True
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dpsd.runs import findings, pictures
from dpsd.runs.folder import RunFolder

#: The fewest pixels on the longer side to which a picture is scaled down.
_LEAST_SIDE = 64


def round_pictures(run: RunFolder, *, most: int) -> dict[int, Path]:
    """Return the files of the generator's images by round, of at most so many rounds.

    A long run is represented by some of its rounds, the last among them.
    """
    files = sorted(pictures.sheet_path(run).parent.glob("round-*.png"))
    step = 1 + len(files) // most
    return {int(file.stem.removeprefix("round-")): file for file in files[::-step][::-1]}


def attack_pictures(run: Path, name: str) -> list[Path]:
    """Return the files of an attack's picture, the one that is preferred in a page first.

    A name that leads out of the folder of attacks has no files.
    """
    if Path(name).name != name:
        return []
    paths = [run / findings.FOLDER / f"{name}.{format}" for format in ("svg", "png")]
    return [path for path in paths if path.is_file()]


def inlined_first(paths: list[Path], *, most: int) -> str:
    """Return the first of several files of one picture that fits, as an address for ``<img>``.

    Args:
        paths: the files; SVG is taken only as it is, and a PNG is scaled down.
        most: the most bytes of the file inside the page.

    Returns:
        The address; empty if no file fits.
    """
    for path in paths:
        content = path.read_bytes()
        if path.suffix == ".svg":
            # An image in a page runs no scripts and fetches nothing.
            found = _address("svg+xml", content) if len(content) <= most else ""
        else:
            found = inlined(content, most=most)
        if found:
            return found
    return ""


def inlined(content: bytes, *, most: int) -> str:
    """Return a picture as an address for ``<img>``, scaled down to at most so many bytes.

    Args:
        content: the file, in a format that Pillow reads.
        most: the most bytes of the file inside the page.

    Returns:
        The address; empty if the file is damaged or cannot be made small enough.
    """
    if len(content) <= most and content.startswith(b"\x89PNG"):
        return _address("png", content)
    try:
        picture = Image.open(io.BytesIO(content)).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return ""
    while max(picture.size) >= _LEAST_SIDE:
        file = io.BytesIO()
        picture.save(file, format="JPEG", quality=80, optimize=True)
        if file.tell() <= most:
            return _address("jpeg", file.getvalue())
        smaller = [max(1, int(side * 0.75)) for side in picture.size]
        picture = picture.resize((smaller[0], smaller[1]), Image.Resampling.LANCZOS)
    return ""


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

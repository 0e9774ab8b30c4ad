"""Reading image files, as people have them, into pictures of eight bits: grey or in colour.

Every reader of data sets and of public images uses :func:`read_picture`, so a picture has the same
pixels wherever it is read:

- 16-bit grey images are scaled from their whole range to 0 to 255, or from a declared range;
- signed, 32-bit and floating-point images have no range of their own, so one must be declared;
- DICOM files are shown as they say themselves (:mod:`dpsd.images.dicom`);
- a picture is turned upright as its EXIF data say, and transparent pixels are shown on white.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp()) / "scan.png"
>>> Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16)).save(path)
>>> np.asarray(read_picture(path)).tolist()
[[0, 1, 255]]
>>> np.asarray(read_picture(path, value_range=(0, 514))).tolist()
[[0, 128, 255]]
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dpsd.errors import DataError, Setting
from dpsd.images.dicom import is_dicom, read_dicom
from dpsd.images.scaling import rescaled
from dpsd.images.value_range import ValueRange, stated_range

#: The suffixes of files that are read as images, besides DICOM files, which are known by content.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

#: Folders that archives from macOS bring along, without images in them.
_PASSED_OVER = "__MACOSX"

#: Formats whose pictures of mode "I" have 16 bits, as some versions of Pillow open them.
_SIXTEEN_BITS = ("PNG", "PPM")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _NEW_SUBFILE_TYPE = 258, 262, 254
_WHITE_IS_ZERO, _REDUCED = 0, 1


def is_passed_over(name: str) -> bool:
    """Return whether a file or folder is hidden, or only serves macOS.

    >>> is_passed_over("._scan.png"), is_passed_over("scan.png")
    (True, False)
    """
    return name.startswith(".") or name == _PASSED_OVER


def image_files(folder: Path) -> list[Path]:
    """Return the image files in a folder and the folders below it, sorted, without hidden ones.

    Images are recognised by their suffix, DICOM files by ``.dcm`` or by how their content begins.
    All other files are passed over.

    Raises:
        DataError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise unreadable(error, Path(error.filename or folder))

    found = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_passed_over(name)]
        files = (Path(place, name) for name in names if not is_passed_over(name))
        found += [file for file in files if file.suffix.lower() in SUFFIXES or is_dicom(file)]
    return sorted(found)


def unreadable(error: OSError, path: Path | str) -> DataError:
    """Return the error for a file or folder that the operating system does not let us read.

    >>> str(unreadable(PermissionError(13, "Permission denied"), Path("scan.png")))
    'scan.png cannot be read: Permission denied'
    """
    return DataError(f"{path} cannot be read: {error.strerror or type(error).__name__}")


def read_picture(file: Path, *, value_range: ValueRange | None = None) -> Image.Image:
    """Read an image file.

    Args:
        file: the path of the file.
        value_range: the stored values that become 0 and 255; values outside become the nearest of
            the two. By default, 16-bit images are scaled from 0 to 65535.

    Returns:
        The picture, upright, of mode ``"L"`` if its file can hold grey only, else ``"RGB"``.

    Raises:
        DataError: the file cannot be read, is no image, holds several pages, or holds values whose
            range is neither known nor declared.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about metadata, which is not used
        if is_dicom(file):
            return read_dicom(file, value_range=value_range)
        with _decoding(file):
            opened = Image.open(file)
        with opened:
            _refuse_several_pages(file, opened)
            with _decoding(file):
                bits, is_inverted = _grey_scale(opened)
                image = ImageOps.exif_transpose(opened)
            if image.mode == "F" or image.mode.startswith("I"):
                return _from_deep(file, image, value_range, bits=bits, is_inverted=is_inverted)
            with _decoding(file):
                picture = _eight_bits(image)
    return picture if value_range is None else _from_range(file, picture, value_range)


def decode_picture(
    content: bytes, where: str, *, most_pixels: int, size: tuple[int, int] | None = None
) -> Image.Image:
    """Decode a JPEG or PNG file that is in memory, such as one of an archive.

    Args:
        content: the bytes of the file.
        where: a name of the file for errors.
        most_pixels: the most pixels that the picture may have.
        size: the height and width that it must have.

    Returns:
        The picture, of mode ``"L"`` or ``"RGB"``.

    Raises:
        DataError: the file is no such image. Nothing is decoded if its size is wrong.

    >>> content = io.BytesIO()
    >>> Image.new("L", (12, 8)).save(content, "PNG")
    >>> decode_picture(content.getvalue(), "scan.png", most_pixels=100, size=(8, 12)).mode
    'L'
    """
    with _decoding(where):
        opened = Image.open(io.BytesIO(content), formats=["JPEG", "PNG"])
    with opened:
        width, height = opened.size
        if size is not None and (height, width) != size:
            raise DataError(f"{where} is {width}x{height} pixels, not {size[1]}x{size[0]}")
        if width * height > most_pixels:
            raise DataError(f"{where} has {width}x{height} pixels; refused")
        with _decoding(where):
            opened.load()
            return opened if opened.mode in ("L", "RGB") else opened.convert("RGB")


@contextmanager
def _decoding(file: Path | str) -> Iterator[None]:
    """Turn whatever Pillow raises into one clear error."""
    try:
        yield
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"{file} is not a readable image: it is damaged, or of a kind that is not read; "
            "replace or remove it"
        ) from None
    except Exception as error:  # noqa: BLE001 - Pillow raises many kinds for a damaged file
        if isinstance(error, OSError) and error.errno:
            raise unreadable(error, file) from None
        raise DataError(
            f"{file} is not a readable image: {error or type(error).__name__}; replace or remove it"
        ) from None


def _refuse_several_pages(file: Path, image: Image.Image) -> None:
    """Refuse a TIFF file of several pages; an animation is shown by its first picture."""
    with _decoding(file):
        pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        if pages > 1:
            kinds = []
            for page in range(pages):
                image.seek(page)
                kinds.append(int(_tags(image).get(_NEW_SUBFILE_TYPE, 0)))
            image.seek(0)
            pages = sum(not kind & _REDUCED for kind in kinds)  # others are previews
    if pages > 1:
        raise DataError(
            f"{file} holds {pages} pages, of which only one would be read: save each page that is "
            "wanted as a file of its own"
        )


def _tags(image: Image.Image) -> Any:
    """Return the tags of a TIFF file; none for other formats."""
    return getattr(image, "tag_v2", {})


def _grey_scale(image: Image.Image) -> tuple[int | None, bool]:
    """Return the bits of a grey value, if their range is known, and whether zero is white."""
    tags, bits = _tags(image), None
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        bits = 12 if tuple(tags.get(_BITS_PER_SAMPLE, ())) == (12,) else 16
    return bits, tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _from_deep(
    file: Path,
    image: Image.Image,
    value_range: ValueRange | None,
    *,
    bits: int | None,
    is_inverted: bool,
) -> Image.Image:
    """Scale an image of more than eight bits, whose range its bits decide or a user declared."""
    if value_range is None and bits is None:
        kind = "floating-point numbers" if image.mode == "F" else "32-bit or signed numbers"
        raise DataError(
            f"{file} holds {kind}, and nothing says which of them are black and white: give ",
            *(Setting("value_range"), ", for example ", Setting("value_range"), " 0,4095"),
        )
    with _decoding(file):
        values = np.asarray(image)
    low, high = value_range or (0.0, 2.0 ** (bits or 16) - 1)
    return rescaled(file, values, low, high, is_inverted=is_inverted)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of at most eight bits a channel as grey or as colours, on white."""
    is_grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):  # these convert to their own kind alone
            image = image.convert("LA" if is_grey else "RGBA")
        sheet = Image.new("RGBA", image.size, "white")
        sheet.alpha_composite(image.convert("RGBA"))
        image = sheet.convert("RGB")
    return image.convert("L" if is_grey else "RGB")


def _from_range(file: Path, picture: Image.Image, value_range: ValueRange) -> Image.Image:
    """Apply a declared range to an image of eight bits."""
    low, high = value_range
    if (low, high) == (0, 255):
        return picture
    if picture.mode == "L" and low >= 0 and high <= 255:
        return rescaled(file, np.asarray(picture), low, high)
    holds = "8-bit grey" if picture.mode == "L" else "8-bit colour"
    raise DataError(
        *(f"{file} holds {holds} values, 0 to 255, to which the declared ", Setting("value_range")),
        f" {stated_range(value_range)} cannot apply: keep such files in a folder of their own",
    )

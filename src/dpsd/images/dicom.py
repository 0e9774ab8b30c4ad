"""Reading the picture in a DICOM file, and nothing about the patient.

Only the elements that describe the pixels are parsed; all others, such as the patient's name, are
skipped. Errors name the file and never quote its content. A grey image is shown as the file says
itself: rescaled, seen through its (first) window or lookup table, and inverted for ``MONOCHROME1``.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp()) / "IM0001"
>>> path.write_bytes(bytes(128) + b"DICM")
132
>>> is_dicom(path)
True
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dpsd.errors import DataError, Setting
from dpsd.extras import how_to_install
from dpsd.images.scaling import rescaled
from dpsd.images.value_range import ValueRange

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SUFFIXES = (".dcm", ".dicom")
_MAGIC, _MAGIC_AT = b"DICM", 128
_INDEX = "DICOMDIR"
"""The name of a file that lists others, and holds no picture."""

#: The elements that are parsed, by their DICOM keywords.
_ELEMENTS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("FloatPixelData", "DoubleFloatPixelData", "PixelData"),
)
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

#: The most pixels that are decoded, as for other images.
_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)


def is_dicom(file: Path) -> bool:
    """Return whether a file is a DICOM file, by its suffix or, whatever its name, by its content.

    A file that cannot be opened is one only if its suffix says so.
    """
    if file.suffix.lower() in _SUFFIXES:
        return True
    if file.name == _INDEX:
        return False
    try:
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            return stream.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError:
        return False


def read_dicom(file: Path, *, value_range: ValueRange | None = None) -> Image.Image:
    """Read the picture of a DICOM file.

    Args:
        file: the path of the file.
        value_range: the values, after the file's own rescaling, that are shown as the ends of the
            grey scale, instead of the file's window.

    Returns:
        The picture, of mode ``"L"`` or, if the file holds colours, ``"RGB"``.

    Raises:
        DataError: pydicom is not installed, or the file is damaged, holds several frames, is
            compressed in a way that cannot be decoded here, or says of more than 8 bits neither
            how they are shown nor was a range declared.
    """
    try:
        import pydicom
    except ImportError:
        raise DataError(
            f"{file} is a DICOM file, which is read with pydicom: {how_to_install('dicom')}"
        ) from None
    with _decoding(file):
        # Read whole first: of a file, pydicom reads as much as a damaged length says, in memory.
        content = io.BytesIO(file.read_bytes())
        found = pydicom.dcmread(content, specific_tags=list(_ELEMENTS))
        frames = int(found.get("NumberOfFrames") or 1)
        kind = str(found.get("PhotometricInterpretation", ""))
        pixels = int(found.get("Rows") or 0) * int(found.get("Columns") or 0)
    if not pixels or not any(name in found for name in _ELEMENTS[-3:]):
        raise DataError(f"{file} is a DICOM file without a picture: remove it")
    if frames > 1:
        raise DataError(
            f"{file} holds {frames} frames, of which only one would be read: save each frame that "
            "is wanted as a file of its own"
        )
    if pixels > _MOST_PIXELS:
        raise DataError(f"{file} declares {pixels:,} pixels, more than {_MOST_PIXELS:,}; refused")
    if kind not in (*_GREY, *_COLOUR):
        raise DataError(
            f"{file} is a DICOM file of a kind that is not read: its photometric interpretation is "
            f"none of {', '.join((*_GREY, *_COLOUR))}; save it as PNG"
        )
    if kind in _COLOUR:
        return _coloured(file, found, value_range)
    return _grey(file, found, value_range, is_inverted=kind == "MONOCHROME1")


@contextmanager
def _decoding(file: Path) -> Iterator[None]:
    """Turn whatever pydicom raises into an error that does not quote the file, and silence it."""
    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote the file
            yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - pydicom raises many kinds for a damaged file
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{file} cannot be read: {error.strerror}") from None
        raise DataError(
            f"{file} is not a readable DICOM file ({type(error).__name__}): replace or remove it"
        ) from None
    finally:
        logger.disabled = was_disabled


def _decoded(file: Path, found: Dataset) -> np.ndarray[Any, Any]:
    """Return the stored values, after checking that their compression can be decoded here."""
    from pydicom.pixels import (  # type: ignore[attr-defined, unused-ignore]
        get_decoder,
        pixel_array,
    )

    with _decoding(file):
        syntax = found.file_meta.TransferSyntaxUID
        is_known = syntax.is_transfer_syntax and not syntax.is_private
        # The name of a private syntax is text of the file.
        name = syntax.name if is_known else "of a syntax that pydicom does not know"
        try:
            is_decodable = get_decoder(syntax).is_available
        except NotImplementedError:
            is_decodable = False
        if not is_decodable:
            raise DataError(
                f"{file} is compressed as {name}, which cannot be decoded here: decompress it, for "
                "example with `gdcmconv --raw`, or install a decoder with pip install pylibjpeg "
                "pylibjpeg-libjpeg pylibjpeg-openjpeg"
            )
        values: np.ndarray[Any, Any] = pixel_array(found)
        return values


def _coloured(file: Path, found: Dataset, value_range: ValueRange | None) -> Image.Image:
    if value_range not in (None, (0, 255)):
        raise DataError(
            *(f"{file} is in colour, to which the declared ", Setting("value_range")),
            " cannot apply: keep such files in a folder of their own",
        )
    values = _decoded(file, found)
    if values.dtype != np.uint8 or values.ndim != 3:
        raise DataError(f"{file} holds colours of more than 8 bits: save it as PNG")
    return Image.fromarray(values)


def _grey(
    file: Path, found: Dataset, value_range: ValueRange | None, *, is_inverted: bool
) -> Image.Image:
    from pydicom.pixels import (  # type: ignore[attr-defined, unused-ignore]
        apply_modality_lut,
        apply_voi_lut,
    )

    values = _decoded(file, found)
    with _decoding(file):
        values = np.asarray(apply_modality_lut(values, found))
        has_table = bool(found.get("VOILUTSequence"))
        has_window = None not in (found.get("WindowCenter"), found.get("WindowWidth"))
    if value_range is None and has_window:
        # What the window makes of values far below and far above it is black and white.
        with _decoding(file), np.errstate(over="ignore"):
            seen = np.asarray(apply_voi_lut(values, found, prefer_lut=False))
            ends = apply_voi_lut(np.array([-1e30, 1e30]), found, prefer_lut=False)
            values, value_range = _ascending(seen, float(ends[0]), float(ends[1]))
    elif value_range is None and has_table:
        with _decoding(file):
            values = np.asarray(apply_voi_lut(values, found))
            bits = int(found.VOILUTSequence[0].LUTDescriptor[2])
            value_range = (0.0, 2.0**bits - 1)
    elif value_range is None:
        value_range = _range_of_bits(file, found)
    return rescaled(file, values, *value_range, is_inverted=is_inverted)


def _ascending(
    values: np.ndarray[Any, Any], black: float, white: float
) -> tuple[np.ndarray[Any, Any], ValueRange]:
    """Return values whose black is the smaller end: a negative slope exchanges the two."""
    return (values, (black, white)) if black < white else (-values, (-black, -white))


def _range_of_bits(file: Path, found: Dataset) -> ValueRange:
    """Return the whole range of an image of at most 8 bits, which is shown as it is."""
    with _decoding(file):
        bits, is_signed = int(found.get("BitsStored") or 16), bool(found.PixelRepresentation)
        slope, shift = found.get("RescaleSlope", 1), found.get("RescaleIntercept", 0)
        is_plain = bits <= 8 and not is_signed and (slope, shift) == (1, 0)
    if not is_plain:
        raise DataError(
            f"{file} declares no window, so nothing says which values are black and white: give ",
            *(Setting("value_range"), ", for example ", Setting("value_range"), " -1000,400"),
        )
    return 0.0, 2.0**bits - 1

"""Images in one folder a class: ``train/<class>/<image>`` and ``test/<class>/<image>``.

``val`` does for ``test``. Classes are the folders of ``train``, in alphabetical order. This is how
to lay out one's own images, and the sets that come as loose files:

- ``celeba-hair/train/{black,blond,brown}/*.jpg``: CelebA by hair colour;
- ``celeba-gender/train/{female,male}/*.jpg``: CelebA by gender;
- ``imagenet/train/n01440764/*.JPEG``, ``imagenet/val/n01440764/*.JPEG``: ImageNet, as unpacked;
- ``covidx/train/{negative,positive}/*.png``: COVIDx.

>>> import tempfile
>>> root = Path(tempfile.mkdtemp())
>>> for name in ("train/cat", "train/dog", "test/dog"):
...     (root / name).mkdir(parents=True)
...     Image.new("L", (12, 8)).save(root / name / "1.png")
>>> data = read_folder("pets", "test", root, size=8)
>>> data.input_shape, data.class_names, data.labels.tolist()
((1, 8, 8), ('cat', 'dog'), [1])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dpsd.datasets.labelled import LabelledImages, Split
from dpsd.datasets.location import missing
from dpsd.errors import DataError

LARGEST_SET = 32 * 2**30
"""Bytes that the pixels of one split may take: they are held in memory."""

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val")}
_GREY_MODES = {"1", "L", "LA", "I", "I;16", "F"}


def read_folder(
    name: str, split: Split, path: Path, *, size: int | None = None, home: str | None = None
) -> LabelledImages:
    """Read one split, every image resized to cover the size and cut at its centre.

    Args:
        name: what to call the data set.
        split: ``"train"`` or ``"test"``.
        path: the folder that holds ``train`` and ``test``.
        size: height and width in pixels; by default those of the first training image, which
            also decides between grey and colour.
        home: where to get the data, for the error when it is missing; ``None`` for one's own.

    Raises:
        DataError: a folder is missing or empty, a class is unknown, or an image is unreadable.
    """
    train = _split_folder(name, "train", path, home)
    class_names = tuple(sorted(entry.name for entry in train.iterdir() if _is_class(entry)))
    first = next((file for label in class_names for file in _images(train / label)), None)
    if first is None:
        raise DataError(f"{train} holds no images; they belong in {train}/<class>/")
    with _opened(first) as image:
        mode = "L" if image.mode in _GREY_MODES else "RGB"
        sides = (image.height, image.width) if size is None else (size, size)

    folder = _split_folder(name, split, path, home)
    strangers = {entry.name for entry in folder.iterdir() if _is_class(entry)} - {*class_names}
    if strangers:
        raise DataError(f"{folder} has classes that {train} lacks: {', '.join(sorted(strangers))}")
    files = [
        (file, label) for label, kind in enumerate(class_names) for file in _images(folder / kind)
    ]
    channels = len(mode)
    needed = len(files) * channels * sides[0] * sides[1]
    if needed > LARGEST_SET:
        raise DataError(
            f"{folder}: {len(files):,} images of {sides[0]}x{sides[1]} take {needed:,} bytes of "
            f"memory, more than {LARGEST_SET:,}; choose a smaller size or fewer images"
        )
    images = torch.empty(len(files), channels, *sides, dtype=torch.uint8)
    for row, (file, _) in enumerate(files):
        pixels = torch.from_numpy(_pixels(file, mode, sides))
        images[row] = pixels.reshape(*sides, channels).permute(2, 0, 1)
    return LabelledImages(
        images=images,
        labels=torch.tensor([label for _, label in files], dtype=torch.int64),
        class_names=class_names,
        name=name,
        split=split,
    )


def _split_folder(name: str, split: Split, path: Path, home: str | None) -> Path:
    candidates = [path / folder for folder in _FOLDERS[split]]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise missing(name, [folder / "<class>" for folder in candidates], home=home)


def _is_class(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)


def _opened(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is no readable image: {error}") from None


def _pixels(file: Path, mode: str, sides: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    height, width = sides
    with _opened(file) as opened:
        try:
            image = opened.convert(mode)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{file} is no readable image: {error}") from None
    scale = max(height / image.height, width / image.width)
    cover = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    if cover != image.size:
        image = image.resize(cover, Image.Resampling.BILINEAR, reducing_gap=2.0)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.array(image.crop((left, top, left + width, top + height)), dtype=np.uint8)

"""Images in one folder per class: ``train/<class>/<image>`` and ``test/<class>/<image>``.

``val`` serves as ``test``. Every image is resized, cropped, and converted to grey or colour on its
own, to what was declared. What was not declared is taken from ``train``: the classes are its
folders, in alphabetical order, and the size and colour are those of its first image. This is the
layout for your own images, and for the sets that come as loose files:

- ``celeba-hair/train/{black,blond,brown}/*.jpg``: CelebA by hair colour;
- ``celeba-gender/train/{female,male}/*.jpg``: CelebA by gender;
- ``imagenet/train/n01440764/*.JPEG``, ``imagenet/val/n01440764/*.JPEG``: ImageNet, as unpacked;
- ``covidx/train/{negative,positive}/*.png``: COVIDx.

>>> import tempfile
>>> root = Path(tempfile.mkdtemp())
>>> for name in ("train/cat", "train/dog", "test/dog"):
...     (root / name).mkdir(parents=True)
...     Image.new("L", (12, 8)).save(root / name / "1.png")
>>> data = read_folder("pets", "test", root, declared=Declared(size=(8, 8)))
>>> data.input_shape, data.class_names, data.labels.tolist()
((1, 8, 8), ('cat', 'dog'), [1])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dpsd.datasets.declared import Declared
from dpsd.datasets.labelled import LabelledImages, Split
from dpsd.datasets.location import missing
from dpsd.errors import DataError, Setting, reason

LARGEST_SET = 32 * 2**30
"""The most bytes that the pixels of one split, which are kept in memory, may take."""

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val")}
_GREY_MODES = {"1", "L", "LA", "I", "I;16", "F"}
#: The most by which the channels of a grey pixel may differ in a file that could hold colours, as
#: JPEG rounds each channel on its own.
_GREY_WITHIN = 8


def read_folder(
    name: str,
    split: Split,
    path: Path,
    *,
    declared: Declared | None = None,
    home: str | None = None,
) -> LabelledImages:
    """Read one split, with every image resized to cover the size and cropped at its centre.

    Args:
        name: the name of the data set.
        split: ``"train"`` or ``"test"``.
        path: the folder that holds ``train`` and ``test``.
        declared: the size, channels and classes; the training images decide what is left open.
        home: where to get the data, for the error if it is missing; ``None`` for a user's own data.

    Raises:
        DataError: a folder is missing or empty, a class is unknown, an image is unreadable, or it
            shows colours where grey images were declared.
    """
    declared = declared or Declared()
    class_names = declared.classes or _classes(_split_folder(name, "train", path, home))
    channels, sides = declared.channels, declared.size
    if channels is None or sides is None:
        train = _split_folder(name, "train", path, home)
        first = next((file for label in class_names for file in _images(train / label)), None)
        if first is None:
            raise _no_images(train)
        with _opened(first) as image:
            channels = channels or (1 if image.mode in _GREY_MODES else 3)
            sides = sides or (image.height, image.width)

    folder = _split_folder(name, split, path, home)
    if strangers := [kind for kind in _classes(folder) if kind not in class_names]:
        known = f"{path / 'train'} lacks"
        if declared.classes is not None:
            known = f"are none of the declared {', '.join(class_names[:9])}"
        raise DataError(
            f"{folder} has classes that {known}: {', '.join(strangers)}"
            f"{_example(folder, strangers)}"
        )
    files = [
        (file, label) for label, kind in enumerate(class_names) for file in _images(folder / kind)
    ]
    if not files:
        raise _no_images(folder)
    needed = len(files) * channels * sides[0] * sides[1]
    if needed > LARGEST_SET:
        raise DataError(
            f"{folder}: {len(files):,} images of {sides[0]}x{sides[1]} take {needed:,} bytes of "
            f"memory, more than {LARGEST_SET:,}; choose a smaller size or fewer images"
        )
    images = torch.empty(len(files), channels, *sides, dtype=torch.uint8)
    for row, (file, _) in enumerate(files):
        pixels = _pixels(file, channels, sides, is_grey_declared=declared.channels == 1)
        images[row] = torch.from_numpy(pixels).reshape(*sides, channels).permute(2, 0, 1)
    return LabelledImages(
        images=images,
        labels=torch.tensor([label for _, label in files], dtype=torch.int64),
        class_names=class_names,
        name=name,
        split=split,
        names=tuple(f"{file.parent.name}/{file.name}" for file, _ in files),
    )


def _split_folder(name: str, split: Split, path: Path, home: str | None) -> Path:
    candidates = [path / folder for folder in _FOLDERS[split]]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise missing(name, [folder / "<class>" for folder in candidates], home=home)


def _classes(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders in a split's folder, sorted, without hidden ones."""
    return tuple(
        sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.is_dir() and not entry.name.startswith(".")
        )
    )


def _example(folder: Path, kinds: list[str]) -> str:
    """Return a text that names an image in one of these folders as an example."""
    file = next((file for kind in kinds for file in _images(folder / kind)), None)
    return "" if file is None else f" (with {file}, for example)"


def _no_images(folder: Path) -> DataError:
    return DataError(f"{folder} holds no images; they belong in {folder}/<class>/")


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)


def _opened(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is not a readable image: {reason(error)}") from None


def _pixels(
    file: Path, channels: int, sides: tuple[int, int], *, is_grey_declared: bool
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    height, width = sides
    with _opened(file) as opened:
        try:
            image = opened.convert("L" if channels == 1 else "RGB")
            is_coloured = is_grey_declared and _is_coloured(opened)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{file} is not a readable image: {reason(error)}") from None
    if is_coloured:
        raise DataError(
            *(f"{file} is in colour, but ", Setting("channels"), " 1 was declared: make it grey, "),
            *("or declare ", Setting("channels"), " 3"),
        )
    scale = max(height / image.height, width / image.width)
    cover = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    if cover != image.size:
        image = image.resize(cover, Image.Resampling.BILINEAR, reducing_gap=2.0)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.array(image.crop((left, top, left + width, top + height)), dtype=np.uint8)


def _is_coloured(image: Image.Image) -> bool:
    """Return whether an image shows colours, not just whether its file format could."""
    if image.mode in _GREY_MODES:
        return False
    pixels = np.asarray(image.convert("RGB"), dtype=np.int16)
    return bool((pixels.max(-1) - pixels.min(-1)).max() > _GREY_WITHIN)

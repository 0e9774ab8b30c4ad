"""Images in one folder per class: ``train/<class>/<image>`` and ``test/<class>/<image>``.

``val/<class>/<image>`` beside them is the validation split; without ``test``, it serves as the test
split. A class's images may lie in folders below its own, such as one for each patient. Hidden files
and folders, and files that are no images, are passed over.

Every image is read by :mod:`dpsd.images.reading`, and is resized, cropped, and converted to grey or
colour on its own, to what was declared. What was not declared is taken from ``train``: the classes
are its folders, in alphabetical order, and the size and colour are those of its first image. This
is the layout for your own images, and for the sets that come as loose files:

- ``celeba-hair/train/{black,blond,brown}/*.jpg``: CelebA by hair colour;
- ``celeba-gender/train/{female,male}/*.jpg``: CelebA by gender (:mod:`dpsd.datasets.celeba` reads
  both from the publishers' files as well);
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

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dpsd.datasets.declared import Declared
from dpsd.datasets.labelled import LabelledImages, Split
from dpsd.datasets.location import missing
from dpsd.errors import DataError, MissingDataError, Setting
from dpsd.images.names import Shape
from dpsd.images.reading import SUFFIXES, image_files, is_passed_over, read_picture, unreadable

LARGEST_SET = 32 * 2**30
"""The most bytes that the pixels of one split, which are kept in memory, may take."""

_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val",),
    "test": ("test", "val"),
}
_PURPOSES: dict[Split, str] = {
    "train": "to train on",
    "validation": "to choose settings on",
    "test": "to measure on",
}
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
        split: ``"train"``, ``"validation"`` or ``"test"``.
        path: the folder that holds ``train`` and ``test``.
        declared: the size, channels, classes and range of values; the training images decide the
            first three where they are left open.
        home: where to get the data, for the error if it is missing; ``None`` for a user's own data.

    Raises:
        DataError: a folder is missing or empty, a class is unknown, an image is unreadable, or it
            shows colours where grey images were declared.
        MissingDataError: the split's folder is missing; the message says what is there.
    """
    declared = declared or Declared()
    class_names = declared.classes or _folders(_split_folder(name, "train", path, home))
    channels, sides = declared.channels, declared.size
    if channels is None or sides is None:
        train = _split_folder(name, "train", path, home)
        first = next((file for label in class_names for file in _images(train / label)), None)
        if first is None:
            raise _no_images(train)
        image = read_picture(first, value_range=declared.value_range)
        channels = channels or (1 if image.mode == "L" else 3)
        sides = sides or (image.height, image.width)

    folder = _split_folder(name, split, path, home)
    if strangers := [kind for kind in _folders(folder) if kind not in class_names]:
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
    images = allocated(folder, len(files), (channels, *sides))
    for row, (file, _) in enumerate(files):
        image = read_picture(file, value_range=declared.value_range)
        if declared.channels == 1:
            refuse_colours(image, str(file))
        images[row] = fitted(image, (channels, *sides))
    return LabelledImages(
        images=images,
        labels=torch.tensor([label for _, label in files], dtype=torch.int64),
        class_names=class_names,
        name=name,
        split=split,
        names=tuple(file.relative_to(folder).as_posix() for file, _ in files),
    )


def has_validation(path: Path) -> bool:
    """Return whether a folder has a validation split of its own beside its test split."""
    return all((path / folder).is_dir() for folder in ("test", "val"))


def _split_folder(name: str, split: Split, path: Path, home: str | None) -> Path:
    candidates = [path / folder for folder in _FOLDERS[split]]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    if not path.is_dir():
        raise missing(name, [folder / "<class>" for folder in candidates], home=home)
    found = ", ".join(_folders(path)[:9]) or "no folders"
    raise MissingDataError(
        f"data set {name!r} has no {split} split: {path} holds {found}, but not "
        f"{' or '.join(_FOLDERS[split])}. Put the images {_PURPOSES[split]} into "
        f"{candidates[0]}/<class>/"
    )


def _folders(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""
    try:
        entries = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    except OSError as error:
        raise unreadable(error, folder) from None
    return tuple(sorted(name for name in entries if not is_passed_over(name)))


def _example(folder: Path, kinds: list[str]) -> str:
    """Return a text that names an image in one of these folders as an example."""
    file = next((file for kind in kinds for file in _images(folder / kind)), None)
    return "" if file is None else f" (with {file}, for example)"


def _no_images(folder: Path) -> DataError:
    return DataError(
        f"{folder} holds no images ({', '.join(SUFFIXES)}, .dcm); they belong in {folder}/<class>/"
    )


def _images(folder: Path) -> list[Path]:
    return image_files(folder) if folder.is_dir() else []


def allocated(source: Path, count: int, shape: Shape) -> Tensor:
    """Return memory for the pixels of some images, uint8 ``(count, *shape)``.

    Raises:
        DataError: it would take more than :data:`LARGEST_SET`.
    """
    needed = count * math.prod(shape)
    if needed > LARGEST_SET:
        raise DataError(
            f"{source}: {count:,} images of {shape[1]}x{shape[2]} take {needed:,} bytes of "
            f"memory, more than {LARGEST_SET:,}; choose a smaller size or fewer images"
        )
    return torch.empty(count, *shape, dtype=torch.uint8)


def fitted(image: Image.Image, shape: Shape) -> Tensor:
    """Return a picture, resized to cover a shape and cropped at its centre, uint8 ``shape``."""
    channels, height, width = shape
    image = image.convert("L" if channels == 1 else "RGB")
    scale = max(height / image.height, width / image.width)
    cover = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    if cover != image.size:
        image = image.resize(cover, Image.Resampling.BILINEAR, reducing_gap=2.0)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.array(image.crop((left, top, left + width, top + height)), dtype=np.uint8)
    return torch.from_numpy(pixels).reshape(height, width, channels).permute(2, 0, 1)


def refuse_colours(image: Image.Image, where: str) -> None:
    """Refuse a coloured picture where grey ones were declared.

    Raises:
        DataError: the picture shows colours.
    """
    if _is_coloured(image):
        raise DataError(
            *(
                f"{where} is in colour, but ",
                Setting("channels"),
                " 1 was declared: make it grey, ",
            ),
            *("or declare ", Setting("channels"), " 3"),
        )


def _is_coloured(image: Image.Image) -> bool:
    """Return whether an image shows colours, not just whether its file format could."""
    if image.mode == "L":
        return False
    pixels = np.asarray(image, dtype=np.int16)
    return bool((pixels.max(-1) - pixels.min(-1)).max() > _GREY_WITHIN)

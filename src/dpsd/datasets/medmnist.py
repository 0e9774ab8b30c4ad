"""MedMNIST, and other data in its ``.npz`` layout.

A file has four arrays: ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``. If
it also has ``val_images`` and ``val_labels``, these are its validation split. Images are uint8
``(N, H, W)`` or ``(N, H, W, 1 or 3)``, labels ``(N,)`` or ``(N, 1)``. Headers are checked before a
byte of an array is unpacked, and pickled objects are refused.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp()) / "tiny.npz"
>>> pixels, labels = np.zeros((4, 8, 8), np.uint8), np.array([[0], [1], [2], [0]])
>>> np.savez_compressed(path, train_images=pixels, train_labels=labels,
...                     test_images=pixels, test_labels=labels)
>>> data = read_npz("tiny", "train", path)
>>> data.input_shape, data.class_names
((1, 8, 8), ('0', '1', '2'))
"""

from __future__ import annotations

import math
import tokenize
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpsd.datasets.archives import DAMAGED
from dpsd.datasets.declared import MOST_CLASSES
from dpsd.datasets.labelled import LabelledImages, Split
from dpsd.datasets.location import missing
from dpsd.errors import DataError

LARGEST_ARRAY = 8 * 2**30
"""The most bytes that one array may unpack to."""

_PREFIXES: dict[Split, str] = {"train": "train", "validation": "val", "test": "test"}

_LARGEST_RATIO = 500
_RATIO_MATTERS_FROM = 64 * 2**20

_Array = np.ndarray[Any, np.dtype[Any]]


def read_npz(
    name: str,
    split: Split,
    path: Path,
    *,
    home: str | None = None,
    classes: tuple[str, ...] | None = None,
) -> LabelledImages:
    """Read one split of a MedMNIST-like file.

    Args:
        name: the name of the data set.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        path: the path of the file.
        home: where to get the file if it is missing; ``None`` for a user's own file.
        classes: the names of the classes; by default, the largest label of training and test
            determines their number, and they are named by numbers.

    Raises:
        DataError: the file is missing, damaged, absurdly large, or in another layout.
    """
    if not path.is_file():
        raise missing(name, [path], home=home)
    try:
        with zipfile.ZipFile(path) as archive:
            images = _array(archive, f"{_PREFIXES[split]}_images", path)
            parts = {split} if classes is not None else {split, "train", "test"}
            labels = {part: _labels(archive, f"{_PREFIXES[part]}_labels", path) for part in parts}
    except (zipfile.BadZipFile, RuntimeError, *DAMAGED) as error:
        raise DataError(f"{path} is damaged or not an .npz file: {error}") from None
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(
            f"{path}: {_PREFIXES[split]}_images is {images.dtype} {images.shape}; uint8 (N, H, W) "
            "or (N, H, W, 1 or 3) is needed"
        )
    if classes is None:
        largest = max(int(part.max()) for key, part in labels.items() if key != "validation")
        if largest >= MOST_CLASSES:
            raise DataError(f"{path}: label {largest} cannot be the index of a class")
        classes = tuple(map(str, range(1 + largest)))
    return LabelledImages(
        images=torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
        labels=torch.from_numpy(labels[split]),
        class_names=classes,
        name=name,
        split=split,
    )


def has_validation(path: Path) -> bool:
    """Return whether a MedMNIST-like file has a validation split of its own."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "val_images.npy" in archive.namelist()
    except (zipfile.BadZipFile, *DAMAGED):  # whoever reads the file says what is wrong with it
        return False


def read_array(path: Path, key: str) -> _Array:
    """Read one array of an ``.npz`` file, never a pickled one.

    Raises:
        DataError: the file or the array is missing or damaged.
    """
    if not path.is_file():
        raise missing(path.name, [path], home=None)
    try:
        with zipfile.ZipFile(path) as archive:
            return _array(archive, key, path)
    except (zipfile.BadZipFile, RuntimeError, *DAMAGED) as error:
        raise DataError(f"{path} is damaged or not an .npz file: {error}") from None


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in an ``.npz`` file.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.is_file():
        raise missing(path.name, [path], home=None)
    try:
        with zipfile.ZipFile(path) as archive:
            files = archive.namelist()
    except (zipfile.BadZipFile, RuntimeError, *DAMAGED) as error:
        raise DataError(f"{path} is damaged or not an .npz file: {error}") from None
    return [name.removesuffix(".npy") for name in files if name.endswith(".npy")]


def _labels(archive: zipfile.ZipFile, key: str, path: Path) -> _Array:
    labels = _array(archive, key, path)
    if labels.dtype.kind not in "iu" or labels.ndim not in (1, 2) or labels.size != len(labels):
        raise DataError(
            f"{path}: {key} is {labels.dtype} {labels.shape}; one whole number per image is needed"
        )
    if not labels.size:
        raise DataError(f"{path}: {key} is empty")
    return labels.reshape(-1).astype(np.int64)


def _array(archive: zipfile.ZipFile, key: str, path: Path) -> _Array:
    try:
        info = archive.getinfo(f"{key}.npy")
    except KeyError:
        raise DataError(f"{path} has no array {key}") from None
    ratio = info.file_size / max(1, info.compress_size)
    if info.file_size > LARGEST_ARRAY or (
        info.file_size > _RATIO_MATTERS_FROM and ratio > _LARGEST_RATIO
    ):
        raise DataError(
            f"{path}: {key} would unpack {info.compress_size:,} bytes to {info.file_size:,}; "
            "refused"
        )
    try:
        with archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(stream)
            if dtype.hasobject:
                raise DataError(f"{path}: {key} holds pickled objects; refused")
            # The header decides how much memory is allocated, so it must agree with the archive.
            declared, held = math.prod(shape) * dtype.itemsize, info.file_size - stream.tell()
            if declared != held:
                raise DataError(f"{path}: {key} declares {declared:,} bytes but holds {held:,}")
        with archive.open(info) as stream:
            array: _Array = np.lib.format.read_array(stream, allow_pickle=False)
            return array
    except (ValueError, KeyError, tokenize.TokenError) as error:
        raise DataError(f"{path}: {key} is not a readable array: {error}") from None

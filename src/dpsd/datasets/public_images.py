"""Public unlabelled images of the domain: the one way by which a transcription reads images.

They come from a folder, from an ``.npz`` file, or from a data set whose labels are dropped, and are
fitted to the shape that the teacher takes.

>>> read_public("digits", (1, 8, 8)).shape
torch.Size([1085, 1, 8, 8])
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dpsd.datasets.folder import LARGEST_SET
from dpsd.datasets.medmnist import array_names, read_array
from dpsd.datasets.published import dataset_names, npz_path
from dpsd.datasets.registry import load_dataset
from dpsd.errors import DataError, Setting
from dpsd.images.fitting import can_convert, fitted, read_fitted
from dpsd.images.names import Shape
from dpsd.images.reading import SUFFIXES, image_files
from dpsd.images.value_range import ValueRange

#: The most images that are read from a folder, drawn evenly from all.
MOST_IMAGES = 50_000

#: The arrays of an ``.npz`` file that hold its images, in the order in which they are looked for; a
#: file of a single array needs no name.
_ARRAYS = ("images", "train_images")


def is_dataset(spec: str) -> bool:
    """Return whether public images are those of a data set, and not of a path.

    >>> is_dataset("mnist"), is_dataset("photographs"), is_dataset("scans.npz")
    (True, False, False)
    """
    return spec in dataset_names() or spec.startswith("medmnist:")


def path_of(spec: str, *, absolute: bool = True) -> Path:
    """Return the path of a folder or file of images, absolute unless it is wanted as it was given.

    >>> path_of("/photographs"), path_of("folder:/photographs")
    (PosixPath('/photographs'), PosixPath('/photographs'))
    """
    path = Path(spec.removeprefix("folder:")).expanduser()
    return path.absolute() if absolute else path


def read_public(
    spec: str, shape: Shape, *, setting: str = "public", value_range: ValueRange | None = None
) -> Tensor:
    """Read public images, without labels, fitted to a shape.

    Args:
        spec: a folder of images, which is searched recursively; an ``.npz`` file with uint8 images
            ``(N, H, W)`` or ``(N, H, W, C)`` in an array called ``images`` or ``train_images``, or
            in its only array; or the name of a data set, whose training images are read.
        shape: the channels, height and width that images are scaled and centre-cropped to.
        setting: the setting that the images are read for, which errors name.
        value_range: the stored values of grey image files that are black and white, where the files
            do not say it.

    Returns:
        The images, uint8 ``(N, *shape)``, at least one.

    Raises:
        DataError: there is no such folder, file or data set, it is damaged, or it holds no images
            that can be fitted.
    """
    try:
        return _read(spec, shape, value_range)
    except DataError as error:
        raise type(error)(Setting(setting), ": ", *error.parts) from None


def _read(spec: str, shape: Shape, value_range: ValueRange | None) -> Tensor:
    if is_dataset(spec):
        return fitted(load_dataset(spec, "train").images, shape)
    path = path_of(spec)
    if npz_path(str(path), Path()) is not None:
        return fitted(_images_of(path, shape[0]), shape)
    if not path.is_dir():
        raise DataError(
            f"{spec!r} is no folder, no .npz file and no data set; data sets are "
            f"{', '.join(dataset_names())}"
        )
    files = image_files(path)
    if not files:
        raise DataError(f"no image ({', '.join(SUFFIXES)}, .dcm) in {path}")
    if len(files) > MOST_IMAGES:  # drawn from all, as files are sorted, by their folder first
        files = [files[round(row)] for row in np.linspace(0, len(files) - 1, MOST_IMAGES)]
    if (needed := len(files) * math.prod(shape)) > LARGEST_SET:
        raise DataError(
            f"{len(files):,} images in {path} take {needed:,} bytes of memory, more "
            f"than {LARGEST_SET:,}; give fewer"
        )
    images = torch.empty((len(files), *shape), dtype=torch.uint8)
    for row, file in enumerate(files):
        images[row] = read_fitted(file, shape, value_range=value_range)
    return images


def _images_of(path: Path, channels: int) -> Tensor:
    """Return the images in an ``.npz`` file, uint8 ``(N, C, H, W)``, that can have the channels."""
    names = array_names(path)
    name = next((name for name in _ARRAYS if name in names), None)
    if name is None and len(names) == 1:
        (name,) = names
    if name is None:
        raise DataError(
            f"{path} has no array {' or '.join(_ARRAYS)}: save the images under one of these names"
        )
    images = read_array(path, name)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise DataError(
            f"{path}: {name} is {images.dtype} {images.shape}; uint8 (N, H, W) or (N, H, W, C) "
            "with at least one image is needed"
        )
    if not can_convert(images.shape[3], channels):
        turned = can_convert(images.shape[1], channels)
        raise DataError(
            f"{path}: {name} is {images.dtype} {images.shape}, which has {images.shape[3]} "
            f"channels as (N, H, W, C), and the teacher takes {channels}: (N, H, W) or "
            "(N, H, W, C) is needed"
            + ("; this may be PyTorch's (N, C, H, W): transpose(0, 2, 3, 1) turns it" * turned)
        )
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

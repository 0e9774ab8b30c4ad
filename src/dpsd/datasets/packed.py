"""Small JPEG images in one archive, ``<split>/<class>/<n>.jpg``: CIFAR and Tiny ImageNet.

Their bytes are read from the stream, and an image's size is checked before it is decoded.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpsd.datasets.archives import tar_files
from dpsd.datasets.labelled import LabelledImages, PublishedSplit
from dpsd.datasets.location import missing
from dpsd.datasets.published import ARRAYS, RECORDS, home_of, places_of
from dpsd.errors import DataError
from dpsd.images.reading import decode_picture

_LARGEST_ARCHIVE = 2**30


def read_packed(
    name: str, split: PublishedSplit, root: Path, *, folder: str = "", test: str = "test"
) -> LabelledImages:
    """Read ``<split>/<class>/<n>.jpg`` from the archive of a data set, in the archive's order.

    Args:
        name: the name of the data set, whose publishers state its shape, its classes and the number
            of its records.
        split: ``"train"`` or ``"test"``.
        root: the folder of data sets.
        folder: the start of all names in the archive, such as ``"tinyimagenet10/"``.
        test: the folder of the test split.

    Raises:
        DataError: the archive is missing or damaged, or holds other images than stated.
    """
    (path,) = places_of(name, root)
    if not path.is_file():
        raise missing(name, [path], home=home_of(name))
    part = {"train": "train", "test": test}[split]
    member = re.compile(
        rf"(?:\./)?{re.escape(folder)}{part}/([^/.][^/]*)/[^/]+\.(?:jpe?g|png)", re.IGNORECASE
    )
    stated = ARRAYS[name]
    assert stated.size is not None, name
    assert stated.classes is not None, name
    classes = {kind: label for label, kind in enumerate(stated.classes)}
    most = RECORDS[name][split == "test"]
    images: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
    labels: list[int] = []
    for file, content in tar_files(
        path, wanted=lambda found: member.fullmatch(found) is not None, most=_LARGEST_ARCHIVE
    ):
        kind = file.split("/")[-2]
        if kind not in classes:
            raise DataError(f"{path}: {file} does not belong to a class of {name}")
        if len(images) == most:
            raise DataError(f"{path} holds more than the {most:,} {split} images of {name}")
        image = decode_picture(
            content, f"{path}: {file}", most_pixels=math.prod(stated.size), size=stated.size
        )
        images.append(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))
        labels.append(classes[kind])
    if not images:
        raise DataError(f"{path} holds no images named {folder}{part}/<class>/<n>.jpg")
    return LabelledImages(
        images=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor(labels),
        class_names=stated.classes,
        name=name,
        split=split,
    )

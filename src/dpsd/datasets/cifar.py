"""CIFAR-10 and CIFAR-100 in their binary version, and CIFAR-10 as JPEG files in one archive.

The binary version consists of records of one label byte (two for CIFAR-100: coarse, fine) and 3072
pixel bytes, channels first. The Python version of the archives is a pickle and is never read.

>>> record = bytes([3]) + bytes(3072)
>>> images, labels = parse_records(record * 2, label_bytes=1)
>>> images.shape, labels.tolist()
(torch.Size([2, 3, 32, 32]), [3, 3])
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dpsd.datasets.archives import tar_files
from dpsd.datasets.labelled import LabelledImages, Split
from dpsd.datasets.location import missing
from dpsd.datasets.published import CIFAR10_CLASSES, CIFAR100_CLASSES, home_of, places_of
from dpsd.errors import DataError

_PIXELS = 3 * 32 * 32
_LARGEST_ARCHIVE = 2**30
_JPEG = re.compile(r"(?:\./)?(train|test)/([^/.][^/]*)/[^/]+\.(?:jpg|jpeg|png)", re.IGNORECASE)


def read_cifar10(split: Split, root: Path) -> LabelledImages:
    """Read ``cifar-10-batches-bin/`` or ``cifar-10-binary.tar.gz`` under ``root``."""
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    contents = _contents("cifar10", root, files)
    return _assemble("cifar10", split, contents, 1, 10_000, CIFAR10_CLASSES)


def read_cifar100(split: Split, root: Path) -> LabelledImages:
    """Read ``cifar-100-binary/`` or ``cifar-100-binary.tar.gz`` under ``root``: fine labels."""
    contents = _contents("cifar100", root, [f"{split}.bin"])
    records = 50_000 if split == "train" else 10_000
    return _assemble("cifar100", split, contents, 2, records, CIFAR100_CLASSES)


def read_cifar10_jpeg(split: Split, root: Path) -> LabelledImages:
    """Read ``<split>/<class>/<n>.jpg`` from ``cifar-10-images.tar.xz`` under ``root``.

    The images are re-encoded, so results on them should be labelled "CIFAR-10 (JPEG)".
    """
    (path,) = places_of("cifar10-jpeg", root)
    if not path.is_file():
        raise missing("cifar10-jpeg", [path], home=home_of("cifar10-jpeg"))

    def wanted(name: str) -> bool:
        match = _JPEG.fullmatch(name)
        return match is not None and match[1] == split

    classes: dict[str, int] = {name: label for label, name in enumerate(CIFAR10_CLASSES)}
    images: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
    labels: list[int] = []
    for name, content in tar_files(path, wanted=wanted, most=_LARGEST_ARCHIVE):
        class_name = name.split("/")[-2]
        if class_name not in classes:
            raise DataError(f"{path}: {name} does not belong to a CIFAR-10 class")
        images.append(_decode(content, f"{path}: {name}"))
        labels.append(classes[class_name])
    if not images:
        raise DataError(f"{path} holds no images named {split}/<class>/<n>.jpg")
    return LabelledImages(
        images=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor(labels),
        class_names=CIFAR10_CLASSES,
        name="cifar10-jpeg",
        split=split,
    )


def parse_records(content: bytes, *, label_bytes: int) -> tuple[Tensor, Tensor]:
    """Split records into images ``(N, 3, 32, 32)`` and the last label byte of each ``(N,)``."""
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    records = records.reshape(-1, label_bytes + _PIXELS)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32)
    return images, records[:, label_bytes - 1].long()


def _decode(content: bytes, where: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG", "PNG"]) as image:
            if image.size != (32, 32):  # before any pixel is decoded
                raise DataError(f"{where} is {image.width}x{image.height} pixels, not 32x32")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{where} is not a readable image: {error}") from None


def _contents(name: str, root: Path, files: list[str]) -> Iterator[tuple[str, bytes]]:
    directory, packed = places_of(name, root)
    if directory.is_dir():
        for file in files:
            path = directory / file
            if not path.is_file():
                raise missing(name, [path], home=home_of(name))
            yield str(path), path.read_bytes()
    elif packed.is_file():
        names = {f"{directory.name}/{file}" for file in files}
        for member, content in tar_files(
            packed, wanted=lambda found: found in names, most=_LARGEST_ARCHIVE
        ):
            names.discard(member)
            yield f"{packed}: {member}", content
        if names:
            raise DataError(f"{packed} lacks {', '.join(sorted(names))}")
    else:
        raise missing(name, [directory, packed], home=home_of(name))


def _assemble(
    name: str,
    split: Split,
    contents: Iterable[tuple[str, bytes]],
    label_bytes: int,
    records: int,
    class_names: tuple[str, ...],
) -> LabelledImages:
    images: list[Tensor] = []
    labels: list[Tensor] = []
    size = records * (label_bytes + _PIXELS)
    for where, content in contents:
        if len(content) != size:
            raise DataError(
                f"{where} holds {len(content):,} bytes, not the {size:,} of {records:,} records"
            )
        batch_images, batch_labels = parse_records(content, label_bytes=label_bytes)
        images.append(batch_images)
        labels.append(batch_labels)
    return LabelledImages(
        images=torch.cat(images),
        labels=torch.cat(labels),
        class_names=class_names,
        name=name,
        split=split,
    )

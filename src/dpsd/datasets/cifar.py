"""CIFAR-10 and CIFAR-100 in their binary version; :mod:`dpsd.datasets.packed` reads JPEG files.

The binary version consists of records of one label byte (two for CIFAR-100: coarse, fine) and 3072
pixel bytes, channels first. The Python version of the archives is a pickle and is never read.

>>> record = bytes([3]) + bytes(3072)
>>> images, labels = parse_records(record * 2, label_bytes=1)
>>> images.shape, labels.tolist()
(torch.Size([2, 3, 32, 32]), [3, 3])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from dpsd.datasets.archives import tar_files
from dpsd.datasets.labelled import LabelledImages, PublishedSplit
from dpsd.datasets.location import missing
from dpsd.datasets.published import CIFAR10_CLASSES, CIFAR100_CLASSES, home_of, places_of
from dpsd.errors import DataError

_PIXELS = 3 * 32 * 32
_LARGEST_ARCHIVE = 2**30


def read_cifar10(split: PublishedSplit, root: Path) -> LabelledImages:
    """Read ``cifar-10-batches-bin/`` or ``cifar-10-binary.tar.gz`` under ``root``."""
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    contents = _contents("cifar10", root, files)
    return _assemble("cifar10", split, contents, 1, 10_000, CIFAR10_CLASSES)


def read_cifar100(split: PublishedSplit, root: Path) -> LabelledImages:
    """Read ``cifar-100-binary/`` or ``cifar-100-binary.tar.gz`` under ``root``: fine labels."""
    contents = _contents("cifar100", root, [f"{split}.bin"])
    records = 50_000 if split == "train" else 10_000
    return _assemble("cifar100", split, contents, 2, records, CIFAR100_CLASSES)


def parse_records(content: bytes, *, label_bytes: int) -> tuple[Tensor, Tensor]:
    """Split records into images ``(N, 3, 32, 32)`` and the last label byte of each ``(N,)``."""
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    records = records.reshape(-1, label_bytes + _PIXELS)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32)
    return images, records[:, label_bytes - 1].long()


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
    split: PublishedSplit,
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

"""MNIST and Fashion-MNIST in their canonical IDX files, compressed (``.gz``) or not.

The format consists of two zero bytes, a type (8 for unsigned bytes), the number of dimensions, each
dimension as a big-endian 32-bit integer, and the bytes.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
>>> path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
11
>>> read_idx(path, dimensions=1).tolist()
[7, 2, 1]
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from dpsd.datasets.archives import DAMAGED, open_compressed
from dpsd.datasets.labelled import LabelledImages, PublishedSplit
from dpsd.datasets.location import missing
from dpsd.errors import DataError

LARGEST_FILE = 512 * 2**20
"""The most bytes that a header may declare: ten times MNIST, which does not threaten memory."""

_STEMS = {"train": "train", "test": "t10k"}


def read_idx_pair(
    name: str, split: PublishedSplit, root: Path, *, class_names: tuple[str, ...], home: str
) -> LabelledImages:
    """Read images and labels from ``root/name``.

    Raises:
        DataError: a file is missing or damaged, or the two do not fit together.
    """
    stem = _STEMS[split]
    images, labels = (
        read_idx(_present(name, root / name / f"{stem}-{kind}-ubyte", home), dimensions=dimensions)
        for kind, dimensions in (("images-idx3", 3), ("labels-idx1", 1))
    )
    return LabelledImages(
        images=images.unsqueeze(1),
        labels=labels.long(),
        class_names=class_names,
        name=name,
        split=split,
    )


def read_idx(path: Path, *, dimensions: int) -> Tensor:
    """Read one IDX file of unsigned bytes with this many dimensions.

    Raises:
        DataError: the file has another magic number, an absurd header, or more or fewer bytes than
            declared.
    """
    magic = 0x0800 + dimensions
    try:
        with open_compressed(path) as stream:
            header = stream.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions:
                raise DataError(f"{path} is truncated: {len(header)} bytes are not an IDX header")
            found, *shape = struct.unpack(f">{1 + dimensions}I", header)
            if found != magic:
                raise DataError(f"{path} has magic number {found:#010x}, not {magic:#010x}")
            declared = math.prod(shape)
            if not 0 < declared <= LARGEST_FILE:
                raise DataError(
                    f"{path} declares {'x'.join(map(str, shape))} = {declared:,} bytes; "
                    f"1 to {LARGEST_FILE:,} are accepted"
                )
            content = bytearray(stream.read(declared + 1))
    except DAMAGED as error:
        raise DataError(f"{path} is damaged or truncated: {error}") from None
    if len(content) != declared:
        held = "more" if len(content) > declared else f"only {len(content):,}"
        raise DataError(f"{path} declares {declared:,} bytes but holds {held}")
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


def _present(name: str, path: Path, home: str) -> Path:
    for candidate in (path, path.with_name(f"{path.name}.gz")):
        if candidate.is_file():
            return candidate
    packed = path.with_name(f"{path.name}.gz")
    raise missing(name, [packed], home=home)

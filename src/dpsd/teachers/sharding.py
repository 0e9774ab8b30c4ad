"""Disjoint shards: which record trains which teacher, and the proof that none trains two.

An ensemble's ε protects a record only if the record reached one teacher. So the assignment is made
from the *number* of records alone, never from what is in them (replacing one record then moves no
other), and it is written down as keyed hashes of the records, so that anyone who holds the
ensemble can check that no record occurs in two shards. The hashes are for the owner: who has the
key beside them can test whether a given record was in the data, so they stay with the teachers.

>>> shards = Shards.assign(torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1), teachers=3, seed=0)
>>> [len(rows) for rows in shards.rows()]
[2, 2, 2]
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dpsd.errors import DataError, RunError, TeacherError
from dpsd.files import save_tensors

SHARDS_FILE = "shards.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Shards:
    """Which record is in which shard.

    Args:
        shard: of each record, int32 ``(N,)``, from 0.
        digests: keyed BLAKE2b hash of each record's image, uint8 ``(N, 32)``.
        key: of the hashes.

    Raises:
        DataError: a record that is in two shards.
    """

    shard: Tensor
    digests: Tensor
    key: bytes

    def __post_init__(self) -> None:
        if several := self.in_several():
            raise DataError(
                f"{several} of {len(self.shard):,} records occur in more than one shard, so two "
                "teachers would learn from them and no epsilon would protect them; remove "
                "duplicate records first (train-teacher --drop-duplicates does)"
            )

    @classmethod
    def assign(cls, images: Tensor, *, teachers: int, seed: int) -> Shards:
        """Deal records out at random, by their positions alone; shards differ by one at most.

        Raises:
            DataError: fewer than two records a shard, or the same record in two shards.
        """
        if teachers < 2 or 2 * teachers > len(images):
            raise DataError(
                f"shards is {teachers}, but {len(images)} records make 2 to {len(images) // 2} "
                "shards of at least two records"
            )
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        shard = torch.empty(len(images), dtype=torch.int32)
        shard[order] = torch.arange(len(images), dtype=torch.int32) % teachers
        key = secrets.token_bytes(32)
        return cls(shard=shard, digests=record_digests(images, key), key=key)

    @property
    def teachers(self) -> int:
        """How many shards there are."""
        return int(self.shard.max()) + 1

    def rows(self) -> list[Tensor]:
        """The rows of the data in each shard."""
        order = self.shard.argsort(stable=True)
        sizes = torch.bincount(self.shard).tolist()
        return list(torch.split(order, sizes))

    def in_several(self) -> int:
        """How many records lie in a shard although an equal one lies in another."""
        which, found = _distinct(self.digests)
        first, last = np.full(found, self.teachers), np.full(found, -1)
        np.minimum.at(first, which, self.shard.numpy())
        np.maximum.at(last, which, self.shard.numpy())
        return int((first != last)[which].sum())

    def save(self, directory: Path) -> None:
        """Write ``shards.safetensors`` beside the teachers."""
        tensors = {"shard": self.shard, "digests": self.digests}
        try:
            save_tensors(directory / SHARDS_FILE, tensors, metadata={"key": self.key.hex()})
        except RunError as error:
            raise TeacherError(str(error)) from None

    @classmethod
    def load(cls, directory: Path) -> Shards:
        """Read them back; reading checks that no record is in two shards.

        Raises:
            TeacherError: missing, damaged, or shards that are not disjoint.
        """
        path = directory / SHARDS_FILE
        try:
            with safe_open(path, framework="pt") as file:
                key = bytes.fromhex((file.metadata() or {})["key"])
                return cls(
                    shard=file.get_tensor("shard"), digests=file.get_tensor("digests"), key=key
                )
        except DataError as error:
            raise TeacherError(f"{path}: {error}") from None
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise TeacherError(
                f"{path} cannot be read ({error}): without it nobody can check that the shards "
                "are disjoint; copy the whole directory again"
            ) from None


def record_digests(images: Tensor, key: bytes) -> Tensor:
    """Keyed hashes of images, uint8 ``(N, 32)``; the label does not count.

    >>> record_digests(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), b"k").unique(dim=0).shape
    torch.Size([1, 32])
    """
    # Hashing is one record at a time in every library; all the rest is vectorised.
    hashes = [
        hashlib.blake2b(image.tobytes(), digest_size=32, key=key).digest()
        for image in images.numpy()
    ]
    return torch.frombuffer(bytearray(b"".join(hashes)), dtype=torch.uint8).view(-1, 32)


def distinct_rows(images: Tensor) -> Tensor:
    """The first row of each distinct image, in order.

    >>> distinct_rows(torch.tensor([3, 5, 3], dtype=torch.uint8).view(3, 1, 1, 1)).tolist()
    [0, 1]
    """
    which, found = _distinct(record_digests(images, b"distinct"))
    first = np.full(found, len(which))
    np.minimum.at(first, which, np.arange(len(which)))
    return torch.from_numpy(np.sort(first))


def _distinct(digests: Tensor) -> tuple[NDArray[np.intp], int]:
    """A number for each digest, equal for equal ones, and how many there are."""
    as_items = digests.contiguous().numpy().view("V32").ravel()
    values, which = np.unique(as_items, return_inverse=True)
    return which, len(values)

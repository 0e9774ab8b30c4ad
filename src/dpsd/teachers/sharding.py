"""Disjoint shards: which record trains which teacher, with hashes to check that none trains two.

An ensemble's ε protects a record only if the record reached only one teacher. So records are
assigned to shards ("dealt") by what *identifies* them (:mod:`dpsd.teachers.dealing`), never by
their content, and before equal ones are dropped: a record that is replaced in its place then moves
no other. The assignment is stored with keyed hashes of the records, so that anyone who holds the
ensemble can check that no record on file is in two shards. No hash can tell what the teachers were
really trained on. The hashes are for the owner: whoever has the key, which is stored with them, can
test whether a given record was in the data, so they stay with the teachers.

>>> from dpsd.datasets import load_dataset
>>> shards = Shards.assign(load_dataset("digits", "train"), teachers=500, seed=0)
>>> sorted({len(rows) for rows in shards.rows()})
[2, 3]
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from dpsd.datasets import LabelledImages
from dpsd.errors import DataError, RunError, Setting, TeacherError, reason
from dpsd.storage.files import open_tensors, save_tensors
from dpsd.teachers.dealing import DealtBy, deal_names, deal_positions

SHARDS_FILE = "shards.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Shards:
    """The assignment of records to shards.

    Args:
        shard: the shard that each record was dealt to, int32 ``(N,)``, from 0.
        digests: the keyed BLAKE2b hash of each record's image, uint8 ``(N, 32)``.
        key: the key of the hashes.
        teachers: the number of shards, whether or not each has records.
        kept: whether each record trains the teacher of its shard, bool ``(N,)``; a record that is
            equal to an earlier one may be left out.
        dealt_by: what decides a record's shard; ``None`` if that is not on record, as for ensembles
            that were trained before it was recorded.
        persons: the number of persons that the records belong to, if they were dealt by person.

    Raises:
        DataError: the parts do not fit together, or a record is in two shards.
    """

    shard: Tensor
    digests: Tensor
    key: bytes
    teachers: int
    kept: Tensor
    dealt_by: DealtBy | None = None
    persons: int | None = None

    def __post_init__(self) -> None:
        count = len(self.shard) if self.shard.ndim == 1 else -1
        if (
            self.shard.dtype != torch.int32
            or tuple(self.digests.shape) != (count, 32)
            or self.digests.dtype != torch.uint8
            or tuple(self.kept.shape) != (count,)
            or self.kept.dtype != torch.bool
            or not 0 < self.teachers <= count
            or not 0 <= int(self.shard.min()) <= int(self.shard.max()) < self.teachers
            or (self.persons is not None) != (self.dealt_by == "person")
        ):
            raise DataError("these shards are damaged: their parts do not fit together")
        if several := self.in_several():
            whose = "" if self.persons is None else " (the same image under two persons)"
            raise DataError(
                f"{several} of {len(self.shard):,} records occur in more than one shard{whose}, so "
                "two teachers would learn from them and no epsilon would protect them; remove "
                "duplicate records first (train-teacher --drop-duplicates does)"
            )

    @classmethod
    def assign(
        cls,
        data: LabelledImages,
        *,
        teachers: int,
        seed: int,
        persons: Sequence[str] | None = None,
        drop_duplicates: bool = False,
    ) -> Shards:
        """Deal records to shards by what identifies them.

        Args:
            data: the training split. Records with names are dealt by name, others by position.
            teachers: the number of shards to make, at least two. If records are dealt by position,
                each shard gets at least two, and sizes differ by at most one; by name or person,
                sizes vary and some shards may be empty.
            seed: the seed of the deal.
            persons: the person that each record belongs to; all records of a person go to one
                shard.
            drop_duplicates: whether to keep only the first of equal records, chosen after all were
                dealt.

        Raises:
            DataError: there are more shards than half the records or persons, or the same record is
                in two shards.
        """
        units = len(data) if persons is None else len(set(persons))
        what = "records" if persons is None else "persons"
        if teachers < 2 or 2 * teachers > units:
            raise DataError(
                Setting("shards"),
                f" is {teachers}, but {units} {what} make 2 to {units // 2} shards of at least two "
                f"{what}",
            )
        dealt_by: DealtBy
        if persons is not None:
            dealt_by, shard = "person", deal_names(persons, teachers=teachers, seed=seed)
        elif data.names is not None:
            dealt_by, shard = "name", deal_names(data.names, teachers=teachers, seed=seed)
        else:
            dealt_by = "position"
            shard = deal_positions(len(data), teachers=teachers, seed=seed)
        kept = torch.ones(len(data), dtype=torch.bool)
        if drop_duplicates:
            kept[:] = False
            kept[distinct_rows(data.images)] = True
        key = secrets.token_bytes(32)
        return cls(
            shard=shard,
            digests=record_digests(data.images, key),
            key=key,
            teachers=teachers,
            kept=kept,
            dealt_by=dealt_by,
            persons=None if persons is None else units,
        )

    @property
    def records(self) -> int:
        """The number of records that train a teacher."""
        return int(self.kept.sum())

    def rows(self, *, with_dropped: bool = False) -> list[Tensor]:
        """The rows of the data in each shard, in order, optionally with dropped duplicates."""
        order = self.shard.argsort(stable=True)
        sizes = torch.bincount(self.shard, minlength=self.teachers).tolist()
        dealt = torch.split(order, sizes)
        return [rows if with_dropped else rows[self.kept[rows]] for rows in dealt]

    def in_several(self) -> int:
        """The number of records that have an equal record in another shard."""
        shard, digests = self.shard[self.kept].numpy(), self.digests[self.kept]
        which, found = _distinct(digests)
        first, last = np.full(found, self.teachers), np.full(found, -1)
        np.minimum.at(first, which, shard)
        np.maximum.at(last, which, shard)
        return int((first != last)[which].sum())

    def save(self, directory: Path) -> None:
        """Write ``shards.safetensors`` to the directory of the teachers."""
        tensors = {"shard": self.shard, "digests": self.digests, "kept": self.kept}
        facts = {"teachers": self.teachers, "dealt_by": self.dealt_by, "persons": self.persons}
        metadata = {name: str(value) for name, value in facts.items() if value is not None}
        try:
            save_tensors(
                directory / SHARDS_FILE, tensors, metadata={"key": self.key.hex(), **metadata}
            )
        except RunError as error:
            raise TeacherError(str(error)) from None

    @classmethod
    def load(cls, directory: Path) -> Shards:
        """Read ``shards.safetensors``, and check that no record is in two shards.

        Raises:
            TeacherError: the file is missing or damaged, or the shards are not disjoint.
        """
        path = directory / SHARDS_FILE
        try:
            with open_tensors(path) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return cls(**_parts(tensors, file.metadata() or {}))
        except DataError as error:
            raise TeacherError(f"{path}: {error}") from None
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise TeacherError(
                f"{path} cannot be read ({reason(error)}): without it nobody can check that the "
                "shards are disjoint; copy the whole directory again"
            ) from None


def _parts(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of :class:`Shards` in a file; those of earlier versions have fewer."""
    shard = tensors["shard"]
    if not shard.numel():
        raise ValueError("no records")
    persons, dealt_by = metadata.get("persons"), metadata.get("dealt_by")
    if dealt_by not in (None, *get_args(DealtBy)):
        raise ValueError(f"dealt by {dealt_by!r}")
    return {
        "shard": shard,
        "digests": tensors["digests"],
        "key": bytes.fromhex(metadata["key"]),
        "teachers": int(metadata["teachers"] if "teachers" in metadata else shard.max() + 1),
        "kept": tensors.get("kept", torch.ones(shard.shape, dtype=torch.bool)),
        "dealt_by": dealt_by,
        "persons": None if persons is None else int(persons),
    }


def record_digests(images: Tensor, key: bytes) -> Tensor:
    """Return keyed hashes of images, uint8 ``(N, 32)``, which ignore labels.

    >>> record_digests(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), b"k").unique(dim=0).shape
    torch.Size([1, 32])
    """
    # Every library hashes one record at a time; everything else is vectorised.
    hashes = [
        hashlib.blake2b(image.tobytes(), digest_size=32, key=key).digest()
        for image in images.numpy()
    ]
    return torch.frombuffer(bytearray(b"".join(hashes)), dtype=torch.uint8).view(-1, 32)


def distinct_rows(images: Tensor) -> Tensor:
    """Return the first row of each distinct image, in order.

    >>> distinct_rows(torch.tensor([3, 5, 3], dtype=torch.uint8).view(3, 1, 1, 1)).tolist()
    [0, 1]
    """
    which, found = _distinct(record_digests(images, b"distinct"))
    first = np.full(found, len(which))
    np.minimum.at(first, which, np.arange(len(which)))
    return torch.from_numpy(np.sort(first))


def _distinct(digests: Tensor) -> tuple[NDArray[np.intp], int]:
    """Return a number for each digest, equal for equal digests, and the number of distinct ones."""
    as_items = digests.contiguous().numpy().view("V32").ravel()
    values, which = np.unique(as_items, return_inverse=True)
    return which, len(values)

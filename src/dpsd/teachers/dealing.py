"""Assigning records to shards by what identifies them and nothing else.

Neither the content of a record nor any other record has an influence here. So a record that is
replaced in its place stays in its shard, and no other record moves.

>>> deal_positions(6, teachers=3, seed=0).bincount().tolist()
[2, 2, 2]
>>> deal_names(["cat/1.png", "dog/1.png"], teachers=3, seed=0)[1:].equal(
...     deal_names(["cat/7.png", "dog/1.png"], teachers=3, seed=0)[1:])
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

DealtBy: TypeAlias = Literal["position", "name", "person"]
"""What identifies a record: its row in an array, its file's path, or the person it belongs to."""


def deal_positions(records: int, *, teachers: int, seed: int) -> Tensor:
    """Draw a shard for each position, int32 ``(records,)``; sizes differ by at most one."""
    order = torch.randperm(records, generator=torch.Generator().manual_seed(seed))
    shard = torch.empty(records, dtype=torch.int32)
    shard[order] = torch.arange(records, dtype=torch.int32) % teachers
    return shard


def deal_names(names: Iterable[str], *, teachers: int, seed: int) -> Tensor:
    """Return a shard for each name, int32 ``(N,)``: a hash of that name alone, keyed by the seed.

    Equal names share a shard. Sizes vary as if records were thrown into shards at random, and a
    shard may be empty.
    """
    key = hashlib.sha256(f"dpsd shards, seed {seed}".encode()).digest()
    hashes = (
        hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16, key=key).digest()
        for name in names
    )
    return torch.tensor(
        [int.from_bytes(digest, "big") % teachers for digest in hashes], dtype=torch.int32
    )

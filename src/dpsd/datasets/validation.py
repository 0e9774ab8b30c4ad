"""Holding out a part of the training records, on which choices are made, from teachers' training.

Whether a record is held out depends on what *identifies* it and on nothing else: on the person to
whom it belongs if persons are known, else on its file's path below the folder of its class, else on
its row. No content, no label and no other record has an influence, so a record that is replaced in
its place stays on its side, and no other record moves. The rule has a fixed salt of its own: it is
the same for everybody, for ever, and independent of how the remaining records are dealt to shards.
A larger share contains a smaller one.

>>> import torch
>>> from dpsd.datasets.labelled import LabelledImages
>>> data = LabelledImages(
...     images=torch.zeros(1000, 1, 8, 8, dtype=torch.uint8),
...     labels=torch.zeros(1000, dtype=torch.int64),
...     class_names=("cat", "dog"), name="own.npz", split="train",
... )
>>> training, validation = hold_out(data, 0.1)
>>> len(training), len(validation), validation.split
(890, 110, 'validation')
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from dpsd.datasets.labelled import LabelledImages
from dpsd.errors import ConfigError, Setting

#: The salt is public and never changes, or old teachers would be measured on what they learned.
_SALT = b"dpsd validation"


def check_share(share: float) -> float:
    """Return a share of the training records that can be held out.

    Raises:
        ConfigError: the share is below 0, or not below 1.

    >>> check_share(1.0)
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: validation_share is 1.0; it must be at least 0 and below 1, as in 0.1
    """
    if not 0 <= share < 1:
        raise ConfigError(
            Setting("validation_share"),
            f" is {share}; it must be at least 0 and below 1, as in 0.1",
        )
    return share


def hold_out(data: LabelledImages, share: float) -> tuple[LabelledImages, LabelledImages]:
    """Split training records into those for training and those for validation.

    Args:
        data: the training split.
        share: about the share of records to hold out, or of persons if persons are known.

    Raises:
        ConfigError: the share is not between 0 and 1, or one of the two parts would be empty.
    """
    check_share(share)
    if data.persons is not None:
        places = _places_of_names(data.persons)
    elif data.names is not None:
        places = _places_of_names([name.partition("/")[2] for name in data.names])
    else:
        places = _places_of_rows(len(data))
    is_held_out = torch.from_numpy(places < share)
    count = int(is_held_out.sum())
    if not 0 < count < len(data):
        raise ConfigError(
            Setting("validation_share"),
            f" {share:g} of the {len(data):,} training records of data set {data.name!r} leaves "
            f"{count:,} for validation and {len(data) - count:,} for training; choose another "
            "share, as each needs at least one",
        )
    training, validation = (
        replace(data.subset(rows.nonzero().flatten()), split=split, validation_share=share)
        for rows, split in ((~is_held_out, "train"), (is_held_out, "validation"))
    )
    return training, validation


def held_out_rows(count: int, share: float) -> int:
    """Return how many of ``count`` records without names are held out.

    >>> held_out_rows(60_000, 0.1)
    6046
    """
    return int((_places_of_rows(count) < share).sum())


def _places_of_rows(count: int) -> NDArray[np.float64]:
    """Return a fixed pseudorandom place in [0, 1) for each row.

    Philox has a stated stream, so a row's place is the same everywhere and for any count.
    """
    key = int.from_bytes(hashlib.sha256(_SALT).digest()[:16], "big")
    return _as_places(np.random.Philox(key=key).random_raw(count))


def _places_of_names(names: Sequence[str]) -> NDArray[np.float64]:
    """Return a place in [0, 1) for each name: a hash of that name alone."""
    hashes = (
        hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8, key=_SALT).digest()
        for name in names
    )
    return _as_places(np.frombuffer(b"".join(hashes), dtype=">u8"))


def _as_places(numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
    # A double holds 53 bits, so no place is rounded up to 1.
    places: NDArray[np.float64] = (numbers >> 11) / 2.0**53
    return places

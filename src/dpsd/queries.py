"""Queries on their way to the teacher: on disk as they are made, and read back as they are asked.

A round may ask millions of queries, or large ones, and all of them are made before the first is
asked: their number is written down first. So their pixels wait in a :class:`Spool`, a nameless file
that vanishes with the process, and only small columns are held in memory.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder, Spool(Path(folder), (1, 2, 2)) as spool:
...     spool.append(torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2))
...     len(spool), spool[torch.tensor([2, 0])].flatten().tolist()
(3, [8, 9, 10, 11, 0, 1, 2, 3])
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from dpsd.errors import RunError
from dpsd.files import UNFINISHED, read_rows, write_block, writing

#: Bytes of images that are read at once.
_BLOCK = 1 << 24


class Spool:
    """Images in a file without a name, which no crash can leave behind.

    Args:
        folder: where there is space; must exist.
        shape: of an image, ``(C, H, W)``.

    Raises:
        WriteError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self._folder = folder
        self._count = 0
        with writing(folder):
            # A system without nameless files has one with a name for a moment.
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 - closed when the spool is
                dir=folder, prefix=".spool", suffix=UNFINISHED
            )

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # a full disk has been told of, and nothing here is kept
            self._file.close()

    def __len__(self) -> int:
        return self._count

    def append(self, images: Tensor) -> None:
        """Add images, uint8 ``(N, C, H, W)``.

        Raises:
            WriteError: the disk is full.
        """
        with writing(self._folder):
            self._file.seek(0, os.SEEK_END)
            write_block(self._file, images)
            self._file.flush()
        self._count += len(images)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The images in these rows, int64 ``(n,)`` from 0, in that order: uint8 ``(n, C, H, W)``.

        Raises:
            RunError: the file is shorter than what was written to it, or cannot be read.
        """
        try:
            return read_rows(self._file, rows, shape=self.shape)
        except OSError as error:
            raise RunError(f"queries in {self._folder} cannot be read: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Queries to ask, and what has to be known about each.

    Args:
        spool: holds their pixels.
        rows: where in the spool, int64 ``(N,)``, ascending.
        prior: float16 ``(N, K)``, as the mechanism will see it.
        predicted: the student's class for each, int32 ``(N,)``; in the first round a guess.
        source: which source made each, uint8 ``(N,)``; an index into the run's sources.
    """

    spool: Spool
    rows: Tensor
    prior: Tensor
    predicted: Tensor
    source: Tensor

    @classmethod
    def empty(cls, spool: Spool, count: int, *, classes: int) -> Queries:
        """Columns to fill in for ``count`` queries and so many classes."""
        return cls(
            spool=spool,
            rows=torch.empty(count, dtype=torch.int64),
            prior=torch.empty((count, classes), dtype=torch.float16),
            predicted=torch.empty(count, dtype=torch.int32),
            source=torch.empty(count, dtype=torch.uint8),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, kept: Tensor | slice) -> Queries:
        """Some of them, by a mask ``(N,)``, row numbers or a slice; no pixel is read or moved."""
        columns = ("rows", "prior", "predicted", "source")
        return replace(self, **{name: getattr(self, name)[kept] for name in columns})

    def blocks(self) -> Iterator[Tensor]:
        """Their pixels, uint8 ``(n, C, H, W)``, a bounded number at a time."""
        size = max(1, _BLOCK // math.prod(self.spool.shape))
        return (self.spool[rows] for rows in torch.split(self.rows, size))

"""Queries on their way to the teacher: stored on disk when made, and read back when asked.

A round may ask millions of queries, or large ones, and all of them are made before the first is
asked, as their number is recorded first. So their pixels are stored in a :class:`Spool`, an unnamed
file that vanishes with the process, and only small columns are kept in memory.

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
from typing import Any

import torch
from torch import Tensor

from dpsd.errors import RunError, reason
from dpsd.storage.files import UNFINISHED, read_rows, write_block, writing

#: The bytes of images that are read at once.
_BLOCK = 1 << 24

#: The columns of queries.
_COLUMNS = ("rows", "prior", "predicted", "source", "digest")


class Spool:
    """Images in an unnamed temporary file, which no crash can leave behind.

    Args:
        folder: an existing folder with enough space.
        shape: the shape of an image, ``(C, H, W)``.

    Raises:
        WriteError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self._folder = folder
        self._count = 0
        with writing(folder):
            # Systems without unnamed files give the file a name for a moment.
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
        with suppress(OSError):  # a full disk was reported before, and nothing here is kept
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
        """Return the images in some rows, int64 ``(n,)`` from 0, in order, uint8 ``(n, C, H, W)``.

        Raises:
            RunError: the file is shorter than what was written to it, or cannot be read.
        """
        try:
            return read_rows(self._file, rows, shape=self.shape)
        except OSError as error:
            raise RunError(f"queries in {self._folder} cannot be read: {reason(error)}") from None


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Queries to ask, with everything that asking them needs.

    Args:
        spool: the spool that holds their pixels.
        rows: the row of each query in the spool, int64 ``(N,)``, ascending.
        prior: the priors, float16 ``(N, K)``, as the mechanism will see them.
        predicted: the student's class for each, int32 ``(N,)``; in the first round, a guess.
        source: the source of each, uint8 ``(N,)``, as an index into the run's sources.
        digest: the digest of each image, int64 ``(N,)``; see :mod:`dpsd.synthesis.distinct`.
    """

    spool: Spool
    rows: Tensor
    prior: Tensor
    predicted: Tensor
    source: Tensor
    digest: Tensor

    @classmethod
    def empty(cls, spool: Spool, count: int, *, classes: int) -> Queries:
        """Return empty columns for ``count`` queries and ``classes`` classes, to be filled in."""
        return cls(
            spool=spool,
            rows=torch.empty(count, dtype=torch.int64),
            prior=torch.empty((count, classes), dtype=torch.float16),
            predicted=torch.empty(count, dtype=torch.int32),
            source=torch.empty(count, dtype=torch.uint8),
            digest=torch.empty(count, dtype=torch.int64),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, kept: Tensor | slice) -> Queries:
        """Return some queries, by a mask ``(N,)``, row numbers or a slice; no pixel is read."""
        return replace(self, **{name: getattr(self, name)[kept] for name in _COLUMNS})

    def joined(self, others: Queries) -> Queries:
        """Return these queries and then others, whose images come later in the same spool."""
        both: dict[str, Any] = {
            name: torch.cat([getattr(self, name), getattr(others, name)]) for name in _COLUMNS
        }
        return replace(self, **both)

    def blocks(self) -> Iterator[Tensor]:
        """Yield the pixels of the queries, uint8 ``(n, C, H, W)``, a bounded number at a time."""
        size = max(1, _BLOCK // math.prod(self.spool.shape))
        return (self.spool[rows] for rows in torch.split(self.rows, size))


def instructive(doubt: Tensor, predicted: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Draw the rows of ``count`` queries without replacement; most say something new.

    The chances rise with the student's doubt, and with the rarity of the class that it predicts:
    nearly all images of some sources are of one class for a teacher, which is then learned at the
    expense of all others.

    Args:
        doubt: the student's doubt about each query, at least 0, ``(N,)``.
        predicted: the class that it predicts for each, ``(N,)``.
        count: the number of rows, at most N.
        random: the source of all randomness here.

    Returns:
        The rows, int64 ``(count,)``, ascending.

    Source: Efraimidis & Spirakis, "Weighted random sampling with a reservoir", 2006.
    """
    shares = torch.bincount(predicted.long()) / len(predicted)
    rarity = 1 / (shares[predicted.long()] + 0.01)
    # The most doubtful rows alone would be much alike, so a sample includes others too.
    keys = torch.rand(len(doubt), generator=random).log() / ((doubt + 0.05) * rarity)
    return torch.sort(keys.topk(count).indices)[0]


def flat_prior(prior: Tensor, random: torch.Generator) -> Tensor:
    """Return a prior that favours no class, but for slight noise that breaks ties fairly."""
    uneven = 1 + 0.02 * torch.rand(prior.shape, generator=random)
    return uneven / uneven.sum(-1, keepdim=True)


def scarcity(found: int, *, wanted: int, made: int, repeated: int) -> str | None:
    """Say why a round asks fewer queries than wanted, and what helps; ``None`` if nothing does.

    Args:
        found: the number of queries to ask.
        wanted: the number that was wanted.
        made: the number of images that were made for the round.
        repeated: the number of those that had been asked before, or made before in this round.

    >>> scarcity(90, wanted=100, made=400, repeated=0)  # the student is sure of the others
    >>> scarcity(90, wanted=100, made=400, repeated=310)
    'only 90 of 100 queries are asked: of 400 images that were made, 310 are not new, and ...'
    """
    mend = (
        "an image is asked once in a run: start a new run with more sources (noise, strokes, "
        "silhouettes, glyphs, leaves, fractals, crops, networks, mixed), a larger folder, fewer "
        "queries or fewer rounds"
    )
    if found == 0 and repeated == made:
        return f"all {made:,} images that were made had been asked before, and {mend}"
    if found == 0:
        return (
            "no query needs an answer, as the student is sure of all; raise exploration or "
            "prior_temperature, or ask for fewer rounds"
        )
    if repeated >= wanted - found > 0:
        return (
            f"only {found:,} of {wanted:,} queries are asked: of {made:,} images that were made, "
            f"{repeated:,} are not new, and {mend}"
        )
    return None

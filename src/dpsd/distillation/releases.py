"""The releases of all rounds, and how the student reads them again.

A round's queries, the priors they were asked with, and the mechanism's releases are all public: the
queries come from public sources and the generator, the releases from the mechanism. Queries are
stored as bytes and priors in half precision, and both are fixed *before* the mechanism sees them,
so what is stored is exactly what was used. Stored rounds are memory-mapped and occasionally
remapped while they are read, and queries are read when they are needed, so a long history takes up
address space but hardly any memory. Nor is a whole round in memory when it is written, as
:func:`save_releases` takes the queries a block at a time.

>>> import torch
>>> pixels = torch.zeros((6, 1, 8, 8), dtype=torch.uint8)
>>> flat = torch.full((6, 10), 0.1, dtype=torch.float16)
>>> round_one = RoundReleases(index=1, queries=pixels, prior=flat, predicted=torch.zeros(6),
...                           source=torch.zeros(6), release=torch.arange(6))
>>> replay = Replay([round_one])
>>> [len(batch.release) for batch in replay.batches(torch.arange(6), batch_size=4)]
[4, 2]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from dpsd.errors import RunError, reason
from dpsd.storage.files import Column, column_offset, load_tensors, read_rows, stream_tensors
from dpsd.synthesis.distinct import AskedImages, image_digests

#: The number of batches after which the files are remapped, to free the memory of what was read.
_BATCHES_HELD = 200

#: The bytes of queries that are read at once.
_BLOCK = 1 << 24

#: The number that marks the rows of the probe among the sources of the first round's file.
PROBE = 255

#: The number of exact answers that tell the shares of the classes as well as if all were equal.
_WELL_KNOWN = 500

#: The type and the number of dimensions of a column of digests.
_DIGESTS = (torch.int64, 1)


@dataclass(frozen=True, kw_only=True)
class RoundReleases:
    """Everything that one round of asking made public.

    Args:
        index: the number of the round, from 1.
        queries: the queries, uint8 ``(N, C, H, W)``.
        prior: the priors, float16 ``(N, K)``, as the mechanism saw them.
        predicted: the student's class for each query before it learned from the answers, ``(N,)``;
            in the first round, a guess.
        source: the source of each query, ``(N,)``, as an index into the run's sources.
        release: the mechanism's releases, ``(N, …)``; those of a panel are ``(N, M, K)``, with a
            column for each client that had joined by then.
        asked: the digests of all images that the teachers were asked about, int64 ``(M,)``: those
            of the queries, and of others that the mechanism declined to answer after a test that
            was paid for. ``None`` in files of earlier versions, which did not store them.
        path: the file that the round is mapped from, if any.
        offset: the position in the file, in bytes, at which the queries begin.
        probe: the releases of the probe, which were asked together with the first round's queries
            and come after them in its file; they have no place among those to learn from.
    """

    index: int
    queries: Tensor
    prior: Tensor
    predicted: Tensor
    source: Tensor
    release: Tensor
    asked: Tensor | None = None
    path: Path | None = None
    offset: int = 0
    probe: RoundReleases | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def images(self, rows: Tensor) -> Tensor:
        """Return some queries by row numbers, int64 ``(n,)``, as uint8 ``(n, C, H, W)``.

        Raises:
            RunError: the file was cut off or cannot be read.
        """
        if self.path is None:
            return self.queries[rows]
        # Read instead of mapped, as scattered reads through a mapping touch every block of the
        # file, and all of it would count as this process's memory.
        shape = self.queries.shape[1:]
        try:
            with self.path.open("rb", buffering=0) as file:
                return read_rows(file, rows, shape=shape, offset=self.offset)
        except OSError as error:
            raise RunError(f"releases {self.path} cannot be read: {reason(error)}") from None

    def by_source(self, names: Sequence[str]) -> dict[str, int]:
        """Return the number of queries from each source; ``names`` are in order of the sources."""
        counts = torch.bincount(self.source.long(), minlength=len(names)).tolist()
        return dict(zip(names, counts, strict=True))

    def digests(self) -> Tensor:
        """Compute the digests of the queries from their pixels, int64 ``(N,)``.

        Raises:
            RunError: the file was cut off or cannot be read.
        """
        size = max(1, _BLOCK // max(1, self.queries[:1].numel()))
        blocks = torch.split(torch.arange(len(self)), size)
        return torch.cat([image_digests(self.images(rows)) for rows in blocks])

    @classmethod
    def load(cls, path: Path, *, index: int) -> RoundReleases:
        """Map a saved round into memory.

        Raises:
            RunError: the file is damaged.
        """
        try:
            offset = column_offset(path, "queries")
            columns: dict[str, Any] = load_tensors(path)
            loaded = cls(index=index, path=path, offset=offset, **columns)._without_probe()
            if loaded.asked is not None and (loaded.asked.dtype, loaded.asked.ndim) != _DIGESTS:
                raise ValueError("asked does not hold digests")
            return loaded
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise RunError(f"releases {path} cannot be read: {reason(error)}") from None

    def _without_probe(self) -> RoundReleases:
        """Return the releases of a file with those of the probe set apart."""
        count = int((self.source == PROBE).sum())
        if not count:
            return self
        first = len(self) - count
        if not (self.source[first:] == PROBE).all():
            raise ValueError("the probe does not come after the queries")
        probe = replace(
            self._rows(slice(first, None)),
            asked=None,
            offset=self.offset + first * self.queries[:1].numel(),
        )
        return replace(self._rows(slice(first)), probe=probe)

    def _rows(self, rows: slice) -> RoundReleases:
        columns = ("queries", "prior", "predicted", "source", "release")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})


def save_releases(
    path: Path,
    *,
    index: int,
    queries: Column,
    prior: Tensor,
    predicted: Tensor,
    source: Tensor,
    release: Tensor,
    asked: Tensor,
) -> None:
    """Write a round to a safetensors file, completely or not at all.

    Args:
        path: the path of the file.
        index: the number of the round, from 1.
        queries: the queries in blocks, uint8 ``(N, C, H, W)``.
        prior: the priors, as in :class:`RoundReleases`, like the other columns.
        predicted: the student's classes, ``(N,)``.
        source: the sources, ``(N,)``.
        release: the releases, ``(N, …)``.
        asked: the digests of all images asked, int64 ``(M,)``.

    Raises:
        WriteError: the disk is full, or the folder cannot be written to.
    """
    small = {
        "prior": prior,
        "predicted": predicted,
        "source": source,
        "release": release,
        "asked": asked,
    }
    columns = {name: Column.of(tensor) for name, tensor in small.items()}
    stream_tensors(path, {"queries": queries, **columns}, metadata={"round": str(index)})


def check_asked_once(releases: RoundReleases, before: AskedImages, *, answers: int) -> None:
    """Make sure that a round asked every image only once, and none that was asked before.

    Args:
        releases: the releases of the round.
        before: the images of earlier rounds; those of this round are added.
        answers: the number of answers that were reserved for the round.

    Raises:
        RunError: an image was asked twice, the round does not say what it asked, or it holds a
            release for an image that it does not name.
    """
    asked, own = releases.asked, AskedImages()
    parts = [part for part in (releases, releases.probe) if part is not None]
    queries = torch.cat([part.digests() for part in parts])
    if asked is None:
        raise RunError(f"{releases.path} does not say which images were asked")
    if len(asked) != answers:
        raise RunError(
            f"{releases.path} names {len(asked):,} images as asked, but {answers:,} answers were "
            "reserved"
        )
    if not (before.fresh(asked).all() and own.fresh(queries).all()):
        raise RunError(
            f"{releases.path}: an image was asked more than once, but the run says that none was"
        )
    own.add(asked)
    if not own.holds(queries).all():
        raise RunError(f"{releases.path} holds an image that it does not name as asked")
    before.add(asked)


@dataclass(frozen=True)
class Batch:
    """A batch of releases, in no particular order.

    Args:
        queries: the queries, uint8 ``(N, C, H, W)``.
        prior: the priors, float16 ``(N, K)``.
        release: the mechanism's releases, ``(N, …)``.
        shares: the share of each class among the answers of the round of each row, ``(N, K)``,
            which is nearer to equal shares while few answers are known.
    """

    queries: Tensor
    prior: Tensor
    release: Tensor
    shares: Tensor


class Replay:
    """All releases so far, as one sequence of rows."""

    def __init__(self, rounds: Sequence[RoundReleases] = ()) -> None:
        self.rounds: list[RoundReleases] = []
        self._shares: list[Tensor] = []
        self._worth = 0.0
        for releases in rounds:
            self.append(releases)

    def __len__(self) -> int:
        return sum(map(len, self.rounds))

    def append(
        self,
        releases: RoundReleases,
        *,
        shares: Sequence[float] | None = None,
        worth: float = math.inf,
    ) -> None:
        """Add a round.

        Args:
            releases: the releases of the round.
            shares: the shares of the classes among its answers; equal if not given.
            worth: the number of exact answers that say as much as its releases.
        """
        classes = releases.prior.shape[-1]
        self._worth += worth
        self.rounds.append(releases)
        self._shares.append(torch.tensor([shares or [1 / classes] * classes]))

    def batches(self, rows: Tensor, *, batch_size: int) -> Iterator[Batch]:
        """Yield the given rows in batches, in their order."""
        ends = torch.tensor([len(part) for part in self.rounds]).cumsum(0)
        # What is known of a rare class grows with the answers. Its logit is mostly noise before,
        # and a full correction for its rarity would make it the one that is always predicted.
        known = 1 / (1 + _WELL_KNOWN / max(self._worth, 1.0))
        shares_of = [
            torch.lerp(torch.full_like(found, 1 / found.shape[-1]), found, known)
            for found in self._shares
        ]
        for count, chosen in enumerate(torch.split(rows, batch_size), start=1):
            if count % _BATCHES_HELD == 0:
                self._map_anew()
            which = torch.bucketize(chosen, ends, right=True)
            parts = []
            for number, part in enumerate(self.rounds):
                inside = chosen[which == number] - (ends[number] - len(part))
                if len(inside):
                    shares = shares_of[number].expand(len(inside), -1)
                    columns = (part.prior[inside], part.release[inside], shares)
                    parts.append((part.images(inside), *columns))
            queries, prior, release, of_class = zip(*parts, strict=True)
            yield Batch(torch.cat(queries), torch.cat(prior), aligned(release), torch.cat(of_class))

    def _map_anew(self) -> None:
        """Remap the files, to free pages that the system counts as this process's memory."""
        for number, part in enumerate(self.rounds):
            if part.path is not None:
                self.rounds[number] = RoundReleases.load(part.path, index=part.index)


def aligned(releases: Sequence[Tensor]) -> Tensor:
    """Join the releases of rounds; clients that joined a panel later did not answer before."""
    if releases[0].ndim < 3:
        return torch.cat([*releases])
    members = max(part.shape[1] for part in releases)
    return torch.cat([F.pad(part, (0, 0, 0, members - part.shape[1])) for part in releases])

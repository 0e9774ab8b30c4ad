"""Comparing samples with training and held-out records in one space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpsd.attacks.copies.records import Records, reduced
from dpsd.attacks.copies.spaces import Embedding, Nearest, nearest
from dpsd.attacks.copies.statistics import (
    LEVEL,
    NearCopies,
    Nearer,
    Numbers,
    Rows,
    ThreeSample,
    near_copies,
    nearer,
    three_sample,
)

#: Images that are embedded between two reports of progress.
_AT_ONCE = 2_048


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What samples are near to.

    Args:
        near: the near-copies among them.
        three: the three-sample test.
        nearer: the share that is nearer to training than to held-out records.
        training: the nearest training records.
        held_out: the nearest held-out records.
    """

    near: NearCopies
    three: ThreeSample
    nearer: Nearer
    training: Nearest
    held_out: Nearest

    def alarms(self, level: float = LEVEL) -> tuple[bool, bool, bool]:
        """Return whether each of the three is beyond what chance would do, as its p says."""
        return self.near.p < level, self.three.p < level, self.nearer.p < level


class Space:
    """A space in which images are near each other, with all records in it.

    Args:
        embed: the function to vectors.
        records: the records in their uses.
        rate: the share of held-out records that may pass for near-copies.
        neighbours: the number of nearest records over which a distance is taken relatively.
        advance: what is told of the images that are embedded, and then of those that are compared.
    """

    def __init__(
        self,
        embed: Embedding,
        records: Records,
        *,
        rate: float,
        neighbours: int,
        advance: Callable[[int], None],
    ) -> None:
        self._embed, self._rate, self._neighbours = embed, rate, neighbours
        self._advance = advance
        self._labels = records.members.labels
        self._members = self._embedded(records.members.images)
        self._paired = self._members[records.paired]
        self._reference = self._embedded(records.reference.images)
        self._calibration = self._among_members(self._reference)

    def compare(self, images: Tensor) -> Comparison:
        """Compare images, uint8 ``(N, C, H, W)``, with the records."""
        samples = self._embedded(images)
        training = self._among_members(samples)
        paired = nearest(samples, self._paired)
        held_out = nearest(samples, self._reference)
        return Comparison(
            near=near_copies(
                _numbers(training.ratios), _numbers(self._calibration.ratios), rate=self._rate
            ),
            three=three_sample(
                _numbers(training.distances),
                _numbers(self._calibration.distances),
                cells=(self._cells(training), self._cells(self._calibration)),
            ),
            nearer=nearer(
                _numbers(paired.distances),
                _numbers(held_out.distances),
                nearest_training=_rows(paired.rows),
                nearest_held_out=_rows(held_out.rows),
            ),
            training=training,
            held_out=held_out,
        )

    def _embedded(self, images: Tensor) -> Tensor:
        parts = []
        for part in torch.split(images, _AT_ONCE):
            parts.append(self._embed(reduced(part)))
            self._advance(len(part))
        return torch.cat(parts)

    def _among_members(self, vectors: Tensor) -> Nearest:
        return nearest(vectors, self._members, neighbours=self._neighbours, advance=self._advance)

    def _cells(self, found: Nearest) -> Rows:
        """The class of the nearest training record."""
        return _rows(self._labels[found.rows])


def _numbers(tensor: Tensor) -> Numbers:
    return np.asarray(tensor.double().numpy())


def _rows(tensor: Tensor) -> Rows:
    return np.asarray(tensor.to(torch.int64).numpy())

"""Which records are compared with which: training and held-out ones, by class, without duplicates.

Images are compared at 28 pixels a side or fewer, as distances of larger ones are ruled by details
that nobody would call a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError
from dpsd.images.fitting import fitted
from dpsd.streams import stream

#: The largest side, in pixels, at which images are compared.
SIDE = 28
#: The share of held-out records that is taken for samples, in which nothing is to be found.
_NULL = 0.25
#: The fewest held-out records of a use, and the fewest training records.
_FEWEST = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """Training and held-out records in their uses, without duplicates within or between them.

    Args:
        members: the training records among which copies are searched for.
        paired: the rows of those training records, int64 ``(R,)``, that ``reference`` is as many
            as, class by class.
        reference: the held-out records that samples may be near to without being copies of them.
        null: the held-out records that are examined as if they were samples.
    """

    members: LabelledImages
    paired: Tensor
    reference: LabelledImages
    null: LabelledImages

    @classmethod
    def of(
        cls,
        members: LabelledImages,
        others: LabelledImages,
        *,
        most_members: int,
        most_others: int,
        seed: int,
    ) -> Records:
        """Deal training and held-out records to their uses.

        Args:
            members: the records that the teacher was trained on.
            others: records that it was not trained on.
            most_members: the most training records to search; a random part of more is searched.
            most_others: the most held-out records to use.
            seed: the seed of all choices.

        Raises:
            ConfigError: too few records are left without duplicates.
        """
        random = stream(seed, 0, "copies: records")
        first, known = _distinct(members, others)
        members = _part(members.subset(first), most_members, random)
        others = _part(others.subset(known), most_others, random)
        classes = members.num_classes
        held, trained = _ranks(others.labels, random), _ranks(members.labels, random)
        counts = torch.bincount(others.labels, minlength=classes)
        nulls = (_NULL * counts).long()
        each = (counts - nulls).minimum(torch.bincount(members.labels, minlength=classes))
        is_null = held < nulls[others.labels]
        is_reference = ~is_null & (held < (nulls + each)[others.labels])
        dealt = cls(
            members=members,
            paired=(trained < each[members.labels]).nonzero().flatten(),
            reference=others.subset(is_reference.nonzero().flatten()),
            null=others.subset(is_null.nonzero().flatten()),
        )
        if min(len(dealt.paired), len(dealt.null)) < _FEWEST:
            lacking = "held-out records" if len(dealt.null) < _FEWEST else "training records"
            raise ConfigError(
                f"data set {members.name!r} has too few records to tell copies from likenesses. Of "
                f"{len(others):,} held-out ones that are no duplicates, {len(dealt.null):,} can be "
                "examined as if they were samples (a quarter of each class, rounded down), and "
                f"{len(dealt.paired):,} can be paired with one of {len(members):,} training "
                f"records of their class. Both must be at least {_FEWEST}: give more {lacking}"
            )
        return dealt


def reduced(images: Tensor) -> Tensor:
    """Return images, uint8 ``(N, C, H, W)``, scaled down to 28 pixels a side unless smaller.

    >>> reduced(torch.zeros(2, 3, 64, 32, dtype=torch.uint8)).shape
    torch.Size([2, 3, 28, 14])
    """
    channels, height, width = images.shape[1:]
    scale = min(1.0, SIDE / max(height, width))
    return fitted(images, (channels, round(scale * height), round(scale * width)))


def _distinct(members: LabelledImages, others: LabelledImages) -> tuple[Tensor, Tensor]:
    """Return the rows of the first of equal members, and of others that equal none before them."""
    images = torch.cat([reduced(members.images), reduced(others.images)]).flatten(1).numpy()
    whole = np.ascontiguousarray(images).view(f"V{images.shape[1]}").ravel()
    rows = torch.from_numpy(np.sort(np.unique(whole, return_index=True)[1]))
    return rows[rows < len(members)], rows[rows >= len(members)] - len(members)


def _part(data: LabelledImages, most: int, random: torch.Generator) -> LabelledImages:
    return data.subset(torch.randperm(len(data), generator=random)[:most].sort().values)


def _ranks(labels: Tensor, random: torch.Generator) -> Tensor:
    """Return the place of each record in a random order of its class, from 0."""
    shuffled = torch.randperm(len(labels), generator=random)
    order = shuffled[labels[shuffled].argsort(stable=True)]
    starts = torch.bincount(labels).cumsum(0) - torch.bincount(labels)
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - starts[labels[order]]
    return ranks

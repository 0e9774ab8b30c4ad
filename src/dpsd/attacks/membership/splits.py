"""Which records each shadow teacher is trained on.

With canaries, some records get a wrong label, so that a model can only know it by having seen it,
and each is in a random half of the trainings; all other records are always in. Without canaries,
every record is in a random half. Shadows come in pairs that are trained on complementary halves.

>>> from dpsd.datasets import load_dataset
>>> split = Split.of(load_dataset("digits", "train"), shadows=4, records=300, canaries=20, seed=0)
>>> [len(split.training(shadow)) + len(split.training(shadow + 1)) for shadow in (0, 2)]
[580, 580]

Source: Aerni, Zhang & Tramèr, "Evaluations of Machine Learning Privacy Defenses are Misleading",
CCS 2024, for canaries with all other records always in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpsd.attacks.membership.scores import Flags
from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError, Setting
from dpsd.streams import stream


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The records of all shadows, and which of them each is trained on.

    Args:
        pool: all records, with the labels that they are trained and attacked with.
        scored: the rows of ``pool`` whose membership is guessed, int64 ``(N,)``.
        is_in: which of these each shadow is trained on, bool ``(shadows, N)``.
    """

    pool: LabelledImages
    scored: Tensor
    is_in: Tensor

    @classmethod
    def of(
        cls,
        members: LabelledImages,
        *,
        shadows: int,
        records: int,
        canaries: int | None,
        seed: int,
    ) -> Split:
        """Draw a split.

        Args:
            members: the private training records.
            shadows: the number of shadows, an even one.
            records: the most records to use, drawn at random.
            canaries: how many of them get a wrong label, at most half; ``None`` to guess about all
                records, with the labels that they have.
            seed: the seed of all draws.

        Raises:
            ConfigError: there is no canary.
        """
        pool = _drawn(members, records, seed=seed)
        generator = stream(seed, 0, "membership split")
        scored = torch.arange(len(pool))
        if canaries is not None:
            count = _at_most(canaries, len(pool) // 2)
            scored = torch.randperm(len(pool), generator=generator)[:count].sort().values
            pool = replace(pool, labels=_mislabelled(pool, scored, generator))
        # Exact halves: RMIA compares records of one model, half of which are then its members.
        drawn = torch.rand(shadows // 2, len(scored), generator=generator).argsort(1)
        halves = drawn.argsort(1) < len(scored) // 2
        is_in = torch.stack([halves, ~halves], dim=1).flatten(0, 1)
        return cls(pool=pool, scored=scored, is_in=is_in)

    @property
    def records(self) -> LabelledImages:
        """The records whose membership is guessed."""
        return self.pool.subset(self.scored)

    @property
    def membership(self) -> Flags:
        """Which records each shadow was trained on, bool ``(shadows, N)``."""
        return self.is_in.numpy()

    def training(self, shadow: int) -> LabelledImages:
        """Return the records that a shadow is trained on, in the order of the pool."""
        chosen = torch.ones(len(self.pool), dtype=torch.bool)
        chosen[self.scored] = self.is_in[shadow]
        return self.pool.subset(chosen.nonzero().flatten())


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedCanaries:
    """Records of which some come in pairs, one of two being in the training data at one place.

    Args:
        training: the training data, in which one of each pair lies.
        first: the first record of each pair.
        second: the second record of each pair.
        is_first: whether the first is in the training data, bool ``(pairs,)``.
    """

    training: LabelledImages
    first: LabelledImages
    second: LabelledImages
    is_first: Tensor

    @classmethod
    def of(cls, members: LabelledImages, *, records: int, pairs: int, seed: int) -> PairedCanaries:
        """Draw pairs of mislabelled records, and which of the two is in, by a fair coin each.

        Args:
            members: the private training records.
            records: the most records to use, drawn at random.
            pairs: the number of pairs, at most a quarter of the records.
            seed: the seed of all draws.

        Raises:
            ConfigError: there is no pair.
        """
        pool = _drawn(members, records, seed=seed)
        pairs = _at_most(pairs, len(pool) // 4)
        generator = stream(seed, 0, "paired canaries")
        order = torch.randperm(len(pool), generator=generator)
        places, others = order[:pairs], order[pairs : 2 * pairs]
        pool = replace(pool, labels=_mislabelled(pool, order[: 2 * pairs], generator))
        first, second = pool.subset(places), pool.subset(others)
        is_first = torch.rand(pairs, generator=generator) < 0.5
        images, labels = pool.images.clone(), pool.labels.clone()
        images[places[~is_first]] = second.images[~is_first]
        labels[places[~is_first]] = second.labels[~is_first]
        # A record is replaced at its place, with the name and the person of that place.
        kept = torch.ones(len(pool), dtype=torch.bool)
        kept[others] = False
        training = replace(pool, images=images, labels=labels).subset(kept.nonzero().flatten())
        return cls(training=training, first=first, second=second, is_first=is_first)


def _drawn(members: LabelledImages, records: int, *, seed: int) -> LabelledImages:
    """Return some of the records at random, in their order."""
    order = torch.randperm(len(members), generator=stream(seed, 0, "membership records"))
    return members.subset(order[:records].sort().values)


def _mislabelled(pool: LabelledImages, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Return the labels of a pool with wrong ones in some rows, each drawn uniformly."""
    labels, classes = pool.labels.clone(), pool.num_classes
    shift = torch.randint(1, classes, rows.shape, generator=generator)
    labels[rows] = (labels[rows] + shift) % classes
    return labels


def _at_most(canaries: int, limit: int) -> int:
    count = min(canaries, limit)
    if count < 1:
        raise ConfigError(
            Setting("canaries"),
            f" are {count}: an attack needs some, and at least twice as many records",
        )
    return count

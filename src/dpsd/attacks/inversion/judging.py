"""Judging reconstructions by evaluators, and by how near they are to private records.

Training and held-out records are compared in equal numbers of each class. Records that are among
both are left out, as they tell nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpsd.attacks.copies.spaces import scattering_features
from dpsd.attacks.inversion.evaluators import Evaluator, majority, penultimate
from dpsd.attacks.inversion.measures import (
    Share,
    chance_of_success,
    frechet_distance,
    nearer_to_training,
    precision_recall,
    share_of,
)
from dpsd.attacks.inversion.reconstructions import Reconstructions
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.images.pixels import to_unit_range
from dpsd.streams import stream
from dpsd.synthesis.distinct import image_digests

#: The spaces in which distances are measured. Neither knows of private data.
SPACES = ("pixels", "wavelets")
#: The space that verdicts rest on, as the attack's control shows that leaks are found in it.
JUDGED = "pixels"

#: The most images of each kind whose distributions are compared.
_MOST_COMPARED = 1000

#: The fewest held-out records with which anything is compared.
_FEWEST_RECORDS = 8


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What reconstructions are worth.

    Args:
        success: the share of which most evaluators say the intended class.
        picked: the same share among those that the target picked; ``None`` if it picked none.
        by_evaluator: the share of which an evaluator says so, by its name.
        chance: how likely such a success would be with classes given out at random.
        nearer: the share that is nearer to a training record than to a held-out one, by space;
            ``None`` for real records.
        frechet: the Fréchet distance from held-out records, in the best evaluator's features.
        precision: the share that lies among held-out records, in the same features.
        recall: the share of held-out records that lies among them.
        not_begun: the number of reconstructions that an attack could not begin.
    """

    success: Share
    picked: Share | None
    by_evaluator: dict[str, float]
    chance: float
    nearer: dict[str, Share] | None
    frechet: float
    precision: float
    recall: float
    not_begun: int


class Judge:
    """Judges reconstructions.

    Args:
        evaluators: the evaluators, of which those that are refused say nothing.
        inside: training records.
        outside: held-out records, equally many of each class; see :func:`comparable`.
        reference: held-out images with which distributions are compared, at least two, uint8
            ``(R, C, H, W)``.
        public: public images, in units of whose deviation wavelet features are measured.
        execution: the device and precision of the evaluators.
    """

    def __init__(
        self,
        evaluators: Sequence[Evaluator],
        *,
        inside: LabelledImages,
        outside: LabelledImages,
        reference: Tensor,
        public: Tensor,
        execution: Execution,
    ) -> None:
        self.evaluators = [one for one in evaluators if not one.refused]
        self._execution = execution
        self._num_classes = outside.num_classes
        wavelets = scattering_features(public[:_MOST_COMPARED], execution)
        self._spaces = {"pixels": _pixels, "wavelets": wavelets}
        self._records = {
            space: tuple((features(data.images), data.labels) for data in (inside, outside))
            for space, features in self._spaces.items()
        }
        self._best = max(self.evaluators, key=lambda one: one.accuracy)
        self._real = self._features(reference)

    def judge(
        self,
        made: Reconstructions,
        *,
        is_guided: bool = True,
        is_record: bool = False,
        confidence: float = 0.95,
    ) -> Judgement:
        """Judge reconstructions, or images that are treated as such.

        Args:
            made: the images and their intended classes, at least two.
            is_guided: whether they came of a target, and not from the prior or the records.
            is_record: whether they are records, of which nearness to records says nothing.
            confidence: the confidence of the intervals of nearness. It is higher than that of
                others where somebody looks for the largest of many.
        """
        votes = torch.stack(
            [
                self._execution.predict(one.module, made.images).argmax(1).cpu()
                for one in self.evaluators
            ]
        )
        found = majority(votes)
        hit = found == made.classes
        features = self._features(made.images)
        precision, recall = precision_recall(features, self._real)
        return Judgement(
            success=share_of(int(hit.sum()), len(hit)),
            picked=(
                share_of(int(hit[made.is_picked].sum()), int(made.is_picked.sum()))
                if is_guided
                else None
            ),
            by_evaluator={
                one.name: float((said == made.classes).double().mean())
                for one, said in zip(self.evaluators, votes, strict=True)
            },
            chance=chance_of_success(made.classes, found, num_classes=self._num_classes),
            nearer=(
                {space: self.nearer(made, space, confidence=confidence) for space in SPACES}
                if not is_record
                else None
            ),
            frechet=frechet_distance(features, self._real),
            precision=precision,
            recall=recall,
            not_begun=int((~made.is_found).sum()),
        )

    def nearer(self, made: Reconstructions, space: str, *, confidence: float = 0.95) -> Share:
        """Return how many reconstructions are nearer to a training record, in one of the spaces."""
        inside, outside = self._records[space]
        features = self._spaces[space](made.images)
        return nearer_to_training(features, made.classes, inside, outside, confidence=confidence)

    def _features(self, pixels: Tensor) -> Tensor:
        # Spread evenly over the images, of which those of a class may be neighbours.
        rows = torch.linspace(0, len(pixels) - 1, min(len(pixels), _MOST_COMPARED)).long()
        return penultimate(self._best.module, pixels[rows], self._execution)


def comparable(
    members: LabelledImages, others: LabelledImages, classes: Tensor, *, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Return training and held-out records, equally many of each class and no image twice.

    Args:
        members: the training records.
        others: the held-out records.
        classes: the classes that are attacked, int64 ``(K,)``.
        seed: the seed by which some are drawn.

    Raises:
        ConfigError: there are too few.
    """
    random = stream(seed, 0, "inversion records")
    digests = [image_digests(data.images).numpy() for data in (members, others)]
    rows = []
    for mine, rest in (digests, digests[::-1]):
        once = np.unique(mine, return_index=True)[1]
        own = torch.from_numpy(once[~np.isin(mine[once], rest)])
        rows.append(own[torch.randperm(len(own), generator=random)])
    kept: tuple[list[Tensor], list[Tensor]] = ([], [])
    for label in classes.tolist():
        of = [
            own[data.labels[own] == label]
            for own, data in zip(rows, (members, others), strict=True)
        ]
        size = min(map(len, of))
        for chosen, part in zip(kept, of, strict=True):
            chosen.append(part[:size])
    if (count := sum(map(len, kept[1]))) < _FEWEST_RECORDS:
        raise ConfigError(
            f"data sets {members.name!r} ({members.split}) and {others.name!r} ({others.split}) "
            f"have {count} pairs of different records of the classes that are attacked; at least "
            f"{_FEWEST_RECORDS} are needed"
        )
    return members.subset(torch.cat(kept[0])), others.subset(torch.cat(kept[1]))


def _pixels(images: Tensor) -> Tensor:
    return to_unit_range(images).flatten(1)

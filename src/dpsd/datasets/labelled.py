"""Labelled images in memory, validated once, as every reader returns them.

>>> import torch
>>> data = LabelledImages(
...     images=torch.zeros(2, 1, 8, 8, dtype=torch.uint8), labels=torch.tensor([0, 1]),
...     class_names=("cat", "dog"), name="pets", split="test",
... )
>>> len(data), data.input_shape, data.num_classes
(2, (1, 8, 8), 2)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dpsd.errors import DataError

Split = Literal["train", "validation", "test"]
PublishedSplit = Literal["train", "test"]
"""The splits that every published data set has."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """One split of a data set.

    Args:
        images: the pixels, uint8 ``(N, C, H, W)``, from 0 to 255.
        labels: the classes, int64 ``(N,)``, each an index into ``class_names``.
        class_names: the names of the classes, in the order of the labels.
        name: the name of the data set.
        split: ``"train"``, the teacher's private part; ``"validation"``, on which choices are made;
            or ``"test"``, for measuring only.
        names: the name of each record, which is its path below the split's folder, ``class/file``,
            or ``class/folder/file``; ``None`` if records are identified by their rows alone.
        persons: the person to whom each record belongs; ``None`` if that is not known.
        validation_share: the share of the training records that is held out for validation, in
            [0, 1): ``"train"`` lacks them, and ``"validation"`` consists of them. It is 0 if none
            are, also for a validation split that the publishers made.

    Raises:
        DataError: the parts do not fit together.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    name: str
    split: str
    names: tuple[str, ...] | None = None
    persons: tuple[str, ...] | None = None
    validation_share: float = 0.0

    def __post_init__(self) -> None:
        where = f"data set {self.name!r} ({self.split})"
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or not self.images.numel():
            raise DataError(
                f"{where}: images are {self.images.dtype} {tuple(self.images.shape)}; "
                "uint8 (N, C, H, W) with at least one image is needed"
            )
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise DataError(
                f"{where}: labels are {self.labels.dtype} {tuple(self.labels.shape)}; "
                "int64 (N,) is needed"
            )
        if len(self.labels) != len(self.images):
            raise DataError(f"{where}: {len(self.images)} images but {len(self.labels)} labels")
        strange = (self.labels < 0) | (self.labels >= self.num_classes)
        if bool(strange.any()):
            row = int(strange.nonzero()[0])
            raise DataError(
                f"{where}: row {row} has label {int(self.labels[row])}, but there are "
                f"{self.num_classes} classes, 0 to {self.num_classes - 1}"
            )
        for what, given in (("names", self.names), ("persons", self.persons)):
            if given is not None and len(given) != len(self.images):
                raise DataError(f"{where}: {len(self.images)} images but {len(given)} {what}")

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, rows: Tensor) -> LabelledImages:
        """Return the records in some rows, int64 ``(M,)``, in that order."""
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            names=_chosen(self.names, rows),
            persons=_chosen(self.persons, rows),
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """The number of classes, whether or not this split has examples of each."""
        return len(self.class_names)


def _chosen(words: tuple[str, ...] | None, rows: Tensor) -> tuple[str, ...] | None:
    return None if words is None else tuple(words[row] for row in rows.tolist())


_NAMES_SHOWN = 5


def lacking(data: LabelledImages) -> str | None:
    """Return a warning that names the classes of which there is no image, if there are any.

    Mechanisms choose among all classes, so a class that does not exist makes answers noisier.

    >>> lacking(LabelledImages(
    ...     images=torch.zeros(2, 1, 8, 8, dtype=torch.uint8), labels=torch.tensor([1, 2]),
    ...     class_names=("0", "1", "2"), name="own.npz", split="train",
    ... ))
    "no training image of class '0' (of 3): do labels begin at 1? Answers are privatised among ..."
    """
    counts = torch.bincount(data.labels, minlength=data.num_classes)
    empty = (counts == 0).nonzero().flatten().tolist()
    if not empty:
        return None
    names = ", ".join(repr(data.class_names[row]) for row in empty[:_NAMES_SHOWN])
    names += ", …" * (len(empty) > _NAMES_SHOWN)
    which = f"class {names} (of {data.num_classes:,})"
    if len(empty) > 1:
        which = f"{len(empty):,} of {data.num_classes:,} classes ({names})"
    if data.split != "train":
        return f"no {data.split} image of {which}; nothing is measured there"
    question = "is its name right?" if len(empty) == 1 else "are their names right?"
    if data.names is None:  # labels are numbers
        question = "do labels begin at 1?" if empty == [0] else "are labels numbered with gaps?"
    return (
        f"no training image of {which}: {question} Answers are privatised among all "
        f"{data.num_classes:,} classes, whether they exist or not"
    )

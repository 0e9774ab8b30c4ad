"""Reconstructions: the images of an attack, by class and restart, and which the target picked.

>>> classes = intended(torch.tensor([0, 2]), 3)
>>> classes.tolist()
[0, 2, 0, 2, 0, 2]
>>> picked(torch.tensor([3.0, 1.0, 2.0, 2.0, 1.0, 0.0]), classes=2, restarts=3).tolist()
[False, False, False, False, True, True]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstructions:
    """What an attack made of a target.

    Args:
        images: the images, uint8 ``(N, C, H, W)``: one of each class, then again one of each.
        classes: the intended classes, int64 ``(N,)``.
        is_picked: whether the target picked an image among its restarts, bool ``(N,)``.
        is_found: whether the attack had anything to begin with, bool ``(N,)``: a label-only attack
            has not if the target never says a class.
        cost: by how much the target disliked each image, ``(N,)``, in the attack's own units.
    """

    images: Tensor
    classes: Tensor
    is_picked: Tensor
    is_found: Tensor
    cost: Tensor

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Reconstructions:
        """Return what :meth:`tensors` returned."""
        return cls(**tensors)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as named tensors."""
        return dict(vars(self))


def intended(classes: Tensor, each: int) -> Tensor:
    """Return the intended classes of ``each`` reconstructions of every class, int64 ``(N,)``."""
    return classes.repeat(each)


def picked(cost: Tensor, *, classes: int, restarts: int) -> Tensor:
    """Return which images have the least cost among the restarts of their class, bool ``(N,)``.

    Args:
        cost: the cost of each image, ``(N,)``, in the order of :func:`intended`.
        classes: the number of classes.
        restarts: the number of restarts among which one is picked.
    """
    grouped = cost.view(-1, restarts, classes)
    chosen = torch.zeros_like(grouped, dtype=torch.bool)
    return chosen.scatter_(1, grouped.argmin(1, keepdim=True), True).flatten()

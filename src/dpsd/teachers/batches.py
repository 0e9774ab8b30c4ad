"""Asking a model in batches that suit it and the device.

>>> import torch
>>> run = lambda images: images.flatten(1)[:, :2] if len(images) == 4 else None
>>> in_batches(run, torch.zeros(6, 1, 2, 2), size=4).shape
torch.Size([6, 2])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from dpsd.devices.execution import forward_batch

T = TypeVar("T")


def in_batches(
    run: Callable[[Tensor], T], images: Tensor, *, size: int | None = None
) -> T | Tensor:
    """Run ``images`` in batches of exactly ``size``, the last one padded by repeating its end.

    Args:
        run: takes images ``(size, C, H, W)``, returns scores ``(size, K)``.
        images: ``(N, C, H, W)``, on the device that ``run`` runs on.
        size: the one batch size that ``run`` takes; ``None`` if it takes any: then none is padded,
            and as many are run at once as the device is fastest with.

    Returns:
        Scores ``(N, K)``. Should ``run`` return anything but a row for each image, that is returned
        as it is, for the caller's check to find.
    """
    found: list[Tensor] = []
    for chunk in torch.split(images, size or forward_batch(images.shape[1:], images.device)):
        padding = chunk[-1:].expand((size or len(chunk)) - len(chunk), -1, -1, -1)
        batch = torch.cat([chunk, padding]) if len(padding) else chunk
        scores = run(batch)
        if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(batch):
            return scores
        found.append(scores.clone())  # a model may answer every batch into one buffer of its own
    return torch.cat(found)[: len(images)]

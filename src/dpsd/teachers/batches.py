"""Running a model in batches that suit the model and the device.

>>> import torch
>>> run = lambda images: images.flatten(1)[:, :2] if len(images) == 4 else None
>>> in_batches(run, torch.zeros(6, 1, 2, 2), size=4).shape
torch.Size([6, 2])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from dpsd.devices.execution import forward_batch

T = TypeVar("T")


def in_batches(
    run: Callable[[Tensor], T],
    images: Tensor,
    *,
    size: int | None = None,
    shape: Sequence[int] | None = None,
) -> T | Tensor:
    """Run ``images`` in batches of exactly ``size``; the last is padded by repeating its end.

    Args:
        run: a function from images ``(size, …)`` to scores ``(size, K)``.
        images: images ``(N, …)`` on the device that ``run`` runs on.
        size: the only batch size that ``run`` takes; ``None`` if it takes any. Then nothing is
            padded, and batches have the size that is fastest on the device.
        shape: the shape of an image, ``(C, H, W)``, if ``images`` have another one.

    Returns:
        Scores ``(N, K)``, float32. If ``run`` returns anything but a row for each image, that is
        returned unchanged, for the caller's check to find.
    """
    found: list[Tensor] = []
    fastest = forward_batch(shape or images.shape[1:], images.device)
    for chunk in torch.split(images, size or fastest):
        padding = chunk[-1:].repeat((size or len(chunk)) - len(chunk), *[1] * (chunk.ndim - 1))
        batch = torch.cat([chunk, padding]) if len(padding) else chunk
        scores = run(batch)
        if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(batch):
            return scores
        if not scores.is_floating_point():
            return scores
        # Copied, as a model may reuse one buffer for the scores of every batch.
        found.append(scores.to(torch.float32, copy=True))
    return torch.cat(found)[: len(images)]

"""Asking a model that takes batches of one size only.

>>> import torch
>>> run = lambda images: images.flatten(1)[:, :2] if len(images) == 4 else None
>>> in_fixed_batches(run, torch.zeros(6, 1, 2, 2), size=4).shape
torch.Size([6, 2])
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_fixed_batches(
    run: Callable[[Tensor], object], images: Tensor, *, size: int | None
) -> object:
    """Run ``images`` in batches of exactly ``size``, the last one padded by repeating its end.

    Args:
        run: takes images ``(size, C, H, W)``, returns scores ``(size, K)``.
        images: ``(N, C, H, W)``.
        size: the one batch size that ``run`` takes; ``None`` if it takes any.

    Returns:
        Scores ``(N, K)``. Should ``run`` return anything but ``size`` rows, that is returned as it
        is, for the caller's check to find.
    """
    if size is None:
        return run(images)
    found: list[Tensor] = []
    for chunk in torch.split(images, size):
        padding = chunk[-1:].expand(size - len(chunk), -1, -1, -1)
        scores = run(torch.cat([chunk, padding]))
        if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != size:
            return scores
        found.append(scores)
    return torch.cat(found)[: len(images)]

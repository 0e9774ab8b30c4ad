"""Fractals reach through the frame, and have finer detail than noise."""

from __future__ import annotations

import torch
from torch import Tensor

from dpsd.synthesis.drawn import StructuredNoise
from dpsd.synthesis.fractals import Fractals


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_fractals_reach_through_the_frame_in_fine_detail() -> None:
    images = Fractals((1, 64, 64)).sample(200, generator=seeded())
    ground = images[..., :1, :1]
    drawn = ((images - ground).abs() > 0.02).squeeze(1)
    rows, columns = drawn.any(2).sum(1), drawn.any(1).sum(1)
    assert float((torch.maximum(rows, columns) >= 32).float().mean()) > 0.9
    smooth = StructuredNoise((1, 64, 64)).sample(200, generator=seeded())

    def roughness(images: Tensor) -> float:
        steps = (images[..., 1:] - images[..., :-1]).square().mean((1, 2, 3))
        return float((steps / images.var((1, 2, 3)).clamp_min(1e-6)).median())

    assert roughness(images) > 3 * roughness(smooth)

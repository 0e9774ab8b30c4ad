"""Images of generators with random weights: many classes from many generators, none from one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import dpsd
from dpsd.synthesis.names import DEFAULT, NETWORKS
from dpsd.synthesis.networks import RandomNetworks


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images_of(shape: tuple[int, int, int], count: int, **changed: float) -> Tensor:
    source = RandomNetworks(shape)
    for name, value in changed.items():
        setattr(source, name, value)
    return source.sample(count, generator=seeded())


@pytest.mark.parametrize("side", [16, 28])
def test_most_images_are_brighter_in_the_middle_than_at_the_frame(side: int) -> None:
    images = images_of((1, side, side), 400, bumps=0.0)
    rim = torch.ones((side, side), dtype=torch.bool)
    rim[1:-1, 1:-1] = False
    middle = slice(side // 4, side - side // 4)
    is_brighter = images[..., middle, middle].mean((1, 2, 3)) > images[..., rim].mean((1, 2))
    assert float(is_brighter.float().mean()) > 0.8


def test_bumps_draw_outlines_which_hold_less_ink() -> None:
    lines, blobs = (images_of((1, 28, 28), 300, bumps=share) for share in (1.0, 0.0))
    assert float(lines.mean()) < 0.7 * float(blobs.mean())


def test_each_generator_makes_a_few_images_that_are_more_alike_than_others() -> None:
    source = RandomNetworks((1, 16, 16))
    maps = source._features(400, seeded()).flatten(1)
    roughness = (maps[:, 1:] - maps[:, :-1]).square().mean(1).log()
    by_generator = roughness.view(source.images_each, -1)
    assert float(by_generator.var(0).mean()) < 0.5 * float(roughness.var())


def test_the_default_mixture_is_as_before() -> None:
    assert NETWORKS not in DEFAULT
    assert NETWORKS not in dpsd.Recipe().sources

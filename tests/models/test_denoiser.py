"""The denoiser: sizes, seeds and what it is told of the time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd.errors import ConfigError
from dpsd.images.names import Shape
from dpsd.models.denoiser import build_denoiser, pixels_per_cell


@settings(max_examples=8, deadline=None)
@given(shape=st.tuples(st.integers(1, 4), st.integers(8, 40), st.integers(8, 40)))
def test_images_of_any_size_keep_their_size(shape: Shape) -> None:
    denoiser = build_denoiser(shape, seed=0)
    found = denoiser(torch.randn(2, *shape), torch.tensor([0.2, 0.9]))
    assert found.shape == (2, *shape)
    assert found.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 64, 64), (3, 224, 224)])
def test_the_denoiser_stays_small(shape: Shape) -> None:
    assert max(shape[1:]) / pixels_per_cell(shape[1:]) <= 16
    denoiser = build_denoiser(shape, seed=0)
    assert sum(weights.numel() for weights in denoiser.parameters()) < 8_000_000


def test_the_seed_decides_the_weights_and_torch_keeps_its_generator() -> None:
    before = torch.get_rng_state()
    one, same, other = (build_denoiser((1, 8, 8), seed=seed) for seed in (1, 1, 2))
    assert torch.get_rng_state().equal(before)
    assert one.enter.weight.equal(same.enter.weight)
    assert not one.enter.weight.equal(other.enter.weight)


def test_every_weight_learns_and_the_time_matters() -> None:
    denoiser = build_denoiser((1, 8, 8), seed=0)
    optimizer = torch.optim.SGD(denoiser.parameters(), lr=0.1)
    images = torch.randn((4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # in the first step, blocks are their shortcuts
        optimizer.zero_grad()
        denoiser(images, torch.linspace(0, 1, 4)).sub(images).square().mean().backward()
        optimizer.step()
    for name, weights in denoiser.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.abs().max() > 0, name
    early, late = (denoiser(images, torch.full((4,), time)) for time in (0.1, 0.9))
    assert not early.allclose(late, atol=1e-4)


def test_a_shape_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be \\(channels, height, width\\)"):
        build_denoiser((1, 8, 0), seed=0)

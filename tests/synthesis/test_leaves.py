"""Leaves have sharp edges and plain insides, and their noise the spectrum that was asked for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd.synthesis.leaves import Leaves, spectral_noise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_leaves_hide_what_lies_behind_them() -> None:
    """Inside a leaf without texture, nothing of another shows: most neighbours are equal."""
    images = Leaves((1, 64, 64)).sample(300, generator=seeded())
    steps = (images[..., 1:] - images[..., :-1]).abs().flatten(1)
    # Yet there are edges, where steps are large.
    assert float((steps.quantile(0.5, 1) < 0.05).float().mean()) > 0.6
    assert float((steps.amax(1) > 0.1).float().mean()) > 0.8


@settings(max_examples=30, deadline=None)
@given(
    decay=st.floats(0.5, 2),
    shape=st.tuples(st.integers(1, 4), st.integers(16, 64), st.integers(16, 64)),
    seed=st.integers(0, 2**31),
)
def test_spectral_noise_falls_with_the_frequency_as_it_is_told(
    decay: float, shape: tuple[int, int, int], seed: int
) -> None:
    noise = spectral_noise(
        20, shape, decay=torch.full((20, 1, 1, 1), decay), generator=seeded(seed)
    )
    assert noise.shape == (20, *shape)
    assert torch.allclose(noise.mean((2, 3)), torch.zeros(()), atol=1e-4)
    assert torch.allclose(noise.std((2, 3)), torch.ones(()), atol=1e-4)
    power = torch.fft.rfft2(noise).abs().square().mean((0, 1))
    down, across = torch.fft.fftfreq(shape[1]), torch.fft.rfftfreq(shape[2])
    frequency = (down.square().unsqueeze(1) + across.square()).sqrt()
    x, y = frequency.flatten()[1:].log(), power.flatten()[1:].log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert float(slope) == pytest.approx(-2 * decay, abs=0.4)

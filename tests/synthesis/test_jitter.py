"""Colours are mixed: what is grey stays grey, and a tenth of what is not becomes grey."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd.synthesis.jitter import jittered_colours


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 9),
    channels=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_what_is_grey_stays_as_it_is(count: int, channels: int, seed: int) -> None:
    grey = torch.rand((count, 1, 5, 6), generator=seeded(seed)).expand(-1, channels, -1, -1)
    jittered = jittered_colours(grey, generator=seeded(seed))
    assert jittered.shape == (count, channels, 5, 6)
    assert torch.allclose(jittered, grey, atol=1e-5)


def test_a_tenth_becomes_grey_and_others_get_other_colours() -> None:
    images = torch.rand((2000, 3, 4, 4), generator=seeded())
    jittered = jittered_colours(images, generator=seeded(1))
    is_grey = (jittered.amax(1) - jittered.amin(1)).amax((1, 2)) < 1e-5
    assert 0.07 < float(is_grey.float().mean()) < 0.14
    change = (jittered - images)[~is_grey].abs().amax((1, 2, 3))
    assert float((change > 0.02).float().mean()) > 0.95

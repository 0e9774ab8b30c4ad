"""Blends lie between two images, half of them everywhere and half of them part by part."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd.synthesis.blending import Mixed, blended
from dpsd.synthesis.sources import Source, is_blank


class Plain(Source):
    """Images of one grey."""

    name = "plain"

    def __init__(self, grey: float) -> None:
        super().__init__((1, 16, 16))
        self.grey = grey

    def _chunk(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.full((count, *self.shape), self.grey)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 9),
    shape=st.tuples(st.integers(1, 4), st.integers(8, 30), st.integers(8, 30)),
    seed=st.integers(0, 2**31),
)
def test_a_blend_lies_between_the_two_images_at_every_pixel(
    count: int, shape: tuple[int, int, int], seed: int
) -> None:
    one, other = torch.rand((2, count, *shape), generator=seeded(seed)).unbind(0)
    images = blended(one, other, generator=seeded(seed))
    assert images.shape == (count, *shape)
    assert (images >= torch.minimum(one, other) - 1e-6).all()
    assert (images <= torch.maximum(one, other) + 1e-6).all()
    assert blended(one, other, generator=seeded(seed)).equal(images)


def test_half_of_the_blends_are_even_and_a_quarter_each_have_a_box_and_an_outline() -> None:
    count = 4000
    black, white = torch.zeros((count, 1, 16, 16)), torch.ones((count, 1, 16, 16))
    weights = blended(black, white, generator=seeded()).squeeze(1)
    even = weights.amax((1, 2)) == weights.amin((1, 2))
    amounts = weights[even].mean((1, 2))
    # Boxes that cover the whole frame, or nothing, are even too, but rarely.
    assert 0.45 < float(even.float().mean()) < 0.55
    assert 0.2 <= float(amounts[amounts > 0].min()) < 0.25
    assert 0.75 < float(amounts[amounts < 1].max()) <= 0.8
    parts = weights[~even]
    boxes = ((parts == 0) | (parts == 1)).flatten(1).all(1)
    assert 0.4 < float(boxes.float().mean()) < 0.6
    # A box is all that its rows and its columns have in common.
    inside = parts[boxes]
    assert inside.equal(inside.amax(1, keepdim=True) * inside.amax(2, keepdim=True))
    assert (parts[~boxes].amax((1, 2)) > 0.5).float().mean() > 0.9


def test_a_blend_of_images_that_show_something_shows_something() -> None:
    dot, same = torch.zeros((2, 3000, 1, 8, 8)).unbind(0)
    dot[:, :, 4, 4] = same[:, :, 3, 3] = 1
    assert not is_blank(blended(dot, same, generator=seeded())).any()


@pytest.mark.parametrize("greys", [[0.2], [0.2, 0.6], [0.2, 0.6, 1.0]])
def test_every_pair_of_different_sources_is_mixed(greys: list[float]) -> None:
    mixed = Mixed((1, 16, 16), [Plain(grey) for grey in greys])
    images = mixed.sample(40 * 256, generator=seeded())
    ends = torch.stack([images.amin((1, 2, 3)), images.amax((1, 2, 3))], dim=1)
    cut = ends[ends[:, 0] < ends[:, 1] - 0.01]
    pairs = {(round(low, 1), round(high, 1)) for low, high in cut.tolist()}
    wanted = {(low, high) for low in greys for high in greys if low < high}
    assert wanted <= pairs
    if len(greys) == 1:
        assert torch.allclose(images, torch.tensor(0.2))

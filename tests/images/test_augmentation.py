"""Distortions keep what they must, and one image's depends on no other's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dpsd.images.augmentation import distort_images


def distorted(images: Tensor, seed: int = 0) -> Tensor:
    return distort_images(images, generator=torch.Generator().manual_seed(seed))


@given(
    channels=st.sampled_from([1, 3]),
    side=st.integers(4, 32),
    count=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_distorted_images_keep_shape_and_range(
    channels: int, side: int, count: int, seed: int
) -> None:
    images = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))
    found = distorted(images, seed)
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    assert images.min() * (channels > 1) - 1e-6 <= found.min()
    assert found.max() <= images.max() + 1e-6


@pytest.mark.parametrize("channels", [1, 3])
def test_one_image_changes_no_other(channels: int) -> None:
    """Else a record would reach teachers of other shards."""
    images = torch.rand(6, channels, 12, 12, generator=torch.Generator().manual_seed(1))
    others = images.clone()
    others[2] = 1 - others[2]
    changed = (distorted(images) != distorted(others)).flatten(1).any(1)
    assert changed.tolist() == [False, False, True, False, False, False]


def test_every_image_is_distorted_on_its_own() -> None:
    one = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(2)).expand(8, -1, -1, -1)
    found = distorted(one)
    assert len({image.numpy().tobytes() for image in found}) == 8


def test_colour_images_are_mirrored_in_half_and_writing_never() -> None:
    """A bright left edge stays on the left of grey images, whatever turn and slant do to it."""
    images = torch.zeros(200, 1, 16, 16)
    images[..., :4] = 1
    left = distorted(images)[..., :8].sum((1, 2, 3)) > distorted(images)[..., 8:].sum((1, 2, 3))
    assert left.all()
    colours = distorted(images.expand(-1, 3, -1, -1))
    left = colours[..., :8].sum((1, 2, 3)) > colours[..., 8:].sum((1, 2, 3))
    assert 70 < left.sum() < 130

"""Public images come back recognisable, and never as the same image twice."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.errors import DataError
from dpsd.images.pixels import to_unit_range
from dpsd.synthesis.distinct import image_digests
from dpsd.synthesis.drawn import Silhouettes
from dpsd.synthesis.public import Public


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, shape: tuple[int, int, int] = (1, 28, 28)) -> Tensor:
    return Silhouettes(shape).pixels(count, generator=seeded(9))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_hundred_images_make_six_thousand_queries(channels: int) -> None:
    made = Public(pictures(100, (channels, 28, 28))).pixels(6_000, generator=seeded())
    assert len(made) - len(image_digests(made).unique()) <= 6


def test_images_stay_like_the_public_ones() -> None:
    """Most are nearest to the image that they were made of, not to one of another source."""
    public, others = pictures(1, (1, 16, 16)), torch.rand((50, 1, 16, 16), generator=seeded(1))
    made = Public(public).sample(200, generator=seeded()).flatten(1)
    known = torch.cat([to_unit_range(public), others]).flatten(1)
    assert float((torch.cdist(made, known).argmin(1) == 0).float().mean()) > 0.95


def test_a_quarter_is_moved_by_two_pixels_at_most() -> None:
    public = torch.zeros((1, 1, 29, 29), dtype=torch.uint8)
    public[..., 14, 14] = 255
    made = Public(public).sample(2000, generator=seeded()).squeeze(1)
    near = made[:, 12:17, 12:17].sum((1, 2))
    # A dot that was only moved keeps its light, on a ground that stays black.
    kept = (made.sum((1, 2)) - 1).abs() < 1e-3
    assert 0.15 < float(kept.float().mean()) < 0.3
    assert torch.allclose(near[kept], made.sum((1, 2))[kept], atol=1e-3)
    assert float(made[kept].amax((1, 2)).std()) > 0.05  # by other fractions of a pixel each time


@pytest.mark.parametrize(("channels", "mirrored"), [(1, False), (3, True)])
def test_only_images_in_colour_are_mirrored(channels: int, mirrored: bool) -> None:
    public = torch.zeros((1, channels, 24, 24), dtype=torch.uint8)
    public[..., 8] = 255  # to the left of the middle
    made = Public(public).sample(500, generator=seeded()).mean((1, 2))
    is_right = made[:, 14:18].amax(1) > made[:, 6:10].amax(1)
    assert (float(is_right.float().mean()) > 0.2) is mirrored
    if not mirrored:
        assert float(is_right.float().mean()) < 0.02


def test_images_are_blended_with_one_another() -> None:
    black = torch.zeros((2, 1, 16, 16), dtype=torch.uint8)
    black[0, :, 2:14, 2:5] = black[1, :, 2:5, 2:14] = 255
    made = Public(black).sample(1000, generator=seeded())
    bars = F.normalize(to_unit_range(black).flatten(1))
    likeness = F.normalize(made.flatten(1)) @ bars.T
    both = (likeness > 0.5).all(1)
    assert 0.02 < float(both.float().mean()) < 0.4


def test_the_public_images_are_left_as_they_were() -> None:
    public = pictures(5)
    before = public.clone()
    Public(public).sample(50, generator=seeded())
    assert public.equal(before)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros((0, 1, 8, 8), dtype=torch.uint8),
        torch.zeros((3, 8, 8), dtype=torch.uint8),
        torch.zeros((3, 1, 8, 8)),
    ],
    ids=["none", "no channels", "floats"],
)
def test_anything_but_pictures_in_bytes_is_refused(images: Tensor) -> None:
    with pytest.raises(DataError, match=r"must be uint8 \(N, C, H, W\) with N at least 1"):
        Public(images)

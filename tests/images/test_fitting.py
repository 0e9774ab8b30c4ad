"""Public images take the size and the channels of what a teacher takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpsd.errors import ConfigError, DataError
from dpsd.images import fitting
from dpsd.images.fitting import fitted, read_fitted

SIDES = st.integers(1, 20)


@settings(deadline=None, max_examples=60)
@given(size=st.tuples(SIDES, SIDES), wanted=st.tuples(SIDES, SIDES), colours=st.booleans())
def test_any_size_becomes_the_one_that_is_wanted(
    size: tuple[int, int], wanted: tuple[int, int], colours: bool
) -> None:
    """An even picture stays even, whatever is scaled, cropped and converted."""
    found, channels = (3, 1) if colours else (1, 3)
    images = torch.full((2, found, *size), 93, dtype=torch.uint8)
    fitting_ones = fitted(images, (channels, *wanted))
    assert fitting_ones.shape == (2, channels, *wanted)
    assert fitting_ones.dtype == torch.uint8
    assert (fitting_ones == 93).all()


def test_images_that_fit_are_left_alone() -> None:
    images = torch.zeros((2, 4, 8, 8), dtype=torch.uint8)
    assert fitted(images, (4, 8, 8)) is images


@pytest.mark.parametrize("size", [(9, 24), (24, 9), (4, 5)])
def test_a_tensor_and_a_file_are_fitted_alike(tmp_path: Path, size: tuple[int, int]) -> None:
    smooth = torch.linspace(0, 255, size[0] * size[1]).reshape(1, 1, *size).to(torch.uint8)
    path = tmp_path / "smooth.png"
    Image.fromarray(smooth[0, 0].numpy()).save(path)
    shape = (3, 8, 8)
    file, tensor = read_fitted(path, shape).int(), fitted(smooth, shape)[0].int()
    # The two scale by different weights, up to half a pixel apart; a row is up to 32 brighter.
    assert (file - tensor).abs().max() <= 16


def test_parts_and_the_whole_are_fitted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (7, 3, 9, 9), dtype=torch.uint8, generator=random)
    whole = fitted(images, (1, 6, 4))
    monkeypatch.setattr(fitting, "_MOST_NUMBERS", 600)
    assert fitted(images, (1, 6, 4)).equal(whole)


def test_colours_become_grey_as_files_are_read() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, generator=random)
    grey = np.asarray(Image.fromarray(images[0].permute(1, 2, 0).numpy()).convert("L"))
    assert (fitted(images, (1, 16, 16))[0, 0].int() - torch.tensor(grey).int()).abs().max() <= 1


def test_other_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"have 4 channels .* and the teacher takes 3"):
        fitted(torch.zeros((2, 4, 8, 8), dtype=torch.uint8), (3, 8, 8))
    with pytest.raises(ConfigError, match="image files give 1 or 3 channels, not 4"):
        read_fitted(tmp_path / "any.png", (4, 8, 8))

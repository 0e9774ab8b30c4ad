"""Scaling takes little more memory than the picture that comes of it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dpsd.errors import DataError
from dpsd.images.scaling import rescaled

LARGE = (1 << 20) * 6


@pytest.mark.parametrize("shape", [(LARGE // 8, 8), (8, LARGE // 8)], ids=["tall", "wide"])
def test_a_large_image_is_scaled_a_part_at_a_time(shape: tuple[int, int]) -> None:
    values = np.arange(LARGE, dtype=np.uint16).reshape(shape)
    expected = (values.astype(np.float32) / 257).round().astype(np.uint8)
    tracemalloc.start()
    picture = rescaled(Path("scan.tif"), values, 0, 65_535)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(np.asarray(picture), expected)
    assert most < 6 * LARGE  # in double precision, the image alone would take eight bytes a pixel


def test_what_is_not_a_number_is_found_in_any_part() -> None:
    values = np.zeros((3, 1 << 20), dtype=np.float32)
    values[2, 5] = np.nan
    with pytest.raises(DataError, match=r"scan\.tif holds values that are not numbers"):
        rescaled(Path("scan.tif"), values, 0, 1)

"""Features have a norm of at most 1, whatever the image, and kernels as inner products."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpsd.benchmarks.baselines.kernel_features import (
    Features,
    FourierFeatures,
    HermiteFeatures,
)
from dpsd.errors import ConfigError
from dpsd.images.pixels import to_unit_range

FOURIER = FourierFeatures.drawn(16, 200, random=torch.Generator().manual_seed(0))
HERMITE = HermiteFeatures(order=12, correlation=0.9)

FEATURES = pytest.mark.parametrize("features", [FOURIER, HERMITE], ids=["fourier", "hermite"])

IMAGES = arrays(np.uint8, st.tuples(st.integers(1, 4), *map(st.just, (1, 4, 4))))


@FEATURES
@given(pixels=IMAGES)
def test_no_image_has_features_of_a_norm_above_one(
    features: Features, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> None:
    found = features(to_unit_range(torch.from_numpy(pixels)))
    assert len(found) == len(pixels)
    assert found.norm(dim=1).max() <= 1 + 1e-6


@given(
    correlation=st.floats(0.01, 0.99), order=st.integers(1, 40), pixel=st.floats(0.0, 1.0, width=32)
)
def test_no_order_of_hermite_features_has_a_norm_above_one(
    correlation: float, order: int, pixel: float
) -> None:
    features = HermiteFeatures(order=order, correlation=correlation)
    assert features(torch.full((1, 1, 2, 2), pixel)).norm() <= 1 + 1e-5


def test_inner_products_of_fourier_features_are_a_gaussian_kernel() -> None:
    images = torch.rand((6, 1, 4, 4), generator=torch.Generator().manual_seed(1))
    features = FourierFeatures.drawn(16, 40_000, random=torch.Generator().manual_seed(0))
    kernel = torch.exp(-torch.cdist(images.flatten(1), images.flatten(1)).square() / (2 * 16 / 6))
    found = features(images)
    assert torch.allclose(found @ found.T, kernel, atol=0.03)


def test_inner_products_of_hermite_features_are_a_kernel_of_each_pixel() -> None:
    images = torch.rand((6, 1, 4, 4), generator=torch.Generator().manual_seed(1))
    rate = 0.7
    found = HermiteFeatures(order=60, correlation=rate)(images)
    apart = images.flatten(1).unsqueeze(1) - images.flatten(1).unsqueeze(0)
    kernel = torch.exp(-rate / (1 - rate**2) * apart.square()).mean(-1)
    assert torch.allclose(found @ found.T, kernel, atol=1e-4)


def test_fourier_features_come_in_pairs() -> None:
    with pytest.raises(ConfigError, match="even"):
        FourierFeatures.drawn(16, 201, random=torch.Generator())
    assert math.isclose(float(FOURIER(torch.zeros(1, 1, 4, 4)).norm()), 1.0, rel_tol=1e-6)

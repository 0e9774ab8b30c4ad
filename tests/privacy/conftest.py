"""Sealed answers, and noise that is the same in every run of the tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.randomness import ReproducibleNoise


def _sealed_classes(classes: Tensor, num_classes: int) -> RawAnswers:
    return RawAnswers.seal(
        torch.nn.functional.one_hot(classes, num_classes),
        batch=classes.shape[-1],
        num_classes=num_classes,
        scores="probabilities",
    )


@pytest.fixture
def seal_classes() -> Callable[[Tensor, int], RawAnswers]:
    """Seal answers that are certain of a class."""
    return _sealed_classes


@pytest.fixture
def noise() -> ReproducibleNoise:
    return ReproducibleNoise(seed=20)

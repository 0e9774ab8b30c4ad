"""Training a teacher, on the digits that come with scikit-learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dpsd.datasets import load_dataset
from dpsd.errors import ConfigError
from dpsd.images.augmentation import augment_images
from dpsd.images.pixels import to_unit_range
from dpsd.training.classifier import (
    TrainingProgress,
    evaluate_accuracy,
    predict_classes,
    train_teacher,
)


def test_digits_are_learned() -> None:
    seen: list[TrainingProgress] = []
    module = train_teacher(load_dataset("digits", "train"), epochs=8, on_epoch=seen.append)
    assert evaluate_accuracy(module, load_dataset("digits", "test")) > 0.9
    assert not module.training
    assert [progress.epoch for progress in seen] == list(range(1, 9))
    assert seen[-1].loss < seen[0].loss


def test_a_seed_fixes_the_outcome() -> None:
    data = load_dataset("digits", "train")
    one, same, other = (train_teacher(data, epochs=1, seed=seed) for seed in (0, 0, 1))
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": -1.0},
        {"augment": "twist"},
        {"precision": "int8"},
        {"model": "resnet9"},
    ],
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        train_teacher(load_dataset("digits", "train"), **options)  # type: ignore[arg-type]


def shifted_slowly(image: Tensor, down: int, right: int) -> Tensor:
    result = torch.zeros_like(image)
    height, width = image.shape[-2:]
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                result[:, row, column] = image[:, row + down, column + right]
    return result


@pytest.mark.parametrize("augment", ["shift", "shift-flip"])
def test_augmentation_is_a_shift(augment: str) -> None:
    images = torch.randint(1, 255, (24, 1, 16, 18), dtype=torch.uint8)
    moved = augment_images(images, augment, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert moved.shape == images.shape
    assert moved.dtype == torch.uint8
    offsets = set()
    for image, result in zip(images, moved, strict=True):
        candidates = [
            (down, right, mirrored)
            for down in range(-2, 3)
            for right in range(-2, 3)
            for expected in [shifted_slowly(image, down, right)]
            for mirrored in (False, True)
            if torch.equal(result.flip(-1) if mirrored else result, expected)
        ]
        assert len(candidates) == 1
        offsets.add(candidates[0])
    assert len(offsets) > 10
    assert any(mirrored for _, _, mirrored in offsets) == (augment == "shift-flip")


def test_prediction_leaves_the_module_as_it_was() -> None:
    module = nn.Sequential(nn.Dropout(0.9), nn.Flatten(), nn.Linear(64, 3)).train()
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    found = predict_classes(module, images)
    assert module.training
    assert torch.equal(found, module[1:](to_unit_range(images)).argmax(1))

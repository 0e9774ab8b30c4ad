"""A mean embedding moves little with a record, and its noise is what the accountant says."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeAlias

import dp_accounting
import numpy as np
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpsd.benchmarks.baselines.conditional import ConditionalGenerator
from dpsd.benchmarks.baselines.kernel_features import (
    Features,
    FourierFeatures,
    HermiteFeatures,
)
from dpsd.benchmarks.baselines.mean_embedding import (
    EmbeddingNoise,
    class_weights,
    imitate,
    mean_embedding,
    released,
)
from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Budget

SIDE, CLASSES = 4, 3
PIXELS = SIDE * SIDE
FOURIER = FourierFeatures.drawn(PIXELS, 100, random=torch.Generator().manual_seed(0))
HERMITE = HermiteFeatures(order=8, correlation=0.9)

Bytes: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def records(images: Bytes, labels: list[int]) -> LabelledImages:
    return LabelledImages(
        images=torch.from_numpy(images),
        labels=torch.tensor(labels),
        class_names=tuple("abc"),
        name="made",
        split="train",
    )


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[LabelledImages, LabelledImages]:
    """Two data sets that differ in the image and the label of one record."""
    count = draw(st.integers(1, 6))
    images = draw(arrays(np.uint8, (count, 1, SIDE, SIDE)))
    labels = draw(st.lists(st.integers(0, CLASSES - 1), min_size=count, max_size=count))
    place = draw(st.integers(0, count - 1))
    other = images.copy()
    other[place] = draw(arrays(np.uint8, (1, SIDE, SIDE)))
    relabelled = list(labels)
    relabelled[place] = draw(st.integers(0, CLASSES - 1))
    return records(images, labels), records(other, relabelled)


@pytest.mark.parametrize("features", [FOURIER, HERMITE], ids=["fourier", "hermite"])
@given(pair=neighbours())
def test_a_replaced_record_moves_the_embedding_by_at_most_two_over_their_number(
    features: Features, pair: tuple[LabelledImages, LabelledImages]
) -> None:
    one, other = pair
    moved = mean_embedding(one, features) - mean_embedding(other, features)
    assert moved.norm() <= 2 / len(one) + 1e-6
    assert (class_weights(one) - class_weights(other)).norm() <= math.sqrt(2) / len(one) + 1e-6


def test_a_record_in_another_class_moves_all_that_a_record_has() -> None:
    images = np.zeros((2, 1, SIDE, SIDE), np.uint8)
    one, other = records(images, [0, 0]), records(images, [0, 1])
    moved = mean_embedding(one, FOURIER) - mean_embedding(other, FOURIER)
    assert float(moved.norm()) == pytest.approx(math.sqrt(2) / 2, rel=1e-5)
    weights = class_weights(one) - class_weights(other)
    assert float(weights.norm()) == pytest.approx(math.sqrt(2) / 2, rel=1e-5)


@given(
    epsilon=st.floats(0.1, 10.0),
    delta=st.sampled_from([1e-6, 1e-5, 1e-3]),
    share=st.floats(0.01, 0.9),
)
def test_the_noise_of_both_parts_costs_what_was_asked_for(
    epsilon: float, delta: float, share: float
) -> None:
    target = Budget(epsilon=epsilon, delta=delta)
    noise = EmbeddingNoise.meeting(target, weights_share=share)
    assert noise.replace_one(delta=delta) == pytest.approx(epsilon, rel=1e-4)


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_the_accountant_of_compositions_agrees(epsilon: float) -> None:
    noise = EmbeddingNoise.meeting(Budget(epsilon=epsilon, delta=1e-5), weights_share=0.2)
    accountant = PLDAccountant()
    for multiplier in (noise.embedding, noise.weights):
        accountant.compose(dp_accounting.GaussianDpEvent(multiplier))
    # Its bound is a little above the truth, by its discretisation.
    assert accountant.get_epsilon(1e-5) == pytest.approx(epsilon, rel=1e-3)


@pytest.fixture
def some() -> LabelledImages:
    """So many records that noise of some times its unit leaves classes their shares."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3_000, 1, SIDE, SIDE), dtype=np.uint8)
    return records(images, [number % CLASSES for number in range(3_000)])


def test_the_released_noise_has_the_deviation_that_is_accounted_for(some: LabelledImages) -> None:
    exact, shares = mean_embedding(some, FOURIER), class_weights(some).unsqueeze(1)
    none = 1e-9
    noisy = [
        released(some, FOURIER, noise=EmbeddingNoise(embedding=5.0, weights=none), seed=seed)
        for seed in range(10)
    ]
    added = torch.stack([one * shares - exact for one in noisy])
    assert float(added.std()) == pytest.approx(5.0 * 2 / len(some), rel=0.05)
    assert abs(float(added.mean())) < 5.0 * 2 / len(some) / 10
    # The shares' noise shows in what the embedding is divided by.
    found = torch.stack(
        [
            exact.norm(dim=1) / one.norm(dim=1)
            for one in (
                released(
                    some, FOURIER, noise=EmbeddingNoise(embedding=none, weights=4.0), seed=seed
                )
                for seed in range(100)
            )
        ]
    )
    expected = 4.0 * math.sqrt(2) / len(some)
    assert float((found - shares.squeeze()).std()) == pytest.approx(expected, rel=0.15)


def test_noise_is_drawn_anew_for_another_seed_and_a_class_without_records_stays_finite(
    some: LabelledImages,
) -> None:
    noise = EmbeddingNoise(embedding=1.0, weights=1.0)
    one, other = (released(some, FOURIER, noise=noise, seed=seed) for seed in (0, 1))
    assert not torch.equal(one, other)
    empty = replace(some, labels=torch.zeros_like(some.labels))
    found = [released(empty, FOURIER, noise=noise, seed=seed) for seed in range(10)]
    assert torch.stack(found).isfinite().all()


def test_a_batch_has_a_place_for_every_class() -> None:
    generator = ConditionalGenerator(
        input_shape=(1, SIDE, SIDE), num_classes=CLASSES, latent_dim=2, seed=0
    )
    with pytest.raises(ConfigError, match="below the number of classes, 3"):
        imitate(
            torch.zeros(CLASSES, 100),
            FOURIER,
            generator,
            steps=1,
            batch_size=2,
            learning_rate=0.01,
            seed=0,
        )

"""The generator of labelled images makes an image of the class that it is given."""

from __future__ import annotations

import pytest
import torch

from dpsd.benchmarks.baselines.conditional import ConditionalGenerator, sampled


@pytest.fixture
def generator() -> ConditionalGenerator:
    return ConditionalGenerator(input_shape=(3, 8, 8), num_classes=4, latent_dim=5, seed=0)


def test_the_class_decides_the_image_beside_the_noise(generator: ConditionalGenerator) -> None:
    noise = torch.zeros(4, 5)
    images = generator.eval()(noise, torch.tensor([0, 1, 2, 1]))
    assert images.shape == (4, 3, 8, 8)
    assert torch.equal(images[1], images[3])
    assert not torch.allclose(images[0], images[1])


def test_a_sample_has_as_many_of_each_class_and_repeats_itself(
    generator: ConditionalGenerator,
) -> None:
    images, labels = sampled(generator, 502, seed=0)
    assert images.dtype == torch.uint8
    assert images.shape == (502, 3, 8, 8)
    assert torch.bincount(labels).tolist() == [126, 126, 125, 125]
    assert torch.equal(sampled(generator, 502, seed=0)[0], images)
    assert not torch.equal(sampled(generator, 502, seed=1)[0], images)

"""Training the generator against a frozen student, and sampling from it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dpsd.devices.execution import INFERENCE_BATCH, Execution
from dpsd.distillation.generator import (
    GeneratorTraining,
    PenultimateFeatures,
    fit_generator,
    sample_images,
)
from dpsd.distillation.objectives import GeneratorWeights
from dpsd.images.pixels import to_pixels
from dpsd.models import build_generator

SHAPE = (1, 8, 8)
EXECUTION = Execution.of("cpu", "float32")


def new_generator(seed: int = 0) -> nn.Module:
    return build_generator("dcgan", input_shape=SHAPE, latent_dim=16, seed=seed)


def one_sided_student() -> nn.Sequential:
    """Tells the brightest quarter of an image; at first sight everything looks like class 0."""
    linear = nn.Linear(64, 4)
    with torch.no_grad():
        linear.weight.zero_()
        for number in range(4):
            linear.weight[number, 16 * number : 16 * number + 16] = 1.0
        linear.bias.copy_(torch.tensor([4.0, 0.0, 0.0, 0.0]))
    return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), linear)


def fit(generator: nn.Module, student: nn.Module, *, steps: int, seed: int = 0) -> float:
    return fit_generator(
        generator,
        student,
        training=GeneratorTraining(
            steps=steps,
            batch_size=32,
            learning_rate=3e-3,
            weights=GeneratorWeights(classification=1.0, balance=5.0, activation=0.0),
        ),
        execution=EXECUTION,
        random=torch.Generator().manual_seed(seed),
        advance=lambda: None,
    )


def sample(generator: nn.Module, count: int, *, seed: int = 0) -> Tensor:
    return sample_images(
        generator,
        count,
        shape=SHAPE,
        execution=EXECUTION,
        random=torch.Generator().manual_seed(seed),
    )


def class_shares(generator: nn.Module, student: nn.Module) -> Tensor:
    predicted = EXECUTION.predict(student, sample(generator, 500)).argmax(-1)
    return torch.bincount(predicted, minlength=4) / 500


def test_the_generator_learns_to_cover_the_classes() -> None:
    generator, student = new_generator(), one_sided_student()
    assert float(class_shares(generator, student).max()) > 0.9
    first = fit(generator, student, steps=1)
    last = fit(generator, student, steps=80)
    assert last < first
    assert float(class_shares(generator, student).min()) > 0.1


def test_the_student_is_left_as_it_was() -> None:
    student = one_sided_student().train()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    fit(new_generator(), student, steps=3)
    assert all(tensor.equal(before[name]) for name, tensor in student.state_dict().items())
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in student.parameters())
    assert not student[2]._forward_hooks


def test_training_is_reproducible_bit_for_bit() -> None:
    generators = []
    for global_seed in (1, 2):
        generator = new_generator()
        torch.manual_seed(global_seed)  # nothing is drawn from the global generator
        fit(generator, one_sided_student(), steps=3)
        generators.append(generator.state_dict())
    assert all(generators[0][name].equal(generators[1][name]) for name in generators[0])


@pytest.mark.parametrize("count", [0, 1, 2, 17, INFERENCE_BATCH + 1])
def test_samples_are_bytes_of_the_shape(count: int) -> None:
    images = sample(new_generator(), count)
    assert images.shape == (count, *SHAPE)
    assert images.dtype == torch.uint8


def test_samples_differ_from_each_other_and_repeat_with_the_seed() -> None:
    generator = new_generator()
    images = sample(generator, 20)
    assert len({tuple(image.flatten().tolist()) for image in images}) == 20
    assert not sample(generator, 20, seed=1).equal(images)
    torch.manual_seed(5)
    assert sample(new_generator(), 20).equal(images)


def test_pixels_are_rounded_to_the_nearest_byte() -> None:
    values = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0])
    assert to_pixels(values).tolist() == [0, 0, 1, 255, 255]


def test_features_are_the_input_of_the_last_linear_layer() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 2))
    images = torch.rand((3, *SHAPE), generator=torch.Generator().manual_seed(0))
    with PenultimateFeatures(module) as features:
        module(images)
    assert features.last.equal(module[:3](images))
    features.last = torch.empty(0)
    module(images)  # no longer watched
    assert len(features.last) == 0


def test_features_of_a_model_without_a_linear_layer_are_its_output() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten())
    images = torch.rand((3, *SHAPE), generator=torch.Generator().manual_seed(0))
    with PenultimateFeatures(module) as features:
        module(images)
    assert features.last.equal(module(images))


def test_the_hook_is_gone_after_a_failure() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with pytest.raises(RuntimeError), PenultimateFeatures(module):
        module(torch.zeros(3, 5))
    assert not module[1]._forward_hooks

"""DP-GAN: its steps as by hand, and records that reach the generator by the discriminator alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.benchmarks.baselines import private_gan
from dpsd.benchmarks.baselines.conditional import ConditionalGenerator
from dpsd.benchmarks.baselines.private_gan import Discriminator, PrivateGan
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError
from dpsd.streams import stream

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook", "ignore:Optimal order")


@pytest.mark.thorough
def test_a_classifier_learns_from_the_images_within_the_budget(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    method = PrivateGan(epochs=20, batch_size=64, generator_every=2, images=1_200)
    outcome = measured(method, task, epsilon=20.0)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.5
    assert 19.5 < outcome.epsilon["add-or-remove"] <= 20.0
    assert outcome.epsilon["replace-one"] > outcome.epsilon["add-or-remove"]
    assert set(outcome.details) == {"delta", "noise_multiplier", "sample_rate", "steps"}


@pytest.fixture
def some(task: Task) -> LabelledImages:
    return replace(task.train, images=task.train.images[:70], labels=task.train.labels[:70])


@pytest.fixture
def generator(some: LabelledImages) -> ConditionalGenerator:
    return ConditionalGenerator(
        input_shape=some.input_shape, num_classes=some.num_classes, latent_dim=5, seed=0
    )


def weights_of(discriminator: Discriminator) -> Tensor:
    return torch.cat([part.detach().flatten() for part in discriminator.network.parameters()])


def step_of(discriminator: Discriminator) -> Tensor:
    """What one step changes in all weights."""
    before = weights_of(discriminator)
    discriminator.step()
    return weights_of(discriminator) - before


def step_by_hand(
    network: torch.nn.Module,
    data: LabelledImages,
    generator: ConditionalGenerator,
    *,
    bound: float,
) -> Tensor:
    """The same without noise, a pair at a time and without Opacus."""
    random = stream(0, 0, "images for a discriminator")
    each = max(2, PrivateGan().generator_batch // data.num_classes)
    pool = generator.batch(torch.arange(data.num_classes).repeat(each), random).detach()
    places = stream(0, 0, "places in a discriminator's images")
    beside = torch.randint(each, (len(data),), generator=places)
    made = pool.unflatten(0, (each, -1))[beside, data.labels]
    total = torch.zeros(())
    for real, fake, label in zip(data.images / 255, made, data.labels, strict=True):
        network.zero_grad()
        seen, invented = network(torch.stack([real, fake]))[:, label]
        torch.autograd.backward(F.softplus(-seen) + F.softplus(invented))
        gradient = torch.cat([part.grad.flatten() for part in network.parameters()])  # type: ignore[union-attr]
        total = total + gradient * (bound / gradient.norm()).clamp_max(1.0)
    return -total / len(data)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain gradient descent at rate 1, whose steps are the gradients."""
    monkeypatch.setattr(torch.optim, "Adam", lambda weights, **_: torch.optim.SGD(weights, lr=1.0))


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("bound", [0.1, 1e3])
def test_a_step_is_the_mean_of_the_clipped_gradients_of_pairs(
    some: LabelledImages, generator: ConditionalGenerator, bound: float
) -> None:
    method = PrivateGan(batch_size=70, max_grad_norm=bound)
    discriminator = Discriminator(method, some, generator, noise_multiplier=1e-9, seed=0)
    fresh = Discriminator(method, some, generator, noise_multiplier=1e-9, seed=0)
    fresh.network.disable_hooks()
    expected = step_by_hand(fresh.network, some, generator, bound=bound)
    step = step_of(discriminator)
    assert torch.allclose(step, expected, atol=1e-5)
    assert 0 < step.norm() <= bound * (1 + 1e-5)


@pytest.mark.usefixtures("plain")
def test_a_record_that_is_removed_moves_the_sum_by_no_more_than_the_bound(
    some: LabelledImages, generator: ConditionalGenerator
) -> None:
    bound = 0.01
    method = PrivateGan(batch_size=70, max_grad_norm=bound)
    fewer = replace(some, images=some.images[:-1], labels=some.labels[:-1])
    sums = [
        len(data) * step_of(Discriminator(method, data, generator, noise_multiplier=1e-9, seed=0))
        for data in (some, fewer)
    ]
    moved = float((sums[0] - sums[1]).norm())
    assert bound / 2 < moved <= bound * (1 + 1e-3)


@pytest.mark.usefixtures("plain")
def test_the_images_beside_records_depend_on_none_of_them(
    some: LabelledImages, generator: ConditionalGenerator
) -> None:
    pools = []
    for data in (some, some.subset(torch.arange(1, len(some)))):
        discriminator = Discriminator(
            PrivateGan(batch_size=70), data, generator, noise_multiplier=1.0, seed=0
        )
        discriminator.step()
        pools.append(discriminator._pool())
    assert torch.equal(*pools)


@pytest.mark.usefixtures("plain")
def test_noise_is_added_once_a_step_with_the_deviation_that_is_accounted_for(
    some: LabelledImages, generator: ConditionalGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_gan, "_GRADIENTS_AT_ONCE", 32)  # so a step has three parts
    method = PrivateGan(batch_size=70, max_grad_norm=0.1)
    step = step_of(Discriminator(method, some, generator, noise_multiplier=200.0, seed=0))
    # Beside it, the clipped gradients are nothing.
    assert float(step.std()) == pytest.approx(200.0 * 0.1 / 70, rel=0.05)


def test_what_teaches_the_generator_leaves_the_discriminator_alone(
    some: LabelledImages, generator: ConditionalGenerator
) -> None:
    method = PrivateGan(batch_size=70)
    discriminator = Discriminator(method, some, generator, noise_multiplier=1.0, seed=0)
    before = weights_of(discriminator)
    images = generator.batch(some.labels, torch.Generator().manual_seed(0))
    discriminator.teach(images, some.labels)
    part: Any
    for part in discriminator.network.parameters():
        assert part.grad is None or not part.grad.any()
        assert part.grad_sample is None
    assert torch.equal(weights_of(discriminator), before)
    assert all(part.grad is not None for part in generator.parameters())
    discriminator.step()  # and can go on
    assert not torch.equal(weights_of(discriminator), before)


def test_opacus_that_is_not_installed_is_named(
    task: Task, monkeypatch: pytest.MonkeyPatch, measured: Callable[..., Outcome]
) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ConfigError, match=r"pip install 'opacus>="):
        measured(PrivateGan(), task, epsilon=1.0)

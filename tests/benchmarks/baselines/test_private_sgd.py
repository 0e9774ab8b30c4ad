"""DP-SGD: its steps as by hand, its ε as by independent arithmetic."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dp_accounting
import pytest
import torch
import torch.nn.functional as F
from dp_accounting.pld import PLDAccountant
from torch import Tensor, nn

from dpsd.benchmarks.baselines import private_sgd
from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Adjacency, Budget

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")


@pytest.mark.parametrize(
    "method",
    [
        PrivateSGD(epochs=12, batch_size=128, learning_rate=2.0),
        PrivateSGD(network="tempered", epochs=12, batch_size=128, learning_rate=2.0),
    ],
    ids=lambda method: method.network,
)
@pytest.mark.thorough
def test_private_sgd_learns_within_its_budget(
    task: Task, method: PrivateSGD, measured: Callable[..., Outcome]
) -> None:
    outcome = measured(method, task, epsilon=8.0)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.75
    assert 7.5 < outcome.epsilon["add-or-remove"] <= 8.0
    seconds = [second for second, _ in outcome.details["curve"]]
    assert seconds == sorted(seconds)
    assert len(seconds) == 12


@pytest.mark.thorough
def test_the_model_that_is_trained_is_the_one_that_is_measured(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    method = PrivateSGD(epochs=2, batch_size=128, learning_rate=2.0)
    target = Budget(epsilon=8.0, delta=1e-5, adjacency=Adjacency.TEACHER)
    model = method.trained(task.train, target=target, seed=0)
    assert not model.training
    assert task.accuracy(model) == measured(method, task, epsilon=8.0).accuracy


@pytest.mark.thorough
def test_private_sgd_is_accounted_for_as_dp_accounting_would(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    outcome = measured(PrivateSGD(epochs=1, batch_size=128), task, epsilon=2.0)
    details = outcome.details
    # Replacing is removing and adding: at most twice the ε at nearly the same δ.
    assert 2.0 < outcome.epsilon["replace-one"] < 4.5
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    noisy = dp_accounting.GaussianDpEvent(details["noise_multiplier"])
    sampled = dp_accounting.PoissonSampledDpEvent(details["sample_rate"], noisy)
    accountant.compose(sampled, details["steps"])
    # Each bound is a little above the truth, by its own discretisation.
    assert accountant.get_epsilon(1e-5) == pytest.approx(outcome.epsilon["add-or-remove"], abs=0.03)


def test_private_sgd_needs_its_noise_less_at_a_larger_epsilon(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    strict = measured(PrivateSGD(epochs=1, batch_size=128), task, epsilon=0.05)
    assert strict.details["noise_multiplier"] > 5
    assert strict.accuracy is not None
    assert strict.accuracy < 0.4


def test_private_sgd_stops_at_a_target_and_pays_for_what_it_did(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    outcome = measured(
        PrivateSGD(epochs=12, batch_size=128, learning_rate=2.0, stop_at=0.6), task, epsilon=8.0
    )
    accuracies = [accuracy for _, accuracy in outcome.details["curve"]]
    assert accuracies[-1] >= 0.6 > max(accuracies[:-1], default=0.0)
    assert len(accuracies) < 12
    assert outcome.epsilon["add-or-remove"] < 7.0


def private_step(method: PrivateSGD, data: LabelledImages) -> Tensor:
    """What one step without noise changes in all weights, when every record is drawn."""
    model = next(method.models(data, noise_multiplier=1e-9, rate=1.0, seed=0))
    body, head = method.network_for(data, seed=0)
    pairs = zip(model.parameters(), nn.Sequential(body, head).parameters(), strict=True)
    return torch.cat([(after - before).flatten() for after, before in pairs]).detach()


def private_step_by_hand(method: PrivateSGD, data: LabelledImages) -> Tensor:
    """The same, a record at a time, without Opacus."""
    model = nn.Sequential(*method.network_for(data, seed=0))
    total = torch.zeros(())
    for image, label in zip(data.images, data.labels, strict=True):
        model.zero_grad()
        loss = F.cross_entropy(model(image[None] / 255), label[None])
        loss.backward()
        parts = [part.grad.flatten() for part in model.parameters() if part.grad is not None]
        gradient = torch.cat(parts)
        total = total + gradient * (method.max_grad_norm / gradient.norm()).clamp_max(1.0)
    return -method.learning_rate * total / len(data)


PLAIN_STEP: dict[str, Any] = {"learning_rate": 1.0, "momentum": 0.0, "averaging": 0.0}


@pytest.mark.parametrize("network", ["scattering", "scattering-maps", "tempered"])
@pytest.mark.parametrize("bound", [0.1, 1e3])
def test_a_private_step_is_the_mean_of_clipped_gradients(
    task: Task, network: Any, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Opacus confuses the gradients of weights that lie channels last, and says nothing.
    monkeypatch.setattr(private_sgd, "_GRADIENTS_AT_ONCE", 32)
    some = replace(task.train, images=task.train.images[:70], labels=task.train.labels[:70])
    method = PrivateSGD(network=network, max_grad_norm=bound, **PLAIN_STEP)
    step = private_step(method, some)
    assert torch.allclose(step, private_step_by_hand(method, some), atol=1e-5)
    assert 0 < step.norm() <= bound


def test_moved_copies_are_averaged_before_clipping(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = replace(task.train, images=task.train.images[:70], labels=task.train.labels[:70])
    four = PrivateSGD(network="tempered", augmentations=4, **PLAIN_STEP)
    assert private_step(four, some).norm() <= four.max_grad_norm
    monkeypatch.setattr(private_sgd, "augment_images", lambda images, *_, **__: images)
    one = PrivateSGD(network="tempered", **PLAIN_STEP)
    assert torch.allclose(private_step(one, some), private_step(four, some), atol=1e-5)


def test_opacus_that_is_not_installed_is_named(
    task: Task, monkeypatch: pytest.MonkeyPatch, measured: Callable[..., Outcome]
) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ConfigError, match=r"pip install 'opacus>="):
        measured(PrivateSGD(), task, epsilon=1.0)

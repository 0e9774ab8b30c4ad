"""Each baseline of the federated suite does what it is there for, on clients of the digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpsd.benchmarks.federated.alone import Alone, Centralised, Together
from dpsd.benchmarks.federated.averaging import Averaging, federated, flower_strategies
from dpsd.benchmarks.federated.clients import Clients, weights_of
from dpsd.benchmarks.federated.dense import Dense, disagreement, remembered
from dpsd.benchmarks.federated.distilling import FedDF, averaged
from dpsd.benchmarks.federated.private_averaging import LocalPrivateSGD, PrivateAveraging
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.errors import ConfigError
from dpsd.models import build_classifier
from dpsd.privacy.targets import Budget

Measured = Callable[..., Outcome]
Three = dict[str, Any]


def accuracy(outcome: Outcome) -> float:
    assert outcome.accuracy is not None
    return outcome.accuracy


def test_clients_together_know_more_than_the_best_alone(
    task: Task, three: Three, measured: Measured
) -> None:
    alone = measured(Alone(choice="mean", **three), task)
    best = measured(Alone(choice="best", **three), task)
    together = measured(Together(**three), task)
    assert accuracy(best) == max(best.details["clients"])
    assert accuracy(alone) < accuracy(best) < accuracy(together)
    assert accuracy(measured(Centralised(**three), task)) > 0.95


@pytest.mark.parametrize(
    "method",
    [
        Averaging(epochs=4),
        FedDF(images=1_000, epochs=2),
        pytest.param(
            Averaging(epochs=2, rounds=2, proximal=0.01),
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            Dense(epochs=6, generator_steps=6, student_steps=30, learning_rate=0.05),
            marks=pytest.mark.thorough,
        ),
    ],
    ids=lambda method: method.name,
)
def test_baselines_without_privacy_are_far_above_chance(
    method: Averaging | FedDF | Dense, task: Task, three: Three, measured: Measured
) -> None:
    method = replace(method, **three)
    outcome = measured(method, task)
    assert accuracy(outcome) > 0.4
    weights = weights_of(build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=0))
    size = sum(4 * part.numel() for part in weights.values())
    rounds = getattr(method, "rounds", 1)
    assert outcome.details["bytes_up"] == rounds * size
    assert not outcome.epsilon
    with pytest.raises(ConfigError, match="not private"):
        measured(method, task, epsilon=1.0)


def test_a_round_of_averaging_is_the_mean_of_what_clients_train(task: Task, three: Three) -> None:
    parts = Clients(**three).parts(task)
    layer = nn.Linear(64, 10)
    module = nn.Sequential(nn.Flatten(), layer)

    def local(own: nn.Module, part: object, proximal: float) -> None:
        for parameter in own.parameters():
            parameter.data.fill_(float(len(part)))  # type: ignore[arg-type]

    federated(
        task,
        parts,
        module,
        strategy=lambda: flower_strategies().FedAvg(fraction_evaluate=0.0),
        local=local,
        rounds=1,
    )
    sizes = torch.tensor([float(len(part)) for part in parts])
    expected = (sizes**2).sum() / sizes.sum()
    assert torch.allclose(layer.weight, expected.expand_as(layer.weight), rtol=1e-5)
    layers = [nn.Linear(1, 1) for _ in sizes]
    for one, size in zip(layers, sizes, strict=True):
        one.weight.data.fill_(float(size))
    assert float(averaged(layers, sizes.long())["weight"]) == pytest.approx(float(expected))


def test_a_client_that_fails_ends_the_training(task: Task, three: Three) -> None:
    def local(*_: object) -> None:
        raise ConfigError("a client failed")

    with pytest.raises(ConfigError, match="a client failed"):
        federated(
            task,
            Clients(**three).parts(task),
            nn.Linear(1, 1),
            strategy=lambda: flower_strategies().FedAvg(fraction_evaluate=0.0),
            local=local,
            rounds=1,
        )


def test_averages_for_a_client_meet_the_target(
    task: Task, three: Three, measured: Measured
) -> None:
    method = PrivateAveraging(epochs=1, rounds=2, **three)
    outcome = measured(method, task, epsilon=1.0)
    # Replacing a client moves a mean twice as far as removing one.
    assert outcome.epsilon["add-or-remove"] < outcome.epsilon["replace-one"] <= 1.0 + 1e-6
    noise = method.noise_multiplier(Budget(epsilon=1.0, delta=1e-5))
    once = PrivateAveraging(**three).noise_multiplier(Budget(epsilon=1.0, delta=1e-5))
    assert noise == pytest.approx(2**0.5 * once)
    with pytest.raises(ConfigError, match="give a target"):
        measured(method, task)


def test_nearly_no_noise_leaves_clients_clipped_average(
    task: Task, three: Three, measured: Measured
) -> None:
    method = PrivateAveraging(epochs=8, clipping_norm=100.0, **three)
    assert accuracy(measured(method, task, epsilon=1e6)) > 0.35


def test_private_training_at_each_client_meets_the_target(
    task: Task, three: Three, measured: Measured
) -> None:
    outcome = measured(LocalPrivateSGD(epochs=4, rate=1.0, **three), task, epsilon=10.0)
    assert outcome.epsilon["add-or-remove"] <= 10.0
    assert outcome.epsilon["replace-one"] > outcome.epsilon["add-or-remove"]
    assert accuracy(outcome) > 0.4


def test_batch_normalisation_is_at_rest_with_what_it_remembers() -> None:
    layer = nn.BatchNorm2d(3, momentum=None)
    images = torch.randn(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    layer(images)
    layer.eval()
    with remembered([layer]) as gaps:
        layer(images)
        layer(images + 1)
    layer(images)
    assert len(gaps) == 2
    assert float(gaps[0]) < 0.01
    assert float(gaps[1]) == pytest.approx(3**0.5, abs=0.01)


def test_only_images_on_which_classes_differ_count_as_disagreement() -> None:
    random = torch.Generator().manual_seed(0)
    ensemble, student = torch.randn(2, 40, 5, generator=random)
    p, q = ensemble.softmax(-1), student.softmax(-1)
    each = (p * (p / q).log()).sum(-1)
    differs = ensemble.argmax(-1) != student.argmax(-1)
    assert float(disagreement(ensemble, student)) == pytest.approx(float((each * differs).mean()))
    loss = disagreement(ensemble.requires_grad_(), student)
    assert not F.relu(torch.autograd.grad(loss, ensemble)[0][~differs].abs()).any()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Averaging(rounds=0), "rounds must be positive"),
        (lambda: Averaging(proximal=-1.0), "proximal must be at least 0"),
        (lambda: Alone(choice="worst"), "choice must be mean or best"),  # type: ignore[arg-type]
        (lambda: Clients(alpha=0.0), "alpha must be positive"),
        (lambda: Dense(batch_size=1), "batch_size must be at least 2"),
        (lambda: LocalPrivateSGD(rate=2.0), "rate must be at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()

"""What all baselines refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dpsd.benchmarks.baselines.data_free import DataFreeLearning
from dpsd.benchmarks.baselines.distillation import Distillation
from dpsd.benchmarks.baselines.embedding_generators import DpHp, DpMerf
from dpsd.benchmarks.baselines.label_privacy import PriorLabels, RandomizedLabels
from dpsd.benchmarks.baselines.pate import Pate
from dpsd.benchmarks.baselines.private_gan import PrivateGan
from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
from dpsd.benchmarks.methods import Method, Outcome, Task, Unit
from dpsd.benchmarks.scoring import RealRecords
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Budget

METHODS: list[Method] = [
    Distillation(),
    DataFreeLearning(),
    PrivateSGD(),
    Pate(),
    RandomizedLabels(),
    PriorLabels(),
    DpMerf(),
    DpHp(),
    PrivateGan(),
    RealRecords(),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_target_is_needed_by_what_is_private_and_refused_by_what_is_not(
    method: Method, task: Task, measured: Callable[..., Outcome]
) -> None:
    is_private = method.unit is not Unit.NOTHING
    with pytest.raises(ConfigError, match="give a target" if is_private else "give no target"):
        measured(method, task, epsilon=None if is_private else 1.0)


@pytest.mark.parametrize("method", [PrivateSGD(), Pate(), DpMerf(), PrivateGan()])
def test_gaussian_noise_needs_a_delta(method: Method, task: Task) -> None:
    with pytest.raises(ConfigError, match="delta above 0"):
        method.measure(task, target=Budget(epsilon=1.0, delta=0), seed=0)


@pytest.mark.parametrize(
    "broken",
    [
        lambda: Distillation(epochs=0),
        lambda: Distillation(temperature=0.0),
        lambda: DataFreeLearning(batch_size=1),
        lambda: PrivateSGD(batch_size=63),
        lambda: PrivateSGD(network="lenet5"),  # type: ignore[arg-type]
        lambda: PrivateSGD(augmentations=2),
        lambda: PrivateSGD(momentum=1.0),
        lambda: PrivateSGD(averaging=-0.1),
        lambda: PrivateSGD(network="tempered", augmentations=0),
        lambda: PrivateSGD(stop_at=95.0),
        lambda: PrivateSGD(learning_rate=float("nan")),
        lambda: Pate(shards=1),
        lambda: DpMerf(images=0),
        lambda: DpMerf(weights_share=1.0),
        lambda: DpMerf(features=0),
        lambda: DpHp(order=0),
        lambda: DpHp(correlation=1.0),
        lambda: PrivateGan(batch_size=63),
        lambda: PrivateGan(generator_batch=1),
        lambda: PrivateGan(generator_every=0),
        lambda: RandomizedLabels(epochs=0),
        lambda: PriorLabels(epochs=-1),
        lambda: PriorLabels(objective="dkd"),  # type: ignore[arg-type]
    ],
)
def test_settings_out_of_range(broken: Any) -> None:
    with pytest.raises(ConfigError):
        broken()

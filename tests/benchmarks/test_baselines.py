"""The methods that dpsd is compared with, on the digits that come with scikit-learn."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dp_accounting
import pytest
import torch
import torch.nn.functional as F
from dp_accounting.pld import PLDAccountant
from torch import Tensor, nn

from dpsd.benchmarks import baselines
from dpsd.benchmarks.baselines import (
    DataFreeLearning,
    Distillation,
    Pate,
    PriorLabels,
    PrivateSGD,
    RandomizedLabels,
    ReportedLabels,
    softened_divergence,
)
from dpsd.benchmarks.methods import Method, Outcome, Task, Unit
from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import RandomizedResponse
from dpsd.privacy.targets import Budget

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    task = Task(data="digits", teachers=tmp_path_factory.mktemp("teachers"))
    task.teacher_path()
    return task


class WithoutTrainingData(Task):
    """A task whose training images nobody may look at."""

    @property
    def train(self) -> LabelledImages:  # type: ignore[override]
        raise AssertionError("the training images were looked at")


def measured(method: Method, task: Task, *, epsilon: float | None = None) -> Outcome:
    target = None if epsilon is None else Budget(epsilon=epsilon, delta=1e-5)
    return method.measure(task, target=target, seed=0)


def test_distillation_comes_close_to_the_teacher(task: Task) -> None:
    outcome = measured(Distillation(), task)
    assert outcome.accuracy > 0.93
    assert not outcome.epsilon


def test_distillation_learns_from_the_teacher_and_not_from_labels(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shifted(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.module(images)
            return logits.roll(1, dims=-1)

    module = task.white_box()
    monkeypatch.setattr(Task, "white_box", lambda _: Shifted(module))
    assert measured(Distillation(epochs=3), task).accuracy < 0.1


def test_data_free_learning_sees_no_training_image(task: Task) -> None:
    blind = WithoutTrainingData(data="digits", teachers=task.teachers)
    outcome = measured(DataFreeLearning(steps=150, batch_size=128), blind)
    assert outcome.accuracy > 0.6
    with pytest.raises(AssertionError, match="looked at"):
        measured(Distillation(epochs=1), blind)


def test_data_free_learning_leaves_the_teacher_as_it_was(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = task.white_box()
    before = {name: part.clone() for name, part in module.state_dict().items()}
    monkeypatch.setattr(Task, "white_box", lambda _: module)
    measured(DataFreeLearning(steps=2, batch_size=16), task)
    assert all(torch.equal(part, before[name]) for name, part in module.state_dict().items())


@pytest.mark.parametrize(
    "method",
    [
        PrivateSGD(epochs=12, batch_size=128, learning_rate=2.0),
        PrivateSGD(network="tempered", epochs=12, batch_size=128, learning_rate=2.0),
    ],
    ids=lambda method: method.network,
)
def test_private_sgd_learns_within_its_budget(task: Task, method: PrivateSGD) -> None:
    outcome = measured(method, task, epsilon=8.0)
    assert outcome.accuracy > 0.75
    assert 7.5 < outcome.epsilon["add-or-remove"] <= 8.0
    seconds = [second for second, _ in outcome.details["curve"]]
    assert seconds == sorted(seconds)
    assert len(seconds) == 12


def test_private_sgd_is_accounted_for_as_dp_accounting_would(task: Task) -> None:
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


def test_private_sgd_needs_its_noise_less_at_a_larger_epsilon(task: Task) -> None:
    strict = measured(PrivateSGD(epochs=1, batch_size=128), task, epsilon=0.05)
    assert strict.details["noise_multiplier"] > 5
    assert strict.accuracy < 0.4


def test_private_sgd_stops_at_a_target_and_pays_for_what_it_did(task: Task) -> None:
    outcome = measured(
        PrivateSGD(epochs=12, batch_size=128, learning_rate=2.0, stop_at=0.6), task, epsilon=8.0
    )
    accuracies = [accuracy for _, accuracy in outcome.details["curve"]]
    assert accuracies[-1] >= 0.6 > max(accuracies[:-1], default=0.0)
    assert len(accuracies) < 12
    assert outcome.epsilon["add-or-remove"] < 7.0


def private_step(method: PrivateSGD, data: LabelledImages) -> Tensor:
    """What one step without noise changes in all weights, when every record is drawn."""
    model = next(method._models(data, noise_multiplier=1e-9, rate=1.0, seed=0))
    body, head = method._network(data, seed=0)
    pairs = zip(model.parameters(), nn.Sequential(body, head).parameters(), strict=True)
    return torch.cat([(after - before).flatten() for after, before in pairs]).detach()


def private_step_by_hand(method: PrivateSGD, data: LabelledImages) -> Tensor:
    """The same, a record at a time, without Opacus."""
    model = nn.Sequential(*method._network(data, seed=0))
    total = torch.zeros(())
    for image, label in zip(data.images, data.labels, strict=True):
        model.zero_grad()
        loss = F.cross_entropy(model(image[None] / 255), label[None])
        loss.backward()  # type: ignore[no-untyped-call]
        parts = [part.grad.flatten() for part in model.parameters() if part.grad is not None]
        gradient = torch.cat(parts)
        total = total + gradient * (method.max_grad_norm / gradient.norm()).clamp_max(1.0)
    return -method.learning_rate * total / len(data)


PLAIN_STEP = {"learning_rate": 1.0, "momentum": 0.0, "averaging": 0.0}


@pytest.mark.parametrize("network", ["scattering", "tempered"])
@pytest.mark.parametrize("bound", [0.1, 1e3])
def test_a_private_step_is_the_mean_of_clipped_gradients(
    task: Task, network: Any, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Opacus confuses the gradients of weights that lie channels last, and says nothing.
    monkeypatch.setattr(baselines, "_GRADIENTS_AT_ONCE", 32)
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
    monkeypatch.setattr(baselines, "augment_images", lambda images, *_, **__: images)
    one = PrivateSGD(network="tempered", **PLAIN_STEP)
    assert torch.allclose(private_step(one, some), private_step(four, some), atol=1e-5)


def test_pate_keeps_its_budget_and_its_held_out_images_apart(task: Task) -> None:
    outcome = measured(Pate(shards=20, queries=200), task, epsilon=50.0)
    assert outcome.epsilon["teacher"] == pytest.approx(50.0, rel=1e-3)
    assert outcome.details["measured_on"] == len(task.test) - 200
    assert outcome.details["label_accuracy"] > 0.85
    assert outcome.accuracy > 0.75
    noisy = measured(Pate(shards=20, queries=200), task, epsilon=0.1)
    assert noisy.details["label_accuracy"] < 0.4


def test_pate_asks_about_public_images_alone(task: Task) -> None:
    with pytest.raises(ConfigError, match="images are public"):
        measured(Pate(shards=20, queries=len(task.test)), task, epsilon=1.0)


@pytest.mark.parametrize("method", [RandomizedLabels(), PriorLabels()])
def test_labels_hardly_randomised_are_as_good_as_clean_ones(
    task: Task, method: RandomizedLabels | PriorLabels
) -> None:
    outcome = measured(method, task, epsilon=20.0)
    assert outcome.accuracy > 0.9
    assert outcome.epsilon["replace-one-label"] == pytest.approx(20.0, abs=1e-4)
    assert outcome.details["true_labels"] > 0.99


@pytest.mark.parametrize("method", [RandomizedLabels(epochs=2), PriorLabels(epochs=2)])
def test_labels_that_say_nothing_teach_nothing(
    task: Task, method: RandomizedLabels | PriorLabels
) -> None:
    outcome = measured(method, task, epsilon=0.01)
    assert outcome.accuracy < 0.35
    assert outcome.details["true_labels"] < 0.2


def test_exact_likelihoods_survive_noise_that_most_labels_drown_in(task: Task) -> None:
    outcome = measured(RandomizedLabels(), task, epsilon=2.0)
    assert outcome.details["true_labels"] == pytest.approx(0.45, abs=0.05)
    assert outcome.accuracy > 0.8


def test_the_second_stage_reports_more_labels_truly(task: Task) -> None:
    outcome = measured(PriorLabels(), task, epsilon=2.0)
    plain, informed = outcome.details["true_labels_by_stage"]
    assert informed > plain + 0.2


def test_each_label_is_randomised_once(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed: list[Tensor] = []
    candidates: list[object] = []
    seal, privatize = RawAnswers.seal, RandomizedResponse.privatize

    def watched_seal(answers: object, **facts: Any) -> RawAnswers:
        assert isinstance(answers, Tensor)
        sealed.append(answers.argmax(-1))
        return seal(answers, **facts)

    def watched(self: RandomizedResponse, answers: RawAnswers, prior: Tensor) -> Tensor:
        candidates.append(self.candidates)
        return privatize(self, answers, prior)

    monkeypatch.setattr(RawAnswers, "seal", watched_seal)
    monkeypatch.setattr(RandomizedResponse, "privatize", watched)
    measured(PriorLabels(epochs=1), task, epsilon=1.0)
    assert candidates == ["all", "per-query"]
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(sealed), task.train.labels[order])


def test_what_a_student_is_fitted_to_is_the_report(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that peeks at true labels would learn in spite of reports that are all wrong."""

    def lie(self: RandomizedResponse, answers: RawAnswers, prior: Tensor) -> Tensor:
        return torch.zeros(len(answers), dtype=torch.int64)

    monkeypatch.setattr(RandomizedResponse, "privatize", lie)
    for method in (RandomizedLabels(epochs=2), PriorLabels(epochs=2)):
        assert measured(method, task, epsilon=1.0).accuracy < 0.2


def test_stages_share_no_noise() -> None:
    labels, prior = torch.zeros(200, dtype=torch.int64), torch.full((200, 10), 0.1)
    first, second, again = (
        ReportedLabels.of(labels, prior, "all", target=Budget(epsilon=1.0), seed=0, stage=stage)
        for stage in (0, 1, 0)
    )
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, second.labels)


def test_the_divergence_is_that_of_the_definition() -> None:
    random = torch.Generator().manual_seed(0)
    logits, wanted = torch.randn(2, 5, 3, generator=random, dtype=torch.float64)
    p, q = (wanted / 2).softmax(-1), (logits / 2).softmax(-1)
    by_hand = 4 * (p * (p / q).log()).sum(-1).mean()
    assert softened_divergence(logits, wanted, temperature=2.0) == pytest.approx(float(by_hand))


METHODS: list[Method] = [
    Distillation(),
    DataFreeLearning(),
    PrivateSGD(),
    Pate(),
    RandomizedLabels(),
    PriorLabels(),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_target_is_needed_by_what_is_private_and_refused_by_what_is_not(
    method: Method, task: Task
) -> None:
    is_private = method.unit is not Unit.NOTHING
    with pytest.raises(ConfigError, match="give a target" if is_private else "give no target"):
        measured(method, task, epsilon=None if is_private else 1.0)


@pytest.mark.parametrize("method", [PrivateSGD(), Pate()])
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
        lambda: RandomizedLabels(epochs=0),
        lambda: PriorLabels(epochs=-1),
        lambda: PriorLabels(objective="dkd"),  # type: ignore[arg-type]
    ],
)
def test_settings_out_of_range(broken: Any) -> None:
    with pytest.raises(ConfigError):
        broken()


def test_opacus_that_is_not_installed_is_named(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ConfigError, match=r"pip install dpsd\[benchmarks\]"):
        measured(PrivateSGD(), task, epsilon=1.0)


def test_a_teacher_is_trained_once(task: Task) -> None:
    written = (task.teacher_path() / "teacher.safetensors").stat().st_mtime_ns
    assert (task.teacher_path() / "teacher.safetensors").stat().st_mtime_ns == written
    assert task.teacher().members == 1
    assert Path(task.teacher(20).location or "").name == "digits-20-8-views"
    assert task.teacher(20).is_disjoint


def test_an_ensemble_is_no_white_box(task: Task) -> None:
    from dpsd.benchmarks.teachers import open_module

    with pytest.raises(ConfigError, match="holds 20 teachers"):
        open_module(task.teacher_path(20))

"""Randomised labels: each once, and nothing else of them is learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dpsd.benchmarks.baselines.label_privacy import PriorLabels, RandomizedLabels
from dpsd.benchmarks.baselines.reported_labels import ReportedLabels
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import RandomizedResponse
from dpsd.privacy.targets import Budget


@pytest.mark.parametrize("method", [RandomizedLabels(), PriorLabels()])
def test_labels_hardly_randomised_are_as_good_as_clean_ones(
    task: Task, method: RandomizedLabels | PriorLabels, measured: Callable[..., Outcome]
) -> None:
    outcome = measured(method, task, epsilon=20.0)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.9
    assert outcome.epsilon["replace-one-label"] == pytest.approx(20.0, abs=1e-4)
    assert outcome.details["true_labels"] > 0.99


@pytest.mark.parametrize("method", [RandomizedLabels(epochs=2), PriorLabels(epochs=2)])
def test_labels_that_say_nothing_teach_nothing(
    task: Task, method: RandomizedLabels | PriorLabels, measured: Callable[..., Outcome]
) -> None:
    outcome = measured(method, task, epsilon=0.01)
    assert outcome.accuracy is not None
    assert outcome.accuracy < 0.35
    assert outcome.details["true_labels"] < 0.2


def test_exact_likelihoods_survive_noise_that_most_labels_drown_in(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    outcome = measured(RandomizedLabels(), task, epsilon=2.0)
    assert outcome.details["true_labels"] == pytest.approx(0.45, abs=0.05)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.8


def test_the_second_stage_reports_more_labels_truly(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    outcome = measured(PriorLabels(), task, epsilon=2.0)
    plain, informed = outcome.details["true_labels_by_stage"]
    assert informed > plain + 0.2


def test_each_label_is_randomised_once(
    task: Task, monkeypatch: pytest.MonkeyPatch, measured: Callable[..., Outcome]
) -> None:
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
    task: Task, monkeypatch: pytest.MonkeyPatch, measured: Callable[..., Outcome]
) -> None:
    """A method that peeks at true labels would learn in spite of reports that are all wrong."""

    def lie(self: RandomizedResponse, answers: RawAnswers, prior: Tensor) -> Tensor:
        return torch.zeros(len(answers), dtype=torch.int64)

    monkeypatch.setattr(RandomizedResponse, "privatize", lie)
    for method in (RandomizedLabels(epochs=2), PriorLabels(epochs=2)):
        outcome = measured(method, task, epsilon=1.0)
        assert outcome.accuracy is not None
        assert outcome.accuracy < 0.2


def test_stages_share_no_noise() -> None:
    labels, prior = torch.zeros(200, dtype=torch.int64), torch.full((200, 10), 0.1)
    first, second, again = (
        ReportedLabels.of(labels, prior, "all", target=Budget(epsilon=1.0), seed=0, stage=stage)
        for stage in (0, 1, 0)
    )
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, second.labels)

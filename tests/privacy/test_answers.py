"""Sealing: bad answers are refused, good ones are hidden."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dpsd.privacy.answers import AnswerCheckError, RawAnswers, Scores, open_for_mechanism

SECRET = 0.8765432


def seal(answers: object, scores: Scores = "probabilities") -> RawAnswers:
    return RawAnswers.seal(answers, batch=2, num_classes=3, scores=scores)


def secret_answers() -> Tensor:
    rest = (1 - SECRET) / 2
    return torch.tensor([[SECRET, rest, rest], [rest, SECRET, rest]])


def test_probabilities_are_kept() -> None:
    torch.testing.assert_close(open_for_mechanism(seal(secret_answers())), secret_answers())


def test_logits_become_probabilities() -> None:
    logits = torch.tensor([[5.0, 0.0, -5.0], [0.0, 1000.0, 0.0]])
    opened = open_for_mechanism(seal(logits, "logits"))
    torch.testing.assert_close(opened, logits.softmax(-1))


def test_slightly_rounded_probabilities_are_normalised() -> None:
    opened = open_for_mechanism(seal(secret_answers().half() - 1e-5))
    assert (opened >= 0).all()
    torch.testing.assert_close(opened.sum(-1), torch.ones(2))


def test_several_teachers() -> None:
    answers = seal(torch.full((4, 2, 3), 1 / 3))
    assert len(answers) == 2
    assert repr(answers) == "RawAnswers(shape=(4, 2, 3))"


def test_sealed_answers_carry_no_gradient() -> None:
    logits = torch.zeros((2, 3), requires_grad=True)
    assert not open_for_mechanism(seal(logits, "logits")).requires_grad


ILL = secret_answers()


def changed(value: float) -> Tensor:
    answers = ILL.clone()
    answers[1, 2] = value
    return answers


@pytest.mark.parametrize(
    ("answers", "scores", "reason"),
    [
        (ILL.tolist(), "probabilities", "a list instead of a tensor"),
        (ILL.numpy(), "probabilities", "a ndarray instead of a tensor"),
        (None, "logits", "a NoneType instead of a tensor"),
        (ILL[0], "probabilities", r"shape \(3,\) instead of \(2, 3\)"),
        (ILL[None, None], "probabilities", "instead of"),
        (ILL[:1], "probabilities", "1 answers for a batch of 2 images"),
        (ILL[:, :2], "logits", "2 classes instead of 3"),
        (ILL.T, "logits", "answers for a batch"),
        (changed(float("nan")), "probabilities", "not finite"),
        (changed(float("nan")), "logits", "not finite"),
        (changed(float("inf")), "logits", "not finite"),
        (changed(-float("inf")), "logits", "not finite"),
        (changed(-0.2), "probabilities", "not probabilities"),
        (changed(0.5), "probabilities", "not probabilities"),
        (torch.zeros((2, 3)), "probabilities", "not probabilities"),
        (ILL * 7, "probabilities", "not probabilities"),
        (torch.tensor([[2.0, -1.5, 0.5], [0.2, 0.3, 0.5]]), "probabilities", "not probabilities"),
    ],
)
def test_bad_answers_are_refused_without_quoting_them(
    answers: object, scores: Scores, reason: str
) -> None:
    with pytest.raises(AnswerCheckError, match=reason) as caught:
        seal(answers, scores)
    assert str(SECRET)[:5] not in str(caught.value)
    assert "0.5" not in str(caught.value)


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format])
def test_nothing_shows_the_answers(show: Callable[[object], str]) -> None:
    assert show(seal(secret_answers())) == "RawAnswers(shape=(2, 3))"


@pytest.mark.parametrize(
    "take",
    [pickle.dumps, copy.copy, copy.deepcopy, lambda answers: torch.save(answers, "answers.pt")],
    ids=["pickle", "copy", "deepcopy", "torch.save"],
)
def test_answers_cannot_be_taken_along(
    take: Callable[[RawAnswers], object], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    with pytest.raises(TypeError, match="cannot be copied, pickled or saved") as caught:
        take(seal(secret_answers()))
    assert str(SECRET)[:5] not in str(caught.value)


@pytest.mark.parametrize(
    "use",
    [
        lambda answers: answers[0],
        lambda answers: list(answers),
        lambda answers: answers + 1,
        lambda answers: float(answers),
        lambda answers: vars(answers),
        lambda answers: torch.tensor(answers),
        lambda answers: np.asarray(answers, dtype=float),
        lambda answers: json.dumps(answers),
        lambda answers: answers.probabilities,
    ],
)
def test_answers_are_no_tensor(use: Callable[[RawAnswers], object]) -> None:
    with pytest.raises((TypeError, AttributeError, ValueError, RuntimeError)) as caught:
        use(seal(secret_answers()))
    assert str(SECRET)[:5] not in str(caught.value)


def test_answers_take_no_attributes() -> None:
    with pytest.raises(AttributeError):
        seal(secret_answers()).remembered = 1  # type: ignore[attr-defined]

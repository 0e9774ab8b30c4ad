"""Who is charged for a run, and who is told where nobody is."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

import dpsd
from dpsd.errors import BudgetError
from dpsd.models import build_classifier
from dpsd.privacy.targets import Budget
from dpsd.runs.observing import Observer
from dpsd.teachers import Teacher
from dpsd.transcription.admission import account_of
from dpsd.transcription.starting import resume, transcribe


class Listening(Observer):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def warn(self, message: str) -> None:
        self.heard.append(message)


def sides(images: Tensor) -> Tensor:
    return 20 * images[:, 0, :, :6].reshape(len(images), 8, 2, 3).mean((1, 3))


def function(name: str = "sides") -> Teacher:
    return dpsd.load_teacher(sides, input_shape=(1, 8, 8), scores="logits", name=name)


def module() -> Teacher:
    built = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=2, seed=0)
    return dpsd.load_teacher(built, input_shape=(1, 8, 8), scores="logits")


def heard(teacher: Teacher, *paths: Path) -> list[str]:
    observer = Listening()
    account_of(teacher, *paths, target=Budget(epsilon=1.0), count_earlier=False, observer=observer)
    return observer.heard


def test_a_function_without_a_budget_is_told_of_once_a_run(tmp_path: Path) -> None:
    options = {
        "mechanism": dpsd.RandomizedResponse(),
        "budget": dpsd.Budget(epsilon=2.0, adjacency="response"),
        "recipe": dpsd.Recipe(rounds=2, queries=60, generator_steps=1),
    }
    for again in (False, True):
        observer = Listening()
        if again:
            resume(tmp_path / "run", function(), observer=observer)
        else:
            transcribe(function(), out=tmp_path / "run", observer=observer, **options)  # type: ignore[arg-type]
        (said,) = [message for message in observer.heard if "no budget" in message]
        assert said.startswith("callable sides has no budget")
        assert "--budget-file (budget_file=)" in said


def test_a_teacher_with_a_budget_is_not(tmp_path: Path) -> None:
    assert heard(function(), tmp_path / "budget.jsonl") == []
    assert heard(module()) == []


def test_those_of_several_that_have_none_are_counted() -> None:
    both = dpsd.load_teacher([function("a"), module()])
    (said,) = heard(both)
    assert said.startswith("callable a has no budget")
    several = dpsd.load_teacher([function("a"), function("b"), module()])
    (said,) = heard(several)
    assert said.startswith("callable a and 1 more have no budget")


def test_the_way_on_is_quoted_for_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose answers were lost says how to continue it, wherever it is."""

    class Lost(Observer):
        def phase_finished(self, name: str, *, seconds: float, round_index: int) -> None:
            if (name, round_index) == ("teacher", 2):
                raise KeyboardInterrupt

    path = tmp_path / "my run"
    with pytest.raises(KeyboardInterrupt):
        transcribe(
            function(),
            mechanism=dpsd.RandomizedResponse(),
            budget=dpsd.Budget(epsilon=2.0, adjacency="response"),
            recipe=dpsd.Recipe(rounds=2, queries=60, generator_steps=1),
            out=path,
            observer=Lost(),
        )
    with pytest.raises(BudgetError) as caught:
        resume(path, function(), observer=Listening())
    for command in ("evaluate", "export"):
        assert f"dpsd {command} '{path}'" in str(caught.value)
    # The teacher is a function of this process, which no command can be given.
    call = f"dpsd.resume({str(path)!r}, teacher) in Python, with cap=dpsd.Budget.parse("
    assert call in str(caught.value)
    monkeypatch.setattr(dpsd.RunDirectory, "objects", ())
    with pytest.raises(BudgetError) as caught:
        resume(path, function(), observer=Listening())
    assert f"dpsd transcribe --resume '{path}' --cap" in str(caught.value)

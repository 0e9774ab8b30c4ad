"""Runs write down what they ask of a teacher, where its next run will find it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dpsd
from dpsd import Budget, BudgetError, ConfigError, RandomizedResponse, Recipe, Run, RunError
from dpsd.budgets import budget_of
from dpsd.locks import exclusively
from dpsd.models import build_classifier
from dpsd.teachers import Teacher
from dpsd.teachers.directory import TeacherRecord, save_teacher

SHAPE = (1, 8, 8)
RECIPE = Recipe(
    rounds=2, queries=64, epochs=1.0, batch_size=32, generator_steps=1, generator_batch_size=16,
    device="cpu", precision="float32",
)  # fmt: skip


class Thirds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.gain * images[:, 0, :6].reshape(len(images), 3, 16).mean(-1)


@pytest.fixture
def teacher() -> Teacher:
    return dpsd.load_teacher(Thirds(), input_shape=SHAPE)


def run(teacher: Teacher, out: Path, **more: Any) -> Run:
    return dpsd.transcribe(
        teacher,
        mechanism=RandomizedResponse(),
        budget=Budget(epsilon=2.0, delta=0, adjacency="round"),
        student="lenet5",
        out=out,
        recipe=RECIPE,
        **more,
    )


def stored_teacher(path: Path) -> Teacher:
    module = build_classifier("lenet5", input_shape=SHAPE, num_classes=3, seed=0)
    record = TeacherRecord(model="lenet5", input_shape=SHAPE, num_classes=3)
    return dpsd.load_teacher(save_teacher(path, module, record))


def test_a_budget_is_beside_the_teacher(tmp_path: Path) -> None:
    teacher = stored_teacher(tmp_path / "teacher")
    found = budget_of(teacher)
    assert found is not None
    assert found.path == tmp_path / "teacher" / "budget.jsonl"
    run(teacher, tmp_path / "run")
    assert [one.directory for one in found.runs()] == [str(tmp_path / "run")]


def test_a_teacher_without_a_place_is_known_by_its_content(
    teacher: Teacher, own_data_directory: Path
) -> None:
    found, again = budget_of(teacher), budget_of(dpsd.load_teacher(Thirds(), input_shape=SHAPE))
    assert found is not None
    assert again is not None
    assert found.path == again.path
    assert own_data_directory in found.path.parents


def test_a_place_that_cannot_be_written_is_left_alone(
    tmp_path: Path, own_data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = stored_teacher(tmp_path / "teacher")
    monkeypatch.setattr("dpsd.budgets.os.access", lambda path, mode: False)
    found = budget_of(teacher)
    assert found is not None
    assert own_data_directory in found.path.parents


def test_a_budget_is_gone_on_with_wherever_it_is(
    tmp_path: Path, own_data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = stored_teacher(tmp_path / "teacher")
    with monkeypatch.context() as patched:
        patched.setattr("dpsd.budgets.os.access", lambda path, mode: False)
        run(teacher, tmp_path / "run")
    found = budget_of(teacher)
    assert found is not None
    assert own_data_directory in found.path.parents
    assert len(found.runs()) == 1
    (tmp_path / "teacher" / "budget.jsonl").touch()
    with pytest.raises(BudgetError, match="has two budgets"):
        budget_of(teacher)


def test_a_callable_has_a_budget_where_one_says_so(tmp_path: Path) -> None:
    teacher = dpsd.load_teacher(Thirds().forward, input_shape=SHAPE, scores="logits", name="thirds")
    assert budget_of(teacher) is None
    file = tmp_path / "budget.jsonl"
    run(teacher, tmp_path / "run", budget_file=file)
    assert file.exists()
    with pytest.raises(ConfigError, match="budget_file"):
        run(teacher, tmp_path / "other", cap=Budget(epsilon=9.0))


def test_a_cap_refuses_the_second_run_before_the_first_answer(
    teacher: Teacher, tmp_path: Path
) -> None:
    cap = Budget(epsilon=3.0, delta=0, adjacency="round")
    run(teacher, tmp_path / "one", cap=cap)
    with pytest.raises(BudgetError, match="spent ε = 4 under 'round'"):
        run(teacher, tmp_path / "other", cap=cap)
    found = budget_of(teacher)
    assert found is not None
    assert len(found.runs()) == 1
    assert not (tmp_path / "other").exists()


def test_a_certificate_tells_of_earlier_runs(teacher: Teacher, tmp_path: Path) -> None:
    first = run(teacher, tmp_path / "one").certificate
    second = run(teacher, tmp_path / "other").certificate
    nothing = {"runs": 0, "response": 0, "round": 0, "teacher": 0}
    assert first.earlier is not None
    assert first.earlier.items() >= nothing.items()
    assert first.earlier["file"].endswith("budget.jsonl")
    assert second.earlier is not None
    assert second.earlier["runs"] == 1
    assert second.earlier["round"] == pytest.approx(2.0)
    assert "2 under `round`" in second.history
    assert second == dpsd.RunDirectory.open(tmp_path / "other").certify()


def test_one_run_at_a_time_on_a_budget(teacher: Teacher, tmp_path: Path) -> None:
    file = tmp_path / "budget.jsonl"
    with exclusively(file), pytest.raises(RunError, match="is in use by process"):
        run(teacher, tmp_path / "run", budget_file=file)


def test_what_a_crash_wasted_stops_a_run_at_its_cap(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    cap = Budget(epsilon=2.0, delta=0, adjacency="round")
    asked: Callable[..., Any] = teacher.ask
    monkeypatch.setattr(teacher, "ask", crash)
    with pytest.raises(KeyboardInterrupt):
        run(teacher, tmp_path / "run", cap=cap)
    monkeypatch.setattr(teacher, "ask", asked)
    with pytest.raises(BudgetError, match=r"ε = 3 .*above its target 2\. To allow"):
        dpsd.resume(tmp_path / "run", teacher)
    resumed = dpsd.resume(tmp_path / "run", teacher, cap=Budget(epsilon=3.0, delta=0))
    assert resumed.certificate.spent.round == pytest.approx(3.0)

"""A ledger that was cut short, and a run that went on twice, are found by the teacher's budget."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dpsd
from dpsd import Budget, NoisyVotes, RandomizedResponse, Recipe, RunDirectory, RunError
from dpsd.models import build_classifier
from dpsd.privacy.records.teacher_budget import TeacherBudget
from dpsd.runs.budgets import budget_of
from dpsd.runs.reconciliation import reconcile
from dpsd.teachers import Teacher
from dpsd.teachers.directory import TeacherRecord, save_teacher
from dpsd.transcription.learning import Learning

SHAPE = (1, 8, 8)
RECIPE = Recipe(
    rounds=2, queries=64, student_steps=3, batch_size=32, generator_steps=1,
    generator_batch_size=16,
    device="cpu", precision="float32",
)  # fmt: skip
CAP = Budget(epsilon=50.0, delta=1e-5, adjacency="round")


def stored(path: Path, *, seed: int = 0) -> Path:
    module = build_classifier("lenet5", input_shape=SHAPE, num_classes=3, seed=seed)
    return save_teacher(
        path, module, TeacherRecord(model="lenet5", input_shape=SHAPE, num_classes=3)
    )


def begin(teacher: Teacher, out: Path, **more: Any) -> None:
    dpsd.transcribe(
        teacher,
        mechanism=RandomizedResponse() if teacher.members == 1 else NoisyVotes(),
        budget=Budget(epsilon=4.0, delta=1e-5, adjacency="round"),
        student="lenet5",
        out=out,
        recipe=RECIPE,
        **more,
    )


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Play the first round of a run and no more."""

    def play(teacher: Teacher, out: Path, **more: Any) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Learning, "teach_student", stop)
            with pytest.raises(KeyboardInterrupt):
                begin(teacher, out, **more)

    return play


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def cut(path: Path, *, lines: int) -> None:
    kept = path.read_bytes().splitlines(keepends=True)[:-lines]
    path.write_bytes(b"".join(kept))


def test_a_reservation_that_was_cut_off_the_ledger_is_found(
    tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    teacher = dpsd.load_teacher(stored(tmp_path / "teacher"))
    interrupted(teacher, tmp_path / "run")
    directory = RunDirectory.open(tmp_path / "run")
    compared = reconcile(directory)
    assert compared.files == (tmp_path / "teacher" / "budget.jsonl",)
    assert not compared.shortfalls
    assert "was compared with the teacher's budget" in compared.describe()
    cut(directory.ledger.path, lines=2)
    shutil.rmtree(tmp_path / "run" / "releases")
    words = r"budget .*/teacher/budget\.jsonl, line 1: .*round 1 \(64 answers\), but ledger .*, 1:"
    with pytest.raises(RunError, match=words):
        reconcile(directory)
    # Who goes on with it pays for what was cut off.
    (tmp_path / "run" / "releases").mkdir()
    resumed = dpsd.resume(tmp_path / "run", teacher, cap=CAP)
    assert resumed.certificate.events["round"] == 3
    assert not reconcile(directory).shortfalls


def test_a_copied_run_that_goes_on_twice_is_found(
    tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    teacher = dpsd.load_teacher(stored(tmp_path / "teacher"))
    interrupted(teacher, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    dpsd.resume(tmp_path / "run", teacher)
    with pytest.raises(RunError, match=r"round 2 .*copy/ledger\.jsonl .*a copy of the run asked"):
        reconcile(RunDirectory.open(tmp_path / "copy"))
    with pytest.raises(dpsd.BudgetError, match="asked by a copy of it"):
        dpsd.resume(tmp_path / "copy", teacher)
    again = dpsd.resume(tmp_path / "copy", teacher, cap=CAP)
    assert again.certificate.events["round"] == 3
    with pytest.raises(RunError, match=r"run/ledger\.jsonl has no such line"):
        reconcile(RunDirectory.open(tmp_path / "run"))
    assert not reconcile(RunDirectory.open(tmp_path / "copy")).shortfalls


def test_what_was_cut_off_a_budget_is_told(tmp_path: Path) -> None:
    teacher = dpsd.load_teacher(stored(tmp_path / "teacher"))
    begin(teacher, tmp_path / "run")
    cut(tmp_path / "teacher" / "budget.jsonl", lines=1)
    (shortfall,) = reconcile(RunDirectory.open(tmp_path / "run")).shortfalls
    assert "does not record all" in shortfall
    assert "(round 2)" in shortfall


def test_a_crash_between_ledger_and_budget_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = dpsd.load_teacher(stored(tmp_path / "teacher"))
    with monkeypatch.context() as patched:
        patched.setattr("dpsd.privacy.records.accounts.Accounts.reserve", stop)
        with pytest.raises(KeyboardInterrupt):
            begin(teacher, tmp_path / "run")
    assert not (tmp_path / "teacher" / "budget.jsonl").exists()
    directory = RunDirectory.open(tmp_path / "run")
    assert "was not compared" in reconcile(directory).describe()
    dpsd.resume(tmp_path / "run", teacher, cap=CAP)
    compared = reconcile(directory)
    assert compared.files
    assert not compared.shortfalls


def test_every_member_of_a_committee_is_looked_at(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        stored(tmp_path / "all" / name, seed=seed)
    begin(dpsd.load_teacher(tmp_path / "all"), tmp_path / "run")
    directory = RunDirectory.open(tmp_path / "run")
    assert len(reconcile(directory).files) == 2
    cut(tmp_path / "all" / "b" / "budget.jsonl", lines=1)
    (shortfall,) = reconcile(directory).shortfalls
    assert "all/b/budget.jsonl" in shortfall


def test_a_run_that_an_earlier_dpsd_began_goes_on_in_the_accounts_of_members(
    tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    for seed, name in enumerate("ab"):
        stored(tmp_path / "all" / name, seed=seed)
    committee = dpsd.load_teacher(tmp_path / "all")
    interrupted(committee, tmp_path / "run")
    directory = RunDirectory.open(tmp_path / "run")
    for name in "ab":
        (tmp_path / "all" / name / "budget.jsonl").unlink()
    old = TeacherBudget(tmp_path / "all" / "budget.jsonl", teacher=committee.fingerprint)
    for entry in directory.reservations():
        old.reserve(entry, run=directory.identity, directory=str(directory.path))
    dpsd.resume(tmp_path / "run", committee)
    compared = reconcile(directory)
    assert len(compared.files) == 3
    assert not compared.shortfalls
    accounts = budget_of(committee)
    assert accounts is not None
    for account in accounts.accounts:
        assert [run.spending.exposure.round for run in account.runs()] == [2]


def test_a_budget_that_cannot_be_seen_is_said_not_to_be(tmp_path: Path) -> None:
    def thirds(images: Tensor) -> Tensor:
        return torch.stack([images.mean((1, 2, 3))] * 3, dim=1)

    teacher = dpsd.load_teacher(thirds, input_shape=SHAPE, scores="logits", name="thirds")
    begin(teacher, tmp_path / "run", budget_file=tmp_path / "budget.jsonl")
    directory = RunDirectory.open(tmp_path / "run")
    assert reconcile(directory).files == (tmp_path / "budget.jsonl",)
    (tmp_path / "budget.jsonl").unlink()
    assert reconcile(directory).files == ()
    assert "was not compared" in reconcile(directory).describe()

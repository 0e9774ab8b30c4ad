"""A target is a finished run with records that fit it, and its student is attacked in eval mode."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dpsd
from dpsd.attacks.target import Target
from dpsd.datasets import LabelledImages, load_dataset
from dpsd.errors import ConfigError, RunError
from dpsd.models import build_classifier
from dpsd.runs.directory import RunDirectory


def _target(run: RunDirectory, others: LabelledImages | None = None) -> Target:
    return Target(
        run=run,
        members=load_dataset("digits", "train"),
        others=others or load_dataset("digits", "test"),
    )


def test_the_student_is_attacked_in_eval_mode(run: RunDirectory) -> None:
    target = _target(run)
    student = target.student()

    assert not any(module.training for module in student.modules())
    images = target.execution.images(target.others.images[:4])
    with torch.inference_mode():
        together, alone = student(images), student(images[:1])
    assert torch.allclose(together[:1], alone, atol=1e-5)


def test_records_of_another_shape_are_refused(run: RunDirectory) -> None:
    digits = load_dataset("digits", "test")
    with pytest.raises(ConfigError, match="images of shape"):
        _target(run, replace(digits, images=digits.images.repeat(1, 1, 2, 2)))


def test_an_unfinished_run_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    copy = shutil.copytree(run.path, tmp_path / "copy")
    lines = (copy / "ledger.jsonl").read_text().splitlines(keepends=True)
    (copy / "ledger.jsonl").write_text("".join(lines[:-1]))

    with pytest.raises(RunError, match="not finished"):
        _target(RunDirectory.open(copy))


def test_another_teacher_than_the_one_that_was_asked_is_refused(run: RunDirectory) -> None:
    other = dpsd.load_teacher(
        build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=3),
        input_shape=(1, 8, 8),
        num_classes=10,
        scores="logits",
    )
    with pytest.raises(ConfigError, match="not the teacher that the run asked"):
        replace(_target(run), teacher=other)

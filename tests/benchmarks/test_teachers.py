"""Teachers that benchmarks share are trained once, and kept."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpsd.benchmarks import teachers
from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.teachers import trained_teacher
from dpsd.datasets.sameness import place_of
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError, TeacherError
from dpsd.teachers import TeacherRecord, read_record


def test_a_teacher_is_trained_once(task: Task) -> None:
    written = (task.teacher_path() / "teacher.safetensors").stat().st_mtime_ns
    assert (task.teacher_path() / "teacher.safetensors").stat().st_mtime_ns == written
    assert task.teacher().members == 1
    record = read_record(task.teacher_path())
    assert record.precision == Execution.of().precision  # by which attacks train models like it
    assert record.epochs
    assert record.seconds
    assert Path(task.teacher(20).location or "").name == "digits-scattering-20-8-views"
    assert task.teacher(20).is_disjoint


def test_a_teacher_is_found_by_all_that_made_it(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Path] = []

    def note(_: object, data: str, path: Path, *how: object) -> None:
        trained.append(path)

    monkeypatch.setattr(teachers, "in_a_process", note)
    for data, model, shards, share in (
        ("digits", "cnn", None, 0.0),
        ("digits", "cnn", None, 0.1),
        ("digits", "lenet5", None, 0.0),
        ("mnist", "cnn", None, 0.0),
        ("digits", "cnn", 20, 0.0),
        ("digits", "cnn", 20, 0.2),
        ("digits", "cnn", 30, 0.0),
    ):
        trained_teacher(data, tmp_path, model=model, shards=shards, validation_share=share)
    assert len(set(trained)) == 7


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "mnist"}, "1 x cnn on 'mnist', seed 0, 0 held out, and 1 x cnn on 'digits'"),
        ({"validation_share": 0.1}, "seed 0, 0.1 held out, and 1 x cnn"),
        ({"model": "lenet5"}, "1 x lenet5 on 'digits'"),
        ({"seed": 1}, "seed 1"),
        ({"members": 2}, "2 x cnn"),
    ],
)
def test_another_teacher_under_the_same_name_is_refused(
    task: Task, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    copied = tmp_path / task.teacher_path().name
    shutil.copytree(task.teacher_path(), copied)
    assert trained_teacher("digits", tmp_path, model="cnn") == copied
    described = json.loads((copied / "teacher.json").read_text())
    (copied / "teacher.json").write_text(json.dumps(described | changes))
    with pytest.raises(TeacherError, match=re.escape(words)):
        trained_teacher("digits", tmp_path, model="cnn")


def test_an_ensemble_is_no_white_box(task: Task) -> None:
    from dpsd.benchmarks.teachers import open_module

    with pytest.raises(ConfigError, match="holds 20 teachers"):
        open_module(task.teacher_path(20))


def test_a_relative_path_to_other_data_finds_no_teacher_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "own.npz", train_images=np.full((2, 8, 8), number))
    monkeypatch.chdir(tmp_path / "one")
    made = TeacherRecord(
        model="cnn",
        input_shape=(1, 8, 8),
        num_classes=10,
        data="own.npz",
        data_place=str(place_of("own.npz")),
        seed=0,
    )
    kept = tmp_path / "own.npz-cnn"
    kept.mkdir()
    (kept / "teacher.json").write_text(made.describe(weights_sha256="none"))
    assert trained_teacher("own.npz", tmp_path, model="cnn") == kept
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(TeacherError, match=f"own.npz at {tmp_path}/one/own.npz.* is wanted"):
        trained_teacher("own.npz", tmp_path, model="cnn")


def test_lines_say_how_far_a_training_is(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dpsd.reporting.progress.EVERY", 0.0)
    monkeypatch.setattr(teachers, "in_a_process", lambda function, *given: function(*given))
    trained_teacher("digits", tmp_path, model="scattering", shards=80)
    assert "digits-scattering-80-8-views, teachers: 64 of 80, about" in capfd.readouterr().err
    with teachers.pretraining(3) as advance:
        advance(1)
    assert "public backbone, passes: 1 of 3, about" in capfd.readouterr().err

"""``--features``: teachers on a frozen public backbone, and a student on the same one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from dpsd.runs.directory import RunDirectory
from dpsd.teachers import read_record
from dpsd.training.pretraining import Pretraining

Invoke = Callable[..., Result]
AssertError = Callable[[Result, int, str], None]

TEACHERS = ("train-teacher", "--data", "digits", "--shards", 20, "--views", 0, "--device", "cpu")

BACKBONE = """
import torch

def edges():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU())
"""


@pytest.fixture(autouse=True)
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_backbone.py").write_text(BACKBONE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_teachers_and_student_share_a_backbone_to_the_certificate(invoke: Invoke) -> None:
    trained = invoke(*TEACHERS, "--out", "teachers", "--features", "my_backbone:edges")
    assert trained.exit_code == 0, trained.stderr
    stated = read_record("teachers").features
    assert stated is not None
    assert stated["name"] == "my_backbone:edges"
    sizes = ("--queries", 200, "--student-steps", 20, "--generator-steps", 2)
    budget = ("--epsilon", 200, "--device", "cpu", "--precision", "float32")
    done = invoke("transcribe", "teachers", *budget, *sizes, "--out", "run")
    assert done.exit_code == 0, done.stderr
    assert RunDirectory.open("run").config().features == "my_backbone:edges"
    certified = invoke("certify", "run")
    assert certified.exit_code == 0, certified.stderr
    certificate = json.loads(Path("run/certificate.json").read_text(encoding="utf-8"))
    assert certificate["features"] == {"teachers": stated, "student": stated}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--features", "glyphs", "--model", "cnn"), "'cnn' learns its own"),
        (("--features", "glyph"), "did you mean 'glyphs'?"),
        (("--features", "nowhere.pt2"), "there is no file nowhere.pt2"),
    ],
)
def test_features_that_make_no_sense_are_refused_before_training(
    flags: tuple[str, ...], message: str, invoke: Invoke, assert_error: AssertError
) -> None:
    train = ("train-teacher", "--data", "digits", "--shards", 20, "--out", "teachers")
    assert_error(invoke(*train, *flags), 2, message)


def test_features_of_a_single_teacher_are_refused(
    invoke: Invoke, assert_error: AssertError
) -> None:
    single = ("train-teacher", "--data", "digits", "--out", "teacher", "--features", "glyphs")
    assert_error(invoke(*single), 2, "give --shards")


def test_features_choose_the_student_that_is_linear_on_them(invoke: Invoke) -> None:
    shown = invoke(
        *("transcribe", "--print-config", "teacher.pt2", "--epsilon", 1, "--features", "glyphs")
    )
    assert shown.exit_code == 0, shown.stderr
    assert 'student = "scattering"' in shown.stdout
    assert 'features = "glyphs"' in shown.stdout


def test_a_place_that_is_taken_is_refused_before_features_are_loaded(
    invoke: Invoke, assert_error: AssertError, teacher: Path
) -> None:
    (Path("taken") / "other").mkdir(parents=True)
    Path("damaged.pt2").write_bytes(b"no model")
    chosen = ("--student", "scattering", "--features", "damaged.pt2", "--epsilon", 1)
    assert_error(invoke("transcribe", teacher, *chosen, "--out", "taken"), 5, "is not empty")
    assert_error(invoke("transcribe", teacher, *chosen, "--out", "new"), 4, "damaged")


@pytest.mark.parametrize("flags", [(), ("--quiet",)])
def test_quiet_is_about_the_training_of_a_backbone_too(
    flags: tuple[str, ...], invoke: Invoke, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {"glyphs": Pretraining(images=200, epochs=1)}
    monkeypatch.setattr("dpsd.training.pretraining.PRETRAINING", tiny)
    sizes = ("--queries", 100, "--rounds", 1, "--student-steps", 2, "--generator-steps", 1)
    chosen = ("--student", "scattering", "--features", "glyphs", "--epsilon", 1, "--device", "cpu")
    done = invoke("transcribe", teacher, *chosen, *sizes, "--out", "run", *flags)
    assert done.exit_code == 0, done.stderr
    assert ("training a public backbone" in done.stderr) == (not flags)

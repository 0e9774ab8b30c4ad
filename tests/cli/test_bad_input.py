"""What users and teachers get wrong: one clear line, an exit code, and nothing lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import Result
from onnx import TensorProto, helper

import dpsd
from dpsd.models import build_classifier
from dpsd.runs.directory import RunDirectory
from dpsd.teachers.directory import TeacherRecord, save_teacher
from dpsd.transcription import starting

Invoke = Callable[..., Result]
Arguments = Callable[..., Sequence[object]]
AssertError = Callable[[Result, int, str], None]
TRANSCRIBE = ("--epsilon", "1", "--out", "run")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_missing_teacher(invoke: Invoke, assert_error: AssertError) -> None:
    result = invoke("transcribe", "absent.onnx", *TRANSCRIBE)
    assert_error(result, 4, "there is no absent.onnx")
    assert not Path("run").exists()


def test_truncated_teacher_directory(
    invoke: Invoke, assert_error: AssertError, teacher: Path
) -> None:
    shutil.copytree(teacher, "teacher")
    weights = Path("teacher/teacher.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    assert_error(invoke("transcribe", "teacher", *TRANSCRIBE), 4, "damaged or cut off")
    Path("teacher/teacher.json").write_text('{"format": "dpsd-tea')
    assert_error(invoke("transcribe", "teacher", *TRANSCRIBE), 4, "teacher.json")
    assert not Path("run").exists()


@pytest.mark.parametrize("suffix", [pytest.param("onnx", marks=pytest.mark.thorough), "pt2"])
def test_truncated_teacher_file(
    invoke: Invoke, assert_error: AssertError, finished_run: Path, suffix: str
) -> None:
    path = Path(f"teacher.{suffix}")
    assert invoke("export", finished_run, "--to", path).exit_code == 0
    path.write_bytes(path.read_bytes()[:2000])
    result = invoke("transcribe", path, "--input-shape", "1,8,8", *TRANSCRIBE)
    assert_error(result, 4, f"teacher.{suffix}")


def test_onnx_file_with_two_inputs(invoke: Invoke, assert_error: AssertError) -> None:
    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, 8, 8])

    node = helper.make_node("Add", ["images", "mask"], ["scores"])
    graph = helper.make_graph([node], "two", [value("images"), value("mask")], [value("scores")])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), "two.onnx")
    assert_error(invoke("transcribe", "two.onnx", *TRANSCRIBE), 4, "2 inputs")


def test_factory_that_raises(invoke: Invoke, assert_error: AssertError, odd_teachers: Path) -> None:
    result = invoke("transcribe", "odd_teachers:broken", "--input-shape", "1,8,8", *TRANSCRIBE)
    assert_error(result, 4, "RuntimeError: the weights are on another machine")
    result = invoke("transcribe", "odd_teachers:absent", "--input-shape", "1,8,8", *TRANSCRIBE)
    assert_error(result, 4, "no attribute 'absent'")


@pytest.mark.parametrize(
    ("misbehaviour", "words"),
    [
        ("nan", "values that are not finite"),
        ("classes", "another number of classes than 4"),
        ("batch", "another number of answers than the batch's 300"),
    ],
)
def test_teacher_that_goes_wrong_stops_the_run_and_spends_no_more(
    invoke: Invoke,
    assert_error: AssertError,
    odd_run: Arguments,
    monkeypatch: pytest.MonkeyPatch,
    misbehaviour: str,
    words: str,
) -> None:
    monkeypatch.setenv("MISBEHAVE", misbehaviour)
    result = invoke(*odd_run("run"))
    assert_error(result, 4, words)
    assert "query batch 0" in result.stderr
    run = RunDirectory.open(Path("run"))
    assert [entry["round"] for entry in run.ledger.reservations()] == [1, 2]
    assert run.stored_releases(1) is not None
    monkeypatch.delenv("MISBEHAVE")
    resume = ("transcribe", "--resume", "run", "--quiet")
    assert_error(invoke(*resume), 2, "--cap 3.")
    assert invoke(*resume, "--cap", "3.1,1e-5,round").exit_code == 0


def test_callable_that_returns_nan_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(dpsd.TeacherError, match="not finite"):
        dpsd.load_teacher(
            lambda images: torch.full((len(images), 3), float("nan")),
            input_shape=(1, 8, 8),
            scores="logits",
        )


def test_declared_classes_that_the_teacher_does_not_have(
    invoke: Invoke, assert_error: AssertError, teacher: Path
) -> None:
    result = invoke("transcribe", teacher, "--num-classes", 7, *TRANSCRIBE)
    assert_error(result, 4, "num_classes 10")


def test_shape_that_the_generator_cannot_make(
    invoke: Invoke, assert_error: AssertError, odd_teachers: Path
) -> None:
    shape = ("--input-shape", "1,520,8", "--student", "lenet5")
    result = invoke("transcribe", "odd_teachers:huge", *shape, *TRANSCRIBE)
    assert_error(result, 2, "the generator cannot make images of 520x8")
    assert not Path("run").exists()


@pytest.mark.parametrize("kind", [(), ("--model", "lenet5", "--shards", 2)])
def test_copies_of_records_for_teachers_that_see_none(
    kind: tuple[object, ...], invoke: Invoke, assert_error: AssertError
) -> None:
    training = ("train-teacher", "--data", "digits", "--out", "t", "--views", 4, *kind)
    assert_error(invoke(*training), 2, "--views 4 applies to many scattering teachers")


def test_out_directory_that_holds_another_run(
    invoke: Invoke, assert_error: AssertError, teacher: Path, run_copy: Path
) -> None:
    before = {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    result = invoke("transcribe", teacher, "--epsilon", 1, "--out", run_copy)
    assert_error(result, 5, "is not empty")
    assert "hint:" not in result.stderr
    assert before == {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("flag", "name", "near"),
    [
        ("--student", "resnet9", "resnet8"),
        ("--generator", "dcgna", "dcgan"),
        ("--sources", "nosie", "noise"),
    ],
)
def test_unknown_name_suggests_the_nearest(
    invoke: Invoke, assert_error: AssertError, teacher: Path, flag: str, name: str, near: str
) -> None:
    result = invoke("transcribe", teacher, flag, name, *TRANSCRIBE)
    assert_error(result, 2, f"did you mean '{near}'?")
    assert not Path("run").exists()


def test_unknown_names_elsewhere(invoke: Invoke, assert_error: AssertError) -> None:
    result = invoke("train-teacher", "--data", "digit", "--out", "teacher")
    assert_error(result, 2, "did you mean 'digits'?")
    result = invoke("train-teacher", "--data", "digits", "--model", "cn", "--out", "teacher")
    assert_error(result, 2, "did you mean 'cnn'?")
    assert_error(invoke("data", "fetch", "mnits"), 2, "did you mean 'mnist'?")
    assert_error(invoke("evaluate", "nowhere", "--data", "digits"), 5, "not a run directory")
    assert_error(invoke("certfy", "run"), 2, "certify")


def test_resume_with_another_teacher(
    invoke: Invoke, assert_error: AssertError, run_copy: Path, odd_teachers: Path
) -> None:
    module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=9)
    record = TeacherRecord(model="cnn", input_shape=(1, 8, 8), num_classes=10)
    other = save_teacher(odd_teachers / "other", module, record)
    result = invoke("transcribe", other, "--resume", run_copy)
    assert_error(result, 5, "was started with another teacher")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 6, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 6, "out of memory"),
        (OSError(28, "No space left on device", "run"), 6, "the disk is full (run)"),
        (PermissionError(13, "Permission denied", "run"), 5, "Permission denied (run)"),
        (ZeroDivisionError("secret"), 70, "a bug in dpsd"),
    ],
)
def test_mishaps(
    invoke: Invoke,
    assert_error: AssertError,
    teacher: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
    words: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(starting, "start", fail)
    result = invoke("transcribe", teacher, *TRANSCRIBE)
    assert_error(result, code, words)
    assert "secret" not in result.stdout + result.stderr
    shown = invoke("--debug", "transcribe", teacher, *TRANSCRIBE)
    assert shown.exception is error


def test_a_real_process_shows_one_line_and_no_traceback() -> None:
    command = [sys.executable, "-c", "from dpsd.cli import main; main()"]
    mistake = ["data", "fetch", "mnits"]
    shown = subprocess.run([*command, *mistake], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr.startswith("error: unknown data set to fetch 'mnits'")
    assert len(shown.stderr.splitlines()) == 1

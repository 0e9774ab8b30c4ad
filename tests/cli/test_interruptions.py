"""Interruptions and full disks: nothing that was released is lost, and a run goes on the same."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from safetensors.torch import save_file
from torch import nn

import dpsd
from dpsd.distillation.student import fit_student
from dpsd.errors import DiskFullError
from dpsd.runs.directory import RunDirectory
from dpsd.storage import files
from dpsd.transcription import learning

Invoke = Callable[..., Result]
Arguments = Callable[..., Sequence[object]]
AssertError = Callable[[Result, int, str], None]


def assert_same_models(one: Path, other: Path) -> None:
    for name in ("student.safetensors", "generator.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert [line["round"] for line in RunDirectory.open(other).metrics()] == [1, 2]


def attempts(run: Path) -> int:
    return len(RunDirectory.open(run).ledger.reservations())


@pytest.mark.thorough
def test_resumed_run_gives_the_same_student(
    invoke: Invoke, odd_run: Arguments, odd_teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = invoke(*odd_run("whole"))
    assert whole.exit_code == 0, whole.stderr
    assert "warning: NOT PRIVATE" in whole.stderr
    assert "NOT PRIVATE" in (odd_teachers / "whole" / "report.html").read_text()

    monkeypatch.setenv("MISBEHAVE", "interrupt")
    stopped = invoke(*odd_run("stopped"))
    assert stopped.exit_code == 130
    assert "Traceback" not in stopped.stderr
    assert "all releases are kept" in stopped.stderr
    assert "Round 2 was being answered" in stopped.stderr
    assert "dpsd transcribe --resume stopped" in stopped.stderr
    early = invoke("export", "stopped", "--to", "early.safetensors")
    assert "the run is not finished: this is its student after the last" in early.stderr
    assert early.exit_code == 0
    assert "NOT PRIVATE" in early.stderr

    monkeypatch.delenv("MISBEHAVE")
    refused = invoke("transcribe", "--resume", "stopped")
    assert refused.exit_code == 2
    assert "would spend ε = 3" in refused.stderr
    resumed = invoke("transcribe", "--resume", "stopped", "--cap", "3.1,1e-5,round")
    assert resumed.exit_code == 0, resumed.stderr
    assert "2/2" in resumed.stderr
    assert "1/2" not in resumed.stderr
    assert "above the target" in resumed.stderr
    assert_same_models(odd_teachers / "whole", odd_teachers / "stopped")
    assert (attempts(odd_teachers / "whole"), attempts(odd_teachers / "stopped")) == (2, 3)


def test_interrupted_learning_asks_nothing_again(
    invoke: Invoke, odd_run: Arguments, odd_teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke(*odd_run("whole")).exit_code == 0
    calls: list[int] = []

    def interrupted(*arguments: Any, **options: Any) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit_student(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(learning, "fit_student", interrupted)
        stopped = invoke(*odd_run("stopped"))
    assert stopped.exit_code == 130
    assert "being answered" not in stopped.stderr
    resumed = invoke("transcribe", "--resume", "stopped", "--quiet")
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.stdout == ""
    assert_same_models(odd_teachers / "whole", odd_teachers / "stopped")
    assert attempts(odd_teachers / "stopped") == 2


def test_control_c_in_the_middle_of_a_round(
    invoke: Invoke, odd_run: Arguments, odd_teachers: Path
) -> None:
    arguments = [str(argument) for argument in odd_run("run")]
    process = subprocess.Popen(
        [sys.executable, "-c", "from dpsd.cli import main; main()", *arguments],
        env={**os.environ, "MISBEHAVE": "wait"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test that runs in the background inherits an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not (odd_teachers / "waiting").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in shown
    assert "continue with: dpsd transcribe --resume run" in shown
    assert RunDirectory.open(odd_teachers / "run").stored_releases(1) is not None
    resume = ("transcribe", "--resume", "run", "--quiet")
    assert invoke(*resume).exit_code == 2  # what was lost would cost more than the target
    assert invoke(*resume, "--cap", "3.1").exit_code == 0


def test_full_disk_at_a_checkpoint(
    invoke: Invoke,
    odd_run: Arguments,
    odd_teachers: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_error: AssertError,
) -> None:
    assert invoke(*odd_run("whole")).exit_code == 0
    checkpoints: list[Path] = []

    def save_if_there_is_room(tensors: Any, path: Path, **options: Any) -> None:
        if "checkpoint" in Path(path).name:
            checkpoints.append(path)
            if len(checkpoints) == 2:
                Path(path).write_bytes(b"as much as fitted")
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save_file(tensors, path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(files, "save_file", save_if_there_is_room)
        stopped = invoke(*odd_run("full"))
    assert_error(stopped, 6, "free some space")
    assert "hint: what was released so far is kept" in stopped.stderr
    assert "dpsd transcribe --resume full" in stopped.stderr
    assert not list((odd_teachers / "full").rglob("*.part"))
    resumed = invoke("transcribe", "--resume", "full")
    assert resumed.exit_code == 0, resumed.stderr
    assert_same_models(odd_teachers / "whole", odd_teachers / "full")
    assert attempts(odd_teachers / "full") == 2  # nothing was asked twice


def test_full_disk_at_the_start_leaves_nothing_half_made(
    invoke: Invoke,
    odd_run: Arguments,
    odd_teachers: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_error: AssertError,
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise DiskFullError(f"{path} could not be written: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("dpsd.runs.folder.write_text", refuse)
        assert_error(invoke(*odd_run("run")), 6, "No space left")
    assert invoke(*odd_run("run")).exit_code == 0


def test_resume_refuses_what_would_change_the_run(
    invoke: Invoke, finished_run: Path, assert_error: AssertError
) -> None:
    result = invoke("transcribe", "--resume", finished_run, "--rounds", 9)
    assert_error(result, 2, "--rounds cannot change")
    result = invoke("transcribe", "--resume", finished_run, "--out", "elsewhere")
    assert_error(result, 2, "leave out --out")


def test_resume_of_a_finished_run_finishes_again(invoke: Invoke, run_copy: Path) -> None:
    before = json.loads((run_copy / "certificate.json").read_text())
    result = invoke("transcribe", "--resume", run_copy)
    assert result.exit_code == 0, result.stderr
    assert json.loads((run_copy / "certificate.json").read_text()) == before


def test_a_run_of_objects_is_sent_back_to_python(
    invoke: Invoke, tmp_path: Path, assert_error: AssertError
) -> None:
    run = dpsd.transcribe(
        dpsd.load_teacher(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), input_shape=(1, 8, 8), scores="logits"
        ),
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=2.0, adjacency="response"),
        recipe=dpsd.Recipe(rounds=1, queries=200, generator_steps=1, device="cpu"),
        student=nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
        out=tmp_path / "run",
        observer=None,
    ).directory
    assert run.objects == ("teacher", "student")
    call = f"dpsd.resume({str(run.path)!r}, teacher, student=student) in Python"
    assert run.resuming == call
    result = invoke("transcribe", "--resume", run.path)
    assert_error(result, 2, "was given its teacher and student in Python, which no command can")
    assert f"continue it with {call}" in result.stderr
    result = invoke("transcribe", "teacher.onnx", "--resume", run.path)
    assert_error(result, 2, "was given its student in Python")
    again = ("transcribe", "--config", run.path / "config.toml", "--out", tmp_path / "again")
    assert_error(invoke(*again), 4, "(module Sequential) was given as an object in Python")
    # The words for an object are not taken for a folder, nor is a folder taken for them.
    (tmp_path / "(module Sequential)").mkdir()
    assert "given as an object" not in invoke("inspect", tmp_path / "(module Sequential)").stderr

"""A service as the teacher on the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from ..teachers.stub import Reply, Stub, error, serving
from .conftest import TINY

Check = Callable[[Result, int, str], None]
Invoke = Callable[..., Result]


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as state:
        yield state


def test_a_service_is_transcribed_resumed_and_charged(
    stub: Stub,
    tmp_path: Path,
    invoke: Invoke,
    assert_error: Check,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DPSD_TEACHER_TOKEN", "s3cret-t0ken")
    out, budgets = tmp_path / "run", tmp_path / "budgets.jsonl"
    stub.instead = lambda number, rows: error(500, "secret") if sum(stub.sizes) > 600 else None
    chosen = ("--epsilon", 2, "--budget-file", budgets, "--out", out)
    failed = invoke("transcribe", stub.address, *chosen, "--request-images", 30, *TINY)
    assert_error(failed, 4, "the teacher answered with an error instead of scores")
    assert "600 images in about 20 requests, 4 at a time, will take about" in failed.stderr
    assert f"continue with: dpsd transcribe --resume {out}" in failed.stderr
    assert "secret" not in failed.stderr
    stub.instead = lambda number, rows: None
    assert_error(invoke("transcribe", "--resume", out), 2, "answers were paid for and lost")
    again = invoke(
        *("transcribe", "--resume", out, "--cap", "99,1e-5,round", "--requests-in-flight", 2)
    )
    assert again.exit_code == 0, again.stderr
    assert "2 at a time" in again.stderr
    assert invoke("certify", out).exit_code == 0
    shown = invoke("budget", stub.address, "--budget-file", budgets, "--json")
    assert json.loads(shown.stdout)["teacher"] == f"service:{stub.address}/versions/3"
    assert_error(invoke("budget", stub.address), 2, "say with --budget-file where its budget is")
    for text in (failed.output, again.output, shown.output):
        assert "s3cret" not in text


def test_ctrl_c_stops_at_once_though_a_request_is_under_way(
    stub: Stub, tmp_path: Path, invoke: Invoke
) -> None:
    stub.instead = lambda number, rows: Reply(wait=30) if sum(stub.sizes) > 400 else None
    out = tmp_path / "run"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dpsd", "transcribe", stub.address, "--epsilon", "2"),
            *("--budget-file", "budgets.jsonl", "--out", str(out), *TINY),
        ],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 90
    while sum(stub.sizes) <= 400 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, said = process.communicate(timeout=25)
    took = time.monotonic() - start
    assert took < 10, f"{took:.0f} s"
    assert process.returncode == 130, said
    assert "was being answered: its answers are lost but count as spent" in said
    stub.instead = lambda number, rows: None
    again = invoke("transcribe", "--resume", out, "--cap", "99,1e-5,round")
    assert again.exit_code == 0, again.stderr


def test_quiet_says_nothing_of_the_estimate(stub: Stub, tmp_path: Path, invoke: Invoke) -> None:
    result = invoke(
        *("transcribe", stub.address, "--epsilon", 2, "--out", tmp_path / "run", "--quiet"),
        *("--budget-file", tmp_path / "budgets.jsonl", *TINY),
    )
    assert (result.exit_code, result.stdout) == (0, "")
    # What so small a run is warned of depends on its noise, and is said in any case.
    assert "will take about" not in result.stderr
    assert all(line.startswith("warning: ") for line in result.stderr.splitlines())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("http://h/v2/models/m",), 4, "unencrypted: give https://, or allow it with --plain-http"),
        (("https://me:hunter2@h/v2/models/m",), 4, "credentials do not belong into an address"),
        (("https://h/models/m",), 4, "https://h/models/m is not the address of a model"),
        (("https://h/v2/models/m",), 2, "say with --budget-file where to keep it"),
        (("teacher.onnx", "--request-images", 3), 2, "--request-images is for a teacher behind"),
        (("teacher.onnx", "--plain-http"), 2, "--plain-http is for a teacher behind a service"),
        (
            ("https://h/v2/models/m", "--requests-in-flight", 0),
            2,
            "--requests-in-flight must be at least 1, not 0",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(
    arguments: tuple[object, ...],
    code: int,
    words: str,
    tmp_path: Path,
    invoke: Invoke,
    assert_error: Check,
) -> None:
    for last in (("--out", tmp_path / "run"), ("--out", tmp_path / "run", "--print-config")):
        if "budget-file" in words and "--print-config" in last:
            continue  # settings are printed before they are complete
        result = invoke("transcribe", *arguments, "--epsilon", 1, *last)
        assert_error(result, code, words)
        assert "hunter2" not in result.output


def test_a_service_out_of_reach_is_told_at_once(
    tmp_path: Path, invoke: Invoke, assert_error: Check
) -> None:
    with serving() as gone:
        pass
    chosen = ("--epsilon", 1, "--out", tmp_path / "run", "--budget-file", tmp_path / "b.jsonl")
    result = invoke("transcribe", gone.address, *chosen)
    assert_error(result, 4, "the service could not be reached (NewConnectionError)")
    bundle = tmp_path / "absent.pem"
    secure = gone.address.replace("http:", "https:")
    result = invoke("transcribe", secure, *chosen, "--ca-bundle", bundle)
    assert_error(result, 4, "--ca-bundle")

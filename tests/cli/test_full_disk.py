"""A full disk, or a used-up quota, ends every command that writes with exit code 6."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from .conftest import TINY

Invoke = Callable[..., Result]
AssertError = Callable[[Result, int, str], None]


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT], ids=["disk", "quota"])
def full(request: pytest.FixtureRequest) -> OSError:
    return OSError(request.param, os.strerror(request.param))


@pytest.fixture
def filled(full: OSError, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a function fail as on a full disk."""

    def fail(*_: object, **__: object) -> None:
        raise full

    return lambda function: monkeypatch.setattr(function, fail)


@pytest.mark.parametrize("function", ["os.fsync", "pathlib.Path.mkdir", "os.open"])
def test_a_run(
    invoke: Invoke,
    assert_error: AssertError,
    teacher: Path,
    tmp_path: Path,
    filled: Callable[[str], None],
    function: str,
) -> None:
    if function == "os.open":  # as it is used for locks
        function = "dpsd.storage.locks._held"
    filled(function)
    running = ("transcribe", teacher, "--epsilon", 4, "--out", tmp_path / "run", *TINY)
    assert_error(invoke(*running), 6, "free some space")


@pytest.mark.parametrize("function", ["dpsd.teachers.directory.os.fsync", "pathlib.Path.mkdir"])
def test_a_teacher(
    invoke: Invoke,
    assert_error: AssertError,
    tmp_path: Path,
    filled: Callable[[str], None],
    function: str,
) -> None:
    filled(function)
    training = ("train-teacher", "--data", "digits", "--epochs", 1, "--out", tmp_path / "teacher")
    assert_error(invoke(*training), 6, "free some space")


@pytest.mark.parametrize("function", ["dpsd.storage.files.os.fsync", "pathlib.Path.mkdir"])
@pytest.mark.parametrize(
    "command", [("sample", "--count", 20, "--out", "new"), ("export", "--to", "new/s.safetensors")]
)
def test_what_is_made_from_a_run(
    invoke: Invoke,
    assert_error: AssertError,
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    filled: Callable[[str], None],
    function: str,
    command: tuple[object, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    filled(function)
    name, *rest = command
    assert_error(invoke(name, finished_run, *rest), 6, "free some space")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "command", [("data", "fetch", "mnist", "--root", "r"), ("bench", "speed", "--data", "digits")]
)
def test_other_folders(
    invoke: Invoke,
    assert_error: AssertError,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    filled: Callable[[str], None],
    command: tuple[object, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    filled("pathlib.Path.mkdir")
    assert_error(invoke(*command), 6, "free some space")


def test_a_cap(
    invoke: Invoke, assert_error: AssertError, teacher: Path, filled: Callable[[str], None]
) -> None:
    filled("dpsd.privacy.records.chain.os.fsync")
    before = [path.read_bytes() for path in teacher.glob("budget.jsonl")]
    result = invoke("budget", teacher, "--cap", "50,1e-5,response")
    assert_error(result, 6, "free some space")
    assert all(path.read_bytes().startswith(b"".join(before)) for path in teacher.glob("b*.jsonl"))

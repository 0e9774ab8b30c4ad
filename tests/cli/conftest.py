"""A tiny trained teacher, a finished run, and teachers that misbehave when told to."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dpsd.cli import app

#: Enough to go through every phase twice, and no more.
TINY = (
    *("--rounds", "2", "--queries", "300", "--epochs", "1", "--generator-steps", "3"),
    *("--generator-batch-size", "16", "--precision", "float32", "--device", "cpu"),
)

ODD_TEACHERS = '''
"""A sane teacher of 8x8 images that may go wrong when it is asked for the third time."""
import itertools, os, pathlib, time
import torch

WEIGHTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))

def scores(images):
    return (images.flatten(1) - 0.5) @ WEIGHTS

def factory():
    calls = itertools.count(1)  # the first is the probe, then one a round

    def answer(images):
        good, call = scores(images), next(calls)
        how = os.environ.get("MISBEHAVE") if call == 3 else None
        if how == "interrupt":
            raise KeyboardInterrupt
        if how == "wait":
            pathlib.Path("waiting").touch()
            time.sleep(60)
        if how == "nan":
            good[0, 0] = float("nan")
        return {"classes": good[:, :3], "batch": good[1:]}.get(how, good)

    return answer

def broken():
    raise RuntimeError("the weights are on another machine")

def huge():
    return lambda images: torch.zeros(len(images), 4)
'''


@pytest.fixture(scope="session")
def invoke() -> Callable[..., Result]:
    """Run a command line in this process."""
    # Before click 8.2 the two streams are one, unless asked otherwise.
    joins = "mix_stderr" in inspect.signature(CliRunner).parameters
    options: dict[str, Any] = {"mix_stderr": False} if joins else {}
    runner = CliRunner(**options)

    def run(*arguments: object) -> Result:
        return runner.invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def teacher(invoke: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that ``train-teacher`` wrote. Not to be changed."""
    path = tmp_path_factory.mktemp("trained") / "teacher"
    result = invoke("train-teacher", "--data", "digits", "--epochs", 2, "--out", path)
    assert result.exit_code == 0, result.stderr
    assert "test accuracy" in result.stdout
    assert "teacher.safetensors" in result.stdout
    return path


@pytest.fixture(scope="session")
def finished_run(
    invoke: Callable[..., Result], teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that ``transcribe`` wrote. Not to be changed."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    result = invoke(
        *("transcribe", teacher, "--out", path, "--epsilon", 4, "--adjacency", "response"),
        *("--tensorboard", *TINY),
    )
    assert result.exit_code == 0, result.stderr
    assert_shown(result)
    return path


def assert_shown(result: Result) -> None:
    for adjacency in ("response", "round", "teacher"):
        assert f"\n{adjacency}  " in result.stdout
    for expected in ("One teacher was asked", "dpsd evaluate", "report.html"):
        assert expected in result.stdout
    for expected in ("1/2", "2/2", "agreement", "before learning from them"):
        assert expected in result.stderr


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """The finished run, to be changed."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def odd_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, made the current one, with a module ``odd_teachers``."""
    (tmp_path / "odd_teachers.py").write_text(ODD_TEACHERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def odd_run(odd_teachers: Path) -> Callable[..., Sequence[object]]:
    """The arguments of a reproducible run with the odd teacher."""

    def arguments(out: str, *more: object) -> Sequence[object]:
        return (
            *("transcribe", "odd_teachers:factory", "--input-shape", "1,8,8", "--epsilon", 2),
            *("--reproducible-noise", 7, "--out", out, *TINY, *more),
        )

    return arguments


@pytest.fixture
def assert_error() -> Callable[[Result, int, str], None]:
    """The command failed with one clear line, that exit code, and these words."""

    def check(result: Result, code: int, words: str) -> None:
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, result.stderr
        assert words in errors[0]
        assert "Traceback" not in result.stdout + result.stderr
        assert result.exit_code == code

    return check

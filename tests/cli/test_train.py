"""A training says how far it is, also where no terminal shows bars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from dpsd.cli.progress import pretraining

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def lines_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpsd.reporting.progress.EVERY", 0.0)


def test_lines_say_how_far_a_teacher_is(invoke: Invoke, tmp_path: Path) -> None:
    one = ("train-teacher", "--data", "digits", "--epochs", 2)
    said = invoke(*one, "--out", tmp_path / "one").stderr
    assert "training cnn on digits\ncnn on digits, epochs: 1 of 2, about" in said
    assert "2 of 2" not in said  # what follows says that it is done
    many = (*one, "--shards", 3, "--model", "cnn")
    said = invoke(*many, "--out", tmp_path / "many").stderr
    assert "3 cnn on shards of digits, teachers: 2 of 3, about" in said


def test_lines_say_how_far_a_public_backbone_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pretraining(3) as advance:
        advance(1)
        advance(1)
    assert "public backbone, passes: 2 of 3, about" in capsys.readouterr().err

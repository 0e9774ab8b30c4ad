"""The progress of a run from Python: shown where somebody can watch, and silent elsewhere."""

from __future__ import annotations

import io
import os
import pty
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import dpsd
from dpsd.reporting import progress
from dpsd.reporting.progress import ProgressObserver, watched
from dpsd.runs.observing import Observer
from dpsd.teachers import Teacher

METRICS = {"round": 1, "queries": 60, "student_loss": 1.5, "agreement": None, "seconds": 1}


@pytest.fixture
def teacher(tmp_path: Path) -> Teacher:
    def left_or_right(images: Any) -> Any:
        return 20 * images[:, 0, :, :6].reshape(len(images), 8, 2, 3).mean((1, 3))

    return dpsd.load_teacher(left_or_right, input_shape=(1, 8, 8), scores="logits", name="sides")


@pytest.fixture
def transcribe(teacher: Teacher, tmp_path: Path) -> Callable[..., dpsd.Run]:
    def run(**options: Any) -> dpsd.Run:
        return dpsd.transcribe(
            teacher,
            mechanism=dpsd.RandomizedResponse(),
            budget=dpsd.Budget(epsilon=2.0, adjacency="response"),
            recipe=dpsd.Recipe(rounds=2, queries=60, generator_steps=1),
            budget_file=tmp_path / "budget.jsonl",
            out=tmp_path / "run",
            **options,
        )

    return run


def test_progress_is_lines_where_output_is_redirected(
    transcribe: Callable[..., dpsd.Run], capsys: pytest.CaptureFixture[str]
) -> None:
    transcribe(observer="progress")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "1/2" in shown.err
    assert "2/2" in shown.err
    assert "\x1b" not in shown.err


def test_nothing_is_shown_where_nobody_watches(
    transcribe: Callable[..., dpsd.Run], teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    run = transcribe()
    dpsd.resume(run.directory.path, teacher)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_an_unknown_word_is_refused_before_anything_is_written(
    transcribe: Callable[..., dpsd.Run], tmp_path: Path
) -> None:
    with pytest.raises(dpsd.ConfigError, match=r"observer must be 'auto', 'progress'.*'verbose'"):
        transcribe(observer="verbose")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("wanted", ["auto", "progress", None])
def test_a_terminal_shows_bars_unless_told_not_to(
    wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = pty.openpty()
    with os.fdopen(writing, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        with watched(wanted, rounds=2) as observer:
            observer.phase("synthesis", total=60, round_index=1)(30)
            observer.round_finished(METRICS)
    shown = b""
    with os.fdopen(reading, "rb", buffering=0) as screen, suppress(OSError):  # at its end
        while part := screen.read(1 << 16):
            shown += part
    if wanted is None:
        assert (type(observer), shown) == (Observer, b"")
    else:
        assert b"round 1/2: synthesis" in shown
        assert b"1.5000" in shown


def test_a_resumed_run_begins_where_it_stopped() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    stream = console.file
    with ProgressObserver(rounds=8, finished=3, console=console) as observer:
        observer.round_finished({**METRICS, "round": 4})
    assert isinstance(stream, io.StringIO)
    assert "3/8" in stream.getvalue()  # the bar, at first
    assert "4/8" in stream.getvalue()


@pytest.mark.parametrize("has_widgets", [True, False])
def test_a_notebook_has_lines_and_bars_only_if_it_can_redraw_them(
    has_widgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: has_widgets or None)
    notebook = Console(force_jupyter=True)
    assert progress._can_show_bars(notebook) == has_widgets
    assert not progress._can_show_bars(Console(file=io.StringIO(), force_jupyter=False))


def test_an_observer_of_ones_own_is_used_as_it_is() -> None:
    own = Observer()
    with watched(own, rounds=1) as observer:
        assert observer is own

"""``dpsd watch``: a run is followed through its files, whoever writes them."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result
from rich.console import Console
from rich.live import Live

from dpsd.errors import RunError
from dpsd.reporting import watching
from dpsd.reporting.watching import Watch, follow
from dpsd.runs.directory import RunDirectory
from dpsd.runs.journal import Client

Parts = tuple[Path, list[str], list[str]]


@pytest.fixture
def unfinished(run_copy: Path) -> Parts:
    """A run before its first round ended, with the lines that are still to be written."""
    metrics = (run_copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    ledger = (run_copy / "ledger.jsonl").read_text().splitlines(keepends=True)
    (run_copy / "metrics.jsonl").unlink()
    (run_copy / "ledger.jsonl").write_text("".join(ledger[:2]))
    return run_copy, metrics, ledger[2:]


def hold(path: Path) -> None:
    """Leave what a process that executes a run, this one, says of itself."""
    holder = {"host": platform.node(), "pid": os.getpid()}
    (path / ".ledger.jsonl.holder.json").write_text(json.dumps(holder))


def leave_alone(path: Path) -> None:
    """Let the last write of a run be an hour ago."""
    for file in path.rglob("*"):
        os.utime(file, (time.time() - 3600,) * 2)


class Writer:
    """Writes on whenever the watching waits, as another process would."""

    def __init__(self, path: Path, metrics: list[str], ledger: list[str]) -> None:
        half = metrics[1][:40]
        self._steps: list[Callable[[], object]] = [
            lambda: (path / "metrics.jsonl").write_text(metrics[0]),
            lambda: (path / "metrics.jsonl").write_text(metrics[0] + half),
            lambda: (path / "metrics.jsonl").write_text("".join(metrics)),
            lambda: self._append(path / "ledger.jsonl", ledger),
        ]

    def __call__(self, _seconds: float) -> None:
        self._steps.pop(0)()

    @staticmethod
    def _append(path: Path, lines: list[str]) -> None:
        with path.open("a") as file:
            file.writelines(lines)


def test_a_line_per_round_is_printed_where_there_is_no_terminal(unfinished: Parts) -> None:
    stream = io.StringIO()
    look = follow(
        RunDirectory.open(unfinished[0]), Console(file=stream, width=120), wait=Writer(*unfinished)
    )
    assert look.is_finished
    shown = stream.getvalue()
    rounds = [line.split()[0] for line in shown.splitlines() if line.startswith("      ")]
    assert rounds == ["1/2", "2/2"]
    assert shown.count("before learning from them") == 1
    assert "\x1b" not in shown


def test_a_terminal_shows_what_was_spent_and_bars(unfinished: Parts) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=140, height=60, force_terminal=True, color_system=None)
    follow(RunDirectory.open(unfinished[0]), console, wait=Writer(*unfinished))
    shown = stream.getvalue()
    for expected in (
        *("0 of 2 rounds", "1 of 2 rounds", "2 of 2 rounds; finished", "left"),
        *("adjacency response", "calibrated to ε = 4 under response"),
        *("the teacher's answers, estimated from releases", "sources of the last round"),
    ):
        assert expected in shown


@pytest.mark.parametrize("height", [5, 8, 10, 12, 16, 20, 24, 60])
@pytest.mark.parametrize("classes", [3, 12, 1_000])
def test_a_small_terminal_is_filled_and_nothing_is_cut_off(
    unfinished: Parts, height: int, classes: int
) -> None:
    path, metrics, _ = unfinished
    lines = [json.loads(metrics[0]) | {"round": number} for number in range(1, 8)]
    for line in lines:
        line["label_shares"] = [1 / classes] * classes
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    watch = Watch(RunDirectory.open(path))
    watch._names = None
    stream = io.StringIO()
    console = Console(file=stream, width=120, height=height, force_terminal=True, color_system=None)
    fitted = watch.fitted(watch.look(), console)
    with Live(console=console, auto_refresh=False) as live:
        live.update(fitted, refresh=True)
    assert "\n..." not in stream.getvalue()  # which stands there for what Live cuts off
    stream = io.StringIO()
    Console(file=stream, width=120).print(fitted)
    shown = stream.getvalue()
    assert len(shown.splitlines()) < height
    assert "7 of 2 rounds" in shown  # how far the run is has a place everywhere
    assert "ε = 4" in shown
    if height >= 20:
        assert "the teacher's answers" in shown
        more = re.search(r"and ([\d,]+) more classes", shown)
        bars = len(re.findall(r"^\d+ +\d+%", shown, re.MULTILINE))
        left = 0 if more is None else int(more[1].replace(",", ""))
        assert bars + left == classes


def test_of_many_clients_as_many_are_shown_as_fit(unfinished: Parts) -> None:
    watch = Watch(RunDirectory.open(unfinished[0]))
    spent = {"response": 4.0, "round": 4.0, "teacher": 4.0, "delta": 1e-5}
    clients = [
        Client(key="", name=f"hospital-{number}", mechanism={}, spent=spent, ledger="")
        for number in range(200)
    ]
    look = replace(watch.look(), clients=clients)
    stream = io.StringIO()
    console = Console(file=stream, width=120, height=20)
    console.print(watch.fitted(look, console))
    shown = stream.getvalue()
    assert len(shown.splitlines()) < 20
    assert "hospital-9: " in shown
    assert "and 190 more clients" in shown


def test_a_moment_tells_time_left_and_spending(unfinished: Parts) -> None:
    path, metrics, _ = unfinished
    watch = Watch(RunDirectory.open(path))
    look = watch.look()
    assert (look.left, look.is_finished, look.metrics) == (None, False, [])
    assert look.certificate is not None
    (path / "metrics.jsonl").write_text(metrics[0])
    look = watch.look()
    assert look.left == look.metrics[0]["seconds"]
    assert 0 <= look.silent < 60


def test_nothing_was_asked_before_the_first_reservation(run_copy: Path) -> None:
    ledger = run_copy / "ledger.jsonl"
    ledger.write_text(ledger.read_text().splitlines(keepends=True)[0])
    assert Watch(RunDirectory.open(run_copy)).look().spent == "Nothing was asked yet."


def test_a_finished_run_is_shown_at_once(invoke: Callable[..., Result], finished_run: Path) -> None:
    result = invoke("watch", finished_run)
    assert result.exit_code == 0, result.stderr
    assert "2/2" in result.stdout
    assert "The run is finished. It spent ε = 4 at δ = 1e-05, adjacency response." in result.stdout


def test_an_interrupt_ends_the_watching_alone(
    invoke: Callable[..., Result], unfinished: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path, _, _ = unfinished
    hold(path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    monkeypatch.setattr(watching.Watch, "look", interrupted)
    result = invoke("watch", path)
    assert result.exit_code == 0
    assert "the run goes on" in result.stdout
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_run_that_nobody_executes_is_said_to_be_so(
    invoke: Callable[..., Result],
    unfinished: Parts,
    assert_error: Callable[[Result, int, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, metrics, _ = unfinished
    (path / "metrics.jsonl").write_text(metrics[0])
    leave_alone(path)
    again = f"continue with dpsd transcribe --resume {path}"
    # Where there is no terminal, it would be waited for for ever.
    monkeypatch.setattr(watching, "_PATIENCE", 0.0)
    assert_error(invoke("watch", path), 5, f"nobody is executing it here: {again}")

    stream = io.StringIO()
    console = Console(file=stream, width=300, height=60, force_terminal=True, color_system=None)

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(RunDirectory.open(path), console, wait=interrupted)
    assert again in stream.getvalue()
    assert " left;" not in stream.getvalue()
    monkeypatch.setattr(watching, "follow", lambda *_, **__: interrupted(0))
    assert "Nobody is executing the run here; continue it with" in invoke("watch", path).stdout


@pytest.mark.parametrize("resumed_after", [None, 20])
def test_a_run_that_was_left_long_ago_may_be_resumed_while_it_is_watched(
    unfinished: Parts, resumed_after: int | None
) -> None:
    """However long ago it last wrote: what counts is for how long it was seen abandoned."""
    path, metrics, ledger = unfinished
    leave_alone(path)
    seconds, writer = [0.0], Writer(path, metrics, ledger)

    def wait(passed: float) -> None:
        seconds[0] += passed
        if resumed_after is not None and seconds[0] > resumed_after:
            hold(path)
            writer(passed)

    console = Console(file=io.StringIO(), width=120)
    follows = partial(follow, RunDirectory.open(path), console, wait=wait, clock=lambda: seconds[0])
    if resumed_after is None:
        with pytest.raises(RunError, match="nobody is executing it here"):
            follows()
        assert seconds == [30.0]
    else:
        assert follows().is_finished


def test_a_run_that_is_executed_or_has_just_begun_is_not_abandoned(unfinished: Parts) -> None:
    path, _, _ = unfinished
    watch = Watch(RunDirectory.open(path))
    assert watch.look().is_executed is False
    assert not watch.look().is_abandoned
    leave_alone(path)
    assert watch.look().is_abandoned
    hold(path)
    assert not watch.look().is_abandoned


def test_a_run_that_has_not_begun_is_waited_for(
    invoke: Callable[..., Result],
    finished_run: Path,
    tmp_path: Path,
    assert_error: Callable[[Result, int, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = tmp_path / "later"
    assert_error(invoke("watch", later), 5, "wait for it with --wait")
    monkeypatch.setattr("dpsd.cli.watch.time.sleep", lambda _: shutil.copytree(finished_run, later))
    result = invoke("watch", later, "--wait")
    assert result.exit_code == 0, result.stderr
    assert f"waiting for a run to begin in {later}" in result.stderr
    assert "The run is finished" in result.stdout


def test_a_folder_that_is_no_run_is_refused(
    invoke: Callable[..., Result],
    tmp_path: Path,
    assert_error: Callable[[Result, int, str], None],
) -> None:
    assert_error(invoke("watch", tmp_path), 5, "is not a run directory")

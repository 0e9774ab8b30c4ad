"""``dpsd bench``."""

from __future__ import annotations

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from dpsd.benchmarks import running
from dpsd.benchmarks.kept import Measured
from dpsd.benchmarks.methods import Outcome, PublishedTask, Task
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.suites.registry import SUITES
from dpsd.benchmarks.versions import made_by
from dpsd.errors import UnknownNameError

Invoke = Callable[..., Result]


def measured(row: Row, settings: str, seed: int, *, made_by: str = "") -> Measured:
    """What a row gives, without measuring it."""
    return Measured(
        row=row.key,
        settings=settings,
        seed=seed,
        outcome=Outcome(seconds=1.0, accuracy=None),
        peak_memory=1,
        hardware="",
        day="",
        made_by=made_by,
    )


def test_the_command_measures_writes_and_goes_on_and_keeps_changed_rows_apart(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process of its own for each row takes seconds; that it has one is tested with the suites.
    monkeypatch.setattr(running, "in_a_process", lambda measure, *given: measure(*given))
    command = ("bench", "scale", "--only", "digits/1/queries/8", "--share", 0.001)
    done = invoke(*command, "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "queries 8" in done.stdout
    folder = tmp_path / "scale"
    assert (folder / "scale.md").read_text().startswith("# Time and memory")
    assert {path.suffix for path in folder.iterdir()} == {".md", ".csv", ".png", ".jsonl"}
    (line,) = (folder / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["outcome"]["accuracy"] is None
    assert invoke(*command, "--out", tmp_path).exit_code == 0
    assert len((folder / "results.jsonl").read_text().splitlines()) == 1

    # What is left to show does not ask which process measures.
    monkeypatch.setattr(running, "_run", measured)
    changed = (*command, "--set", "num-classes=3", "--set", "queries=9", "--out", tmp_path)
    name = "digits/1/queries/8 with num_classes=3, queries=9"
    assert invoke(*changed, "--list").stdout.strip() == name
    done = invoke(*changed)
    assert done.exit_code == 0, done.stderr
    assert "num_classes=3," in done.stdout
    table = (folder / "scale.md").read_text()
    assert "| queries 8, num_classes=3, queries=9 |" in table
    assert "--set num_classes=3 --set queries=9`" in table
    kept = (folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in kept] == ["digits/1/queries/8", name]


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc, so Linux only")
def test_a_row_ends_with_the_command_even_if_that_is_killed(tmp_path: Path) -> None:
    command = ("bench", "scale", "--only", "digits/1/queries/128000", "--out", str(tmp_path))
    process = subprocess.Popen([sys.executable, "-m", "dpsd", *command])
    try:
        rows: list[int] = []
        while not any(map(busy, rows)):
            assert process.poll() is None
            time.sleep(0.1)
            rows = children(process.pid)
    finally:
        process.kill()
        process.wait()
    wait_for_end(rows)


def test_an_interrupted_suite_leaves_a_table_of_what_is_there(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured_until_ctrl_c(row: Row, settings: str, seed: int) -> Measured:
        if row.value != 8:
            raise KeyboardInterrupt
        return measured(row, settings, seed)

    monkeypatch.setattr(running, "_run", measured_until_ctrl_c)
    stopped = invoke("bench", "scale", "--share", 0.001, "--out", tmp_path)
    assert stopped.exit_code == 130
    assert "1 of 16 are measured and kept; the same command goes on" in stopped.stderr
    table = (tmp_path / "scale" / "scale.md").read_text()
    assert "queries 8 " in table
    assert "- (1)" in table
    assert (tmp_path / "scale" / "scale.png").exists()


def test_rows_of_another_version_are_named_and_measured_again_when_told(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = iter(["another", "this one"])

    def measured_by_versions(row: Row, settings: str, seed: int) -> Measured:
        version = made_by(row) if next(versions) == "this one" else "another"
        return measured(row, settings, seed, made_by=version)

    monkeypatch.setattr(running, "_run", measured_by_versions)
    command = ("bench", "scale", "--only", "digits/1/queries/8000", "--out", tmp_path)
    assert "warning" not in invoke(*command).stderr
    told = invoke(*command)
    assert told.exit_code == 0
    assert "warning: rows kept by another version: digits/1/queries/8000; they are" in told.stderr
    assert "--again measures them anew" in told.stderr
    table = tmp_path / "scale" / "scale.md"
    assert "Rows kept by another version: digits/1/queries/8000." in table.read_text()
    assert "warning" not in invoke(*command, "--again").stderr
    assert "another version" not in table.read_text()
    assert invoke(*command, "--again").exit_code == 0  # and is not measured a third time


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc, so Linux only")
def test_an_interrupt_of_the_command_alone_ends_its_row(tmp_path: Path) -> None:
    command = ("bench", "scale", "--only", "digits/1/queries/512000", "--out", str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-m", "dpsd", *command],
        # A test that runs in the background inherits an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        rows: list[int] = []
        while not any(map(busy, rows)):
            assert process.poll() is None
            time.sleep(0.1)
            rows = children(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130  # the row takes minutes
    finally:
        process.kill()
        process.wait()
    wait_for_end(rows)


def wait_for_end(processes: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(map(alive, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in found.split()]


def busy(process: int) -> bool:
    """Whether it has computed for some seconds."""
    return int(fields_of(process)[11]) / os.sysconf("SC_CLK_TCK") > 5


def alive(process: int) -> bool:
    """Whether it is there, and not only because nobody asked how it ended."""
    try:
        return fields_of(process)[0] != "Z"
    except FileNotFoundError:
        return False


def fields_of(process: int) -> list[str]:
    """What Linux says of a process, from its state on."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def test_wrong_names_are_told_what_there_is(
    invoke: Invoke, assert_error: Callable[[Result, int, str], None]
) -> None:
    assert_error(invoke("bench", "ablatoin"), 2, "did you mean 'ablation'")
    assert_error(invoke("bench", "scale", "--only", "nothing"), 2, "--list names them")
    near = "did you mean 'digits/1/queries/8000'?"
    assert_error(invoke("bench", "scale", "--only", "digit/1/querys/8000"), 2, near)
    assert_error(invoke("bench", "ablation", "--data", "mnst"), 2, "mnst")
    assert_error(invoke("bench", "ablation", "--model", "cnm"), 2, "did you mean 'cnn'")
    assert_error(invoke("bench", "scale", "--set", "queries"), 2, "write FIELD=VALUE")
    assert_error(invoke("bench", "scale", "--set", "a=1", "--set", "a=2"), 2, "a is given twice")
    assert_error(invoke("bench", "scale", "--set", "quries=9"), 2, "--set quries=9: digits/1/")
    assert_error(invoke("bench", "scale", "--set", "quries=9"), 2, "did you mean 'queries'")
    assert_error(invoke("bench", "scale", "--share", "nan"), 2, "give 0.001 to 100")
    assert_error(invoke("bench", "scale", "--out", __file__), 2, "give a folder")


def test_a_row_that_cannot_run_leaves_the_others(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(row: Row, settings: str, seed: int) -> Measured:
        if row.value == 32:
            raise UnknownNameError("model", "resnet9", ["resnet8"])
        return measured(row, settings, seed)

    monkeypatch.setattr(running, "_run", measure)
    command = ("bench", "scale", "--only", "queries", "--share", 0.001, "--out", tmp_path)
    done = invoke(*command)
    assert done.exit_code == 5
    assert "measuring digits/1/queries/32, seed 0" in done.stderr  # said where no status is shown
    assert "digits/1/queries/32, seed 0: unknown model 'resnet9'" in done.stderr
    assert "1 could not be measured (digits/1/queries/32, seed 0)" in done.stderr
    assert "a look at 0.001 of the queries" in done.stdout
    found = (tmp_path / "scale" / "results.jsonl").read_text().splitlines()
    assert len(found) == 3
    lines = list(csv.DictReader((tmp_path / "scale" / "scale.csv").open()))
    assert {line["share_of_one_teacher"] for line in lines} == {"0.001"}


def test_errors_of_another_process_come_back_as_what_they_are() -> None:
    error = UnknownNameError("model", "resnet9", ["resnet8"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - of our own making


@pytest.mark.parametrize(
    ("suite", "row"),
    [
        ("data-sensitive", "medmnist:bloodmnist/1/dpsd\n"),
        ("label-sensitive", "medmnist:bloodmnist/1/dpsd-one-round\n"),
    ],
)
def test_data_sets_that_are_there_join_a_suite_and_others_are_not_missed(
    suite: str, row: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPSD_DATA", str(tmp_path))
    listing = ("bench", suite, "--list")
    nothing = invoke(*listing)  # names rows all the same, of what every table has
    assert nothing.exit_code == 0, nothing.stderr
    assert {line.partition("/")[0] for line in nothing.stdout.split()} == {
        *("mnist", "fashion-mnist", "cifar10-jpeg")
    }
    assert not nothing.stderr
    assert "cifar100/1/" in invoke(*listing, "--data", "cifar100").stdout
    measured = invoke("bench", suite, "--out", tmp_path / "out")
    assert measured.exit_code == 3
    assert "mnist, fashion-mnist, cifar10-jpeg" in measured.stderr
    assert "cifar100" not in measured.stderr

    (tmp_path / "medmnist").mkdir()
    arrays: dict[str, Any] = {
        f"{split}_{what}": np.zeros((4, 28, 28, 3) if what == "images" else (4, 1), np.uint8)
        for split in ("train", "val", "test")
        for what in ("images", "labels")
    }
    np.savez(tmp_path / "medmnist" / "bloodmnist.npz", **arrays)
    (tmp_path / "medmnist" / "octmnist.npz").write_bytes(b"cut off")
    found = invoke(*listing)
    assert found.exit_code == 0, found.stderr
    assert row in found.stdout
    assert "medmnist:bloodmnist/1/pate" not in found.stdout  # four records make no two teachers
    # One that is damaged is not passed over in silence.
    assert "octmnist" in found.stderr
    assert "cifar100" not in found.stderr


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_rows_are_listed_as_they_are_measured(share: float) -> None:
    """What publishers say of a data set that comes with dpsd is what is in it."""
    here = Task(data="digits", teachers=Path("teachers"), validation_share=share)
    published = PublishedTask(data="digits", teachers=Path("teachers"), validation_share=share)
    assert here.records == published.records
    assert here.measured_records == published.measured_records
    for suite in SUITES.values():
        assert [(row.key, row.method) for row in suite.rows(here, 1.0)] == [
            (row.key, row.method) for row in suite.rows(published, 1.0)
        ]


def test_a_list_of_rows_needs_no_data_and_says_nothing_of_it(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPSD_DATA", str(tmp_path / "empty"))
    listed = invoke("bench", "transfer", "--list")
    assert listed.exit_code == 0, listed.stderr
    assert "mnist/10/labels-default" in listed.stdout
    assert listed.stderr == ""
    absent = invoke("bench", "transfer", "--list", "--data", tmp_path / "absent.npz")
    assert absent.exit_code == 3
    assert "skipped: " in absent.stderr

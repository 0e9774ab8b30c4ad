"""What is computed in a process of its own comes back, or why it does not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dpsd.benchmarks.processes import in_a_process
from dpsd.errors import ConfigError, RunError


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(what: str) -> None:
    raise ConfigError(f"{what} is refused")


def test_a_process_that_is_killed_is_an_error_that_says_so() -> None:
    with pytest.raises(RunError, match="memory"):
        in_a_process(kill_oneself)


def test_its_errors_are_raised_here() -> None:
    with pytest.raises(ConfigError, match="this is refused"):
        in_a_process(refuse, "this")


def work_with_a_temporary_folder(where: str) -> None:
    with tempfile.TemporaryDirectory(dir=where) as folder:
        for number in range(2_000):
            (Path(folder) / str(number)).touch()
        (Path(where) / "working").write_text(str(os.getpid()))
        time.sleep(60)


WORK = """
from tests.benchmarks.test_processes import work_with_a_temporary_folder
from dpsd.benchmarks.processes import in_a_process
if __name__ == "__main__":
    in_a_process(work_with_a_temporary_folder, {!r})
"""


IMPORTING = """
import multiprocessing, os, pathlib, time
def work():
    pass
if multiprocessing.parent_process() is not None:
    pathlib.Path({!r}, "working").touch()
    time.sleep(60)
"""


def test_a_process_that_ends_before_it_works_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(IMPORTING.format(str(tmp_path)))
    script = tmp_path / "work.py"
    script.write_text(
        "from dpsd.benchmarks.processes import in_a_process\n"
        'if __name__ == "__main__":\n    import slow\n    in_a_process(slow.work)\n'
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        started = time.monotonic()
        while not (tmp_path / "working").exists():
            assert process.poll() is None
            assert time.monotonic() < started + 60
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert b"Traceback" not in said


@pytest.mark.parametrize("told", ["one", "both", "killed", "both, twice"])
def test_a_process_that_is_not_waited_for_cleans_up(told: str, tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(WORK.format(str(tmp_path)))
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A test that runs in the background inherits an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    started = time.monotonic()
    try:
        while not (tmp_path / "working").exists():
            assert process.poll() is None
            assert time.monotonic() < started + 60
            time.sleep(0.05)
        if told == "both":  # as a terminal does
            os.killpg(process.pid, signal.SIGINT)
        elif told == "both, twice":  # as `timeout` does
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.send_signal(signal.SIGINT if told == "one" else signal.SIGKILL)
        process.wait(timeout=30)
        deadline = time.monotonic() + 30
        while [path for path in tmp_path.iterdir() if path.is_dir()]:
            assert time.monotonic() < deadline, "the temporary folder is still there"
            time.sleep(0.05)
        if told == "both, twice":
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(0.5)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, said = process.communicate()
    assert b"call_queue.get" not in said  # a traceback of the pool's own

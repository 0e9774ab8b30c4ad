"""A second process on the same run is refused at once, and a dead one leaves nothing locked."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dpsd.errors import RunError
from dpsd.storage.locks import exclusively, is_held_here

HOLD = """
import sys, time
from pathlib import Path
from dpsd.storage.locks import exclusively
with exclusively(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_process(file: Path) -> Iterator[subprocess.Popen[str]]:
    """One that holds a file until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()
            holder.wait()


def beside(file: Path) -> list[Path]:
    return [path for path in file.parent.iterdir() if path != file]


def test_who_is_patient_gets_a_file_that_is_held_for_a_moment(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    with another_process(file) as holder:
        with pytest.raises(RunError, match="in use by"), exclusively(file, patience=0.2):
            pass
        end = threading.Timer(0.3, holder.kill)
        end.start()
        with exclusively(file, patience=60):
            end.join()


def test_another_process_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    with another_process(file) as holder:
        words = f"in use by process {holder.pid} on {platform.node()}"
        with pytest.raises(RunError, match=words), exclusively(file):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with exclusively(file):
        assert len(beside(file)) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell without a signal")
def test_it_is_known_without_locking_whether_a_process_here_holds_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    assert is_held_here(file) is False
    with another_process(file) as holder:
        assert is_held_here(file) is True
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    (left,) = beside(file)  # what the dead process wrote
    assert is_held_here(file) is False
    for unknown in ('{"host": "elsewhere", "pid": 1}', "damaged", '{"host": "elsewhere"}'):
        left.write_text(unknown)
        assert is_held_here(file) is None
    for impossible in ("0", "-1", "1e999", str(10**30), "null"):
        left.write_text(f'{{"host": {json.dumps(platform.node())}, "pid": {impossible}}}')
        assert is_held_here(file) is None


@pytest.mark.parametrize("is_written", [True, False])
def test_what_is_beside_a_held_file_may_be_deleted(tmp_path: Path, is_written: bool) -> None:
    file = tmp_path / "budget.jsonl"
    if is_written:
        file.write_text("a line\n")
    with another_process(file):
        deleted = beside(file)
        assert deleted
        for path in deleted:
            path.unlink()
        with pytest.raises(RunError, match="in use by another process"), exclusively(file):
            pass


def test_a_file_that_was_written_to_stays(tmp_path: Path) -> None:
    file = tmp_path / "budget.jsonl"
    with exclusively(file):
        # As ledgers are written: opened and closed by name, which must not drop the lock.
        with file.open("ab") as lines:
            lines.write(b"a line\n")
        file.read_bytes()
        with pytest.raises(RunError, match=f"in use by process {os.getpid()}"), exclusively(file):
            pass
    assert file.read_text() == "a line\n"
    assert not beside(file)


def test_a_file_that_was_replaced_is_held_no_more(tmp_path: Path) -> None:
    file, other = tmp_path / "budget.jsonl", tmp_path / "restored.jsonl"
    other.write_text("another line\n")
    with exclusively(file) as hold:
        hold.require()
        other.replace(file)
        with pytest.raises(RunError, match="was removed or replaced"):
            hold.require()
    assert file.read_text() == "another line\n"


def test_a_file_removed_between_opening_and_locking_is_locked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "budget.jsonl"
    opened: list[Path] = []
    original = os.open

    def removed(path: Path, *arguments: int) -> int:
        descriptor = original(path, *arguments)
        if path == file and not opened:
            file.unlink()  # as the process that held it does when nothing was written
        if path == file:
            opened.append(path)
        return descriptor

    monkeypatch.setattr("dpsd.storage.locks.os.open", removed)
    with exclusively(file) as hold:
        assert hold.is_current()
    assert len(opened) == 2


def test_messages_name_what_the_file_stands_for(tmp_path: Path) -> None:
    file = tmp_path / "run" / "ledger.jsonl"
    words = f"{tmp_path / 'run'} is in use"
    with (
        exclusively(file),
        pytest.raises(RunError, match=words),
        exclusively(file, name=tmp_path / "run"),
    ):
        pass


def test_a_place_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = tmp_path / "file" / "below"
    with pytest.raises(RunError, match="cannot be locked"), exclusively(nowhere):
        pass

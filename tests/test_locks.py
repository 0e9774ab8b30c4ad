"""A second process on the same run is refused at once, and a dead one leaves nothing locked."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dpsd.errors import RunError
from dpsd.locks import HOLDER_FILE, exclusively

HOLD = """
import sys, time
from pathlib import Path
from dpsd.locks import exclusively
with exclusively(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        words = f"in use by process {holder.pid} on {platform.node()}"
        with pytest.raises(RunError, match=words), exclusively(tmp_path):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with exclusively(tmp_path):
        assert (tmp_path / HOLDER_FILE).exists()
    assert not (tmp_path / HOLDER_FILE).exists()


def test_a_place_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = tmp_path / "file" / "below"
    with pytest.raises(RunError, match="cannot be locked"), exclusively(nowhere):
        pass


def test_a_file_is_held_by_a_lock_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "budget.jsonl"
    with exclusively(file):
        assert not file.exists()
        with pytest.raises(RunError, match=f"in use by process {os.getpid()}"), exclusively(file):
            pass

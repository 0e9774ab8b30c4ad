"""A dozen crashes and faults; `make crash` runs hundreds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parent / "crashes.py"


@pytest.mark.skipif(sys.platform == "win32", reason="runs are forked children")
def test_nothing_is_forgotten_when_runs_are_killed_or_their_disk_fails() -> None:
    done = subprocess.run(
        [sys.executable, str(HARNESS), "--kills", "2", "--faults", "2", "--jobs", "1"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["kills"] >= 2
    assert counts["faults"] == 2
    assert counts["write calls"] > 50

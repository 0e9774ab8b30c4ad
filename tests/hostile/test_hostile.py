"""Hundreds of damaged and hostile inputs; `make fuzz` tries more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parent / "fuzz.py"


@pytest.mark.skipif(sys.platform == "win32", reason="inputs are tried in forked children")
def test_every_input_is_read_or_refused() -> None:
    # The seed is fixed, that a change which passed once goes on passing; `make fuzz` draws others.
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--inputs", "150", "--seed", "0"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["findings"] == []
    assert found["inputs"] >= 150
    assert found["refused"] > found["read"] > 0

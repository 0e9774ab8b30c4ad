"""Hundreds of damaged and hostile inputs; `make fuzz` tries more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parent / "fuzz.py"


@pytest.mark.skipif(sys.platform == "win32", reason="inputs are tried in forked children")
@pytest.mark.parametrize("part", range(2))
def test_every_input_is_read_or_refused(part: int) -> None:
    # The seed is fixed, that a change which passed once goes on passing; `make fuzz` draws others.
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--inputs", "250", "--seed", str(part)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["findings"] == []
    assert found["inputs"] >= 250
    assert found["refused"] > found["read"] > 0

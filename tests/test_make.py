"""``make test`` installs a browser for tests of pages where that asks nobody; it never fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("sh", "mkdir", "touch", "timeout")
pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("make", *TOOLS)), reason="needs make and timeout"
)


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("user", "outcome", "browser", "is_asked"),
    [
        (0, "true", None, True),
        (0, "false", None, True),
        (1000, "true", None, False),
        (0, "true", "chromium", False),
        (0, "true", "google-chrome", False),
    ],
    ids=["root", "root without a network", "user", "installed", "another installed"],
)
def test_a_browser_is_installed_where_that_asks_nobody(
    tmp_path: Path, user: int, outcome: str, browser: str | None, is_asked: bool
) -> None:
    # Nothing else is on the path, so nothing is really installed.
    tools, asked = tmp_path / "bin", tmp_path / "asked"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(str(shutil.which(tool)))
    script(tools / "id", f"echo {user}")
    script(tools / "apt-get", f'echo "$@" >> {asked}; {outcome}')
    if browser is not None:
        script(tools / browser, "true")
    venv = tmp_path / "venv"
    command = [str(shutil.which("make")), f"VENV={venv}", f"{venv}/.browser-stamp"]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"DPSD_CHROMIUM", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"}
    }
    for attempt in ("first", "second"):  # the second does nothing
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment | {"PATH": str(tools)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        lines = asked.read_text().splitlines() if asked.exists() else []
        expected = ["-qq update"]
        if outcome == "true":
            expected.append("-qq install --yes --no-install-recommends chromium")
        assert lines == expected * is_asked
        is_said = attempt == "first" and outcome == "false"
        assert ("Chromium cannot be installed" in done.stdout) == is_said

"""``dpsd bench``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Invoke = Callable[..., Result]


def test_the_command_measures_writes_and_goes_on(invoke: Invoke, tmp_path: Path) -> None:
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


def test_wrong_names_are_told_what_there_is(
    invoke: Invoke, assert_error: Callable[[Result, int, str], None]
) -> None:
    assert_error(invoke("bench", "ablatoin"), 2, "did you mean 'ablation'")
    assert_error(invoke("bench", "scale", "--only", "nothing"), 2, "--list names them")
    assert_error(invoke("bench", "ablation", "--data", "mnst"), 2, "mnst")

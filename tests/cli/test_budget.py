"""`dpsd budget` and `--cap`: what a teacher spent in all its runs, and how much it may."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from .conftest import TINY

Invoke = Callable[..., Result]


def test_runs_are_listed_added_up_and_capped(
    invoke: Invoke,
    teacher: Path,
    tmp_path: Path,
    assert_error: Callable[[Result, int, str], None],
) -> None:
    file = tmp_path / "budget.jsonl"
    run = ("transcribe", teacher, "--epsilon", 4, "--adjacency", "response", *TINY, "--quiet")
    for name in ("one", "other"):
        result = invoke(*run, "--out", tmp_path / name, "--budget-file", file)
        assert result.exit_code == 0, result.stderr
    shown = invoke("budget", teacher, "--budget-file", file)
    assert shown.exit_code == 0, shown.stderr
    for expected in ("all together", "ε response", "ε round", "ε teacher", "No cap is set"):
        assert expected in shown.stdout
    stated = json.loads(invoke("budget", teacher, "--budget-file", file, "--json").stdout)
    assert [Path(one["directory"]).name for one in stated["runs"]] == ["one", "other"]
    assert abs(stated["spent"]["response"] - 8) < 1e-4
    capped = invoke("budget", teacher, "--budget-file", file, "--cap", "9,1e-5,response")
    assert "Cap: ε = 9 at δ = 1e-05 under response, of which 8.001 is spent" in " ".join(
        capped.stdout.split()
    )
    assert_error(
        invoke(*run, "--out", tmp_path / "third", "--budget-file", file), 2, "the cap is 9"
    )
    lifted = invoke("budget", teacher, "--budget-file", file, "--cap", "none")
    assert "No cap is set" in lifted.stdout
    over = invoke(*run, "--out", tmp_path / "third", "--budget-file", file, "--cap", "9,1e-5,round")
    assert_error(over, 2, "under 'round'")
    assert not (tmp_path / "third").exists()


def test_a_cap_that_is_no_privacy_target(
    invoke: Invoke, teacher: Path, assert_error: Callable[[Result, int, str], None]
) -> None:
    assert_error(invoke("budget", teacher, "--cap", "much"), 2, "write EPSILON,DELTA,ADJACENCY")

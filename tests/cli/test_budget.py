"""`dpsd budget` and `--cap`: what a teacher spent in all its runs, and how much it may."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from dpsd.locks import exclusively

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
    assert "Cap: ε = 9 at δ = 1e-05 under response, of which 8 is spent" in " ".join(
        capped.stdout.split()
    )
    assert_error(
        invoke(*run, "--out", tmp_path / "third", "--budget-file", file), 2, "the cap is 9"
    )
    below = invoke("budget", teacher, "--budget-file", file, "--cap", "7,1e-5,response")
    assert "It is exceeded" in " ".join(below.stdout.split())
    lifted = invoke("budget", teacher, "--budget-file", file, "--cap", "none")
    assert "No cap is set" in lifted.stdout
    over = invoke(*run, "--out", tmp_path / "third", "--budget-file", file, "--cap", "9,1e-5,round")
    assert_error(over, 2, "under 'round'")
    assert not (tmp_path / "third").exists()


def test_no_budget_is_said_to_be_none(invoke: Invoke, teacher: Path, tmp_path: Path) -> None:
    shown = invoke("budget", teacher, "--budget-file", tmp_path / "typo.jsonl")
    assert "no such file yet: nothing is on record" in shown.stdout


@pytest.mark.parametrize("delta", ["-1", "1", "2", "nan"])
def test_a_delta_that_is_none_is_refused(
    invoke: Invoke, teacher: Path, delta: str, assert_error: Callable[[Result, int, str], None]
) -> None:
    assert_error(invoke("budget", teacher, "--delta", delta), 2, "delta must be at least 0")


def test_a_place_taken_by_another_run_leaves_nothing_behind(
    invoke: Invoke, teacher: Path, tmp_path: Path, assert_error: Callable[[Result, int, str], None]
) -> None:
    file = tmp_path / "budget.jsonl"
    run = ("transcribe", teacher, "--epsilon", 4, *TINY, "--quiet", "--budget-file", file)
    with exclusively(file):
        assert_error(invoke(*run, "--out", tmp_path / "one"), 5, "is in use by process")
    assert not list((tmp_path / "one").iterdir())
    assert invoke(*run, "--out", tmp_path / "one").exit_code == 0


def test_a_teacher_that_was_asked_is_not_replaced(
    invoke: Invoke, tmp_path: Path, assert_error: Callable[[Result, int, str], None]
) -> None:
    (tmp_path / "budget.jsonl").touch()
    train = ("train-teacher", "--data", "digits", "--out", tmp_path, "--force")
    assert_error(invoke(*train), 2, "of what its teacher's data have spent")


def test_a_cap_that_is_no_privacy_target(
    invoke: Invoke, teacher: Path, assert_error: Callable[[Result, int, str], None]
) -> None:
    assert_error(invoke("budget", teacher, "--cap", "much"), 2, "write EPSILON,DELTA,ADJACENCY")

"""`dpsd budget` and `--cap`: what a teacher spent in all its runs, and how much it may."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from dpsd.models import build_classifier
from dpsd.privacy.mechanisms import RandomizedResponse
from dpsd.privacy.records.ledger import reservation
from dpsd.privacy.records.teacher_budget import TeacherBudget
from dpsd.storage.locks import exclusively
from dpsd.teachers.directory import TeacherRecord, save_teacher

from .conftest import TINY

Invoke = Callable[..., Result]


@pytest.fixture
def own_teacher(teacher: Path, tmp_path: Path) -> Path:
    """A copy of the teacher that nobody asked yet."""
    return Path(
        shutil.copytree(teacher, tmp_path / "own", ignore=shutil.ignore_patterns("budget.jsonl"))
    )


def test_runs_are_listed_added_up_and_capped(
    invoke: Invoke,
    own_teacher: Path,
    tmp_path: Path,
    assert_error: Callable[[Result, int, str], None],
) -> None:
    file, teacher = tmp_path / "budget.jsonl", own_teacher
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
    # Runs that a file records are known in the usual place, and held to the cap there.
    usual = invoke("budget", teacher, "--cap", "8.5,1e-5,response")
    assert "is spent (" + str(teacher / "budget.jsonl") in usual.stdout
    assert_error(
        invoke(*run, "--out", tmp_path / "third", "--budget-file", tmp_path / "new.jsonl"),
        2,
        "the cap is 8.5",
    )
    assert "No cap is set" in invoke("budget", teacher, "--cap", "none").stdout
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


def test_each_teacher_of_a_folder_has_a_budget_of_its_own(
    invoke: Invoke, tmp_path: Path, assert_error: Callable[[Result, int, str], None]
) -> None:
    for seed, name in enumerate(("north", "south")):
        module = build_classifier("lenet5", input_shape=(1, 8, 8), num_classes=3, seed=seed)
        record = TeacherRecord(model="lenet5", input_shape=(1, 8, 8), num_classes=3)
        save_teacher(tmp_path / "all" / name, module, record)
    few = ("--student-steps", 3, "--student", "lenet5")
    run = ("transcribe", *TINY, "--epsilon", 3, *few, "--quiet")
    together = (*run, tmp_path / "all", "--out", tmp_path / "together")
    assert invoke(*run, tmp_path / "all" / "south", "--out", tmp_path / "alone").exit_code == 0
    assert invoke(*together).exit_code == 0
    shown = invoke("budget", tmp_path / "all", "--cap", "4,1e-5,round")
    assert shown.exit_code == 0, shown.stderr
    assert "2 teachers, each with a budget of its own" in shown.stdout
    assert f"spent most is teacher {tmp_path / 'all' / 'south'}" in shown.stdout
    stated = json.loads(invoke("budget", tmp_path / "all", "--json").stdout)
    assert [Path(one["directory"]).name for one in stated["runs"]] == ["alone", "together"]
    assert [len(one["caps"]) for one in stated["accounts"]] == [1, 1]
    again = (*run, tmp_path / "all" / "south", "--out", tmp_path / "third")
    assert_error(invoke(*again), 2, "the cap is 4")
    certified = invoke("certify", tmp_path / "together")
    assert certified.exit_code == 0, certified.stderr
    assert "the one of its 2 teachers that had spent most" in certified.stdout
    assert "was compared with the teacher's budget" in certified.stderr


def test_what_was_asked_of_a_teacher_that_was_exchanged_is_counted_when_told(
    invoke: Invoke, own_teacher: Path, tmp_path: Path
) -> None:
    earlier = TeacherBudget(own_teacher / "budget.jsonl", teacher="sha256:00")
    asked = reservation(
        round_index=1, answers=9, mechanism=RandomizedResponse(epsilon=1.0), teacher="sha256:00"
    )
    earlier.reserve(asked, run="a", directory="a")
    shown = invoke("budget", own_teacher)
    assert "records 1 run against a teacher of other content" in shown.stderr
    assert "count them with --count-earlier" in shown.stderr
    run = ("transcribe", own_teacher, "--epsilon", 4, "--adjacency", "response", *TINY, "--quiet")
    warned = invoke(*run, "--out", tmp_path / "run")
    assert "warning: " in warned.stderr
    assert "--count-earlier" in warned.stderr
    counted = invoke("budget", own_teacher, "--count-earlier", "--json")
    assert len(json.loads(counted.stdout)["runs"]) == 2
    assert "--count-earlier" not in invoke("budget", own_teacher).stderr


def test_a_ledger_cut_short_is_found_by_certify(
    invoke: Invoke,
    own_teacher: Path,
    tmp_path: Path,
    assert_error: Callable[[Result, int, str], None],
) -> None:
    run = ("transcribe", own_teacher, "--epsilon", 4, "--adjacency", "response", *TINY, "--quiet")
    assert invoke(*run, "--out", tmp_path / "run").exit_code == 0
    ledger = tmp_path / "run" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:-3]))  # its end, and all of its second round
    (tmp_path / "run" / "releases" / "round-0002.safetensors").unlink()
    (tmp_path / "run" / "certificate.json").unlink()
    result = invoke("certify", tmp_path / "run")
    assert_error(result, 5, "own/budget.jsonl, line 2: records that this run asked round 2")
    assert not result.stdout
    (own_teacher / "budget.jsonl").unlink()
    unseen = invoke("certify", tmp_path / "run")
    assert unseen.exit_code == 0
    assert "the teacher's budget was not compared" in unseen.stderr

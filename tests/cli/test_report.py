"""``dpsd report``: which runs and measurements reach the page, and where it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from dpsd.runs.directory import RunDirectory
from dpsd.runs.findings import Control, Findings

Invoke = Callable[..., Result]
AssertError = Callable[[Result, int, str], None]


@pytest.fixture(scope="module")
def measured(invoke: Invoke, finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``dpsd evaluate --json`` says of the run."""
    path = Path(tmp_path_factory.mktemp("measured")) / "measured.json"
    path.write_text(invoke("evaluate", finished_run, "--data", "digits", "--json").stdout)
    return path


def attacked(run: Path, *, student: str = "") -> None:
    """Leave findings in a run that are about its student, unless another one is named."""
    directory = RunDirectory.open(run)
    Findings(
        kind="copies",
        run=directory.identity,
        student=student or directory.ledger.ending()["student"],
        data="digits",
        seed=4,
        seconds=1.0,
        is_quick=True,
        asked=("--teacher", "moved"),
        verdict="No near-copies were found.",
        controls=(Control(name="returned", found=True, sentence="Records were returned."),),
        scores={"nearest": 1},
    ).save(run)


def test_an_evaluation_is_shown_with_what_it_was_measured_on(
    invoke: Invoke, finished_run: Path, measured: Path, tmp_path: Path
) -> None:
    out, figures = tmp_path / "new" / "page.html", tmp_path / "figures"
    flags = ("--evaluation", measured, "--out", out, "--figures", figures)
    result = invoke("report", finished_run, *flags)
    assert result.exit_code == 0, result.stderr
    assert "for the owner of the data" in result.stdout
    page = out.read_text(encoding="utf-8")
    found = json.loads(measured.read_text())
    assert f"{found['student_accuracy']:.1%}" in page
    assert "712 images of digits, test split" in page
    assert "Not for publication" in page
    assert list(figures.glob("confusion-1-*.png"))
    assert sum(map(sum, found["confusion"])) == 712


def test_findings_are_shown_unless_the_page_is_public(
    invoke: Invoke, run_copy: Path, tmp_path: Path
) -> None:
    attacked(run_copy)
    for flags, is_shown in (((), True), (("--public",), False)):
        out = tmp_path / f"{is_shown}.html"
        result = invoke("report", run_copy, "--out", out, *flags)
        assert result.exit_code == 0, result.stderr
        page = out.read_text(encoding="utf-8")
        assert ("No near-copies were found." in page) == is_shown
        assert ("Not for publication" in page) == is_shown
        assert ("for the owner" in result.stdout) == is_shown


def test_commands_are_those_that_made_the_page(
    invoke: Invoke, run_copy: Path, tmp_path: Path
) -> None:
    attacked(run_copy)
    for flags, place in (((), str(run_copy)), (("--public",), "RUN")):
        out = tmp_path / f"{place[0]}.html".replace("/", "own")
        assert invoke("report", run_copy, "--out", out, *flags).exit_code == 0
        text = re.sub("<[^>]*>", "", out.read_text(encoding="utf-8"))
        again = text[text.index("How to reproduce") :]
        for command in (
            f"dpsd transcribe --config {place}/config.toml --out {place}-again",
            f"dpsd certify {place}\n",
            f"dpsd report {place}{' --public' * bool(flags)}\n",
        ):
            assert command in again
        attack = f"dpsd attack {place} --data digits --kind copies --seed 4 --quick --teacher moved"
        assert (attack in again) == (not flags)


def test_a_page_does_not_deny_its_own_numbers(
    invoke: Invoke, run_copy: Path, measured: Path, tmp_path: Path
) -> None:
    denial = "No number here says how the student does on real images"
    attacked(run_copy)
    for name, flags, is_said in (
        ("attacked", (), False),
        ("evaluated", ("--evaluation", measured), False),
        ("public", ("--public",), True),
    ):
        out = tmp_path / f"{name}.html"
        assert invoke("report", run_copy, *flags, "--out", out).exit_code == 0
        page = out.read_text(encoding="utf-8")
        assert (denial in page) == is_said
    assert "transcribe with public images" in page
    assert "--evaluation" not in page


def test_a_run_is_shown_once(
    invoke: Invoke, finished_run: Path, tmp_path: Path, assert_error: AssertError
) -> None:
    same = finished_run.parent / "." / finished_run.name
    result = invoke("report", finished_run, same, "--out", tmp_path / "page.html")
    assert_error(result, 2, "is given twice: give each run once")


def test_no_folder_is_created_above_that_of_the_page(
    invoke: Invoke, finished_run: Path, tmp_path: Path, assert_error: AssertError
) -> None:
    result = invoke("report", finished_run, "--out", tmp_path / "a" / "b" / "page.html")
    assert_error(result, 5, "cannot be created")
    assert not (tmp_path / "a").exists()


def test_runs_of_the_same_name_are_told_apart(
    invoke: Invoke, finished_run: Path, run_copy: Path, tmp_path: Path
) -> None:
    other = run_copy.rename(tmp_path / finished_run.name)
    result = invoke("report", finished_run, other, "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for path in (finished_run, other):
        assert f"<h3>{path}</h3>" in page


def test_a_public_page_names_neither_folders_nor_files_of_the_owner(
    invoke: Invoke, finished_run: Path, run_copy: Path, tmp_path: Path
) -> None:
    other = run_copy.rename(tmp_path / "ward-7")
    (other / "patients.csv").write_text("name\n")
    out = tmp_path / "page.html"
    result = invoke("report", finished_run, other, "--public", "--out", out)
    assert result.exit_code == 0, result.stderr
    page = out.read_text(encoding="utf-8")
    assert "RUN-2" in page
    for word in ("ward-7", "patients.csv", str(tmp_path), str(finished_run)):
        assert word not in page


def test_what_is_about_another_student_is_refused(
    invoke: Invoke, run_copy: Path, measured: Path, tmp_path: Path, assert_error: AssertError
) -> None:
    found = json.loads(measured.read_text())
    (tmp_path / "other.json").write_text(json.dumps(found | {"student": "sha256:00"}))
    flags = ("--evaluation", tmp_path / "other.json", "--out", tmp_path / "page.html")
    assert_error(invoke("report", run_copy, *flags), 2, "about no student of these runs")
    attacked(run_copy, student="sha256:00")
    refused = invoke("report", run_copy, "--out", tmp_path / "page.html")
    assert_error(refused, 5, "the findings of copies are about another student")
    assert not (tmp_path / "page.html").exists()


def test_a_page_replaces_nothing_and_goes_into_no_run(
    invoke: Invoke, finished_run: Path, tmp_path: Path, assert_error: AssertError
) -> None:
    for place in ("report.html", "attacks/page.html"):
        inside = invoke("report", finished_run, "--out", finished_run / place, "--force")
        assert_error(inside, 2, "is a run, whose files must not be replaced")
    flags = ("--out", tmp_path / "new.html", "--figures", finished_run)
    assert_error(invoke("report", finished_run, *flags), 2, "is a run, whose files must not be")
    flags = ("--out", tmp_path / "new.html", "--figures", Path(__file__).parent)
    assert_error(invoke("report", finished_run, *flags), 2, "which is not empty")
    (tmp_path / "page.html").write_text("mine")
    there = invoke("report", finished_run, "--out", tmp_path / "page.html")
    assert_error(there, 2, "already exists: give another place, or --force")
    assert (tmp_path / "page.html").read_text() == "mine"

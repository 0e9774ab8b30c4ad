"""What is made from a federation's directory: pages, statuses, measurements."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.federated.server.hospitals import CLASSES, SETTINGS, SHAPE, Hospital, in_round, run
from tests.reporting.test_evaluations import FOUND
from typer.testing import CliRunner

import dpsd
from dpsd.cli import app
from dpsd.config.federation import FederationConfig
from dpsd.federated.server.starting import begin
from dpsd.reporting.watching import Watch
from dpsd.runs.directory import RunDirectory


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation of two clients with a named student, of which one dropped out once."""
    several = [Hospital("0"), Hospital("1")]
    several[1].spoil = in_round(2, None)
    path = tmp_path_factory.mktemp("federation") / "run"
    return run(several, path, student="cnn").directory.path


def said(*words: object) -> str:
    """What a command prints; it must succeed."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_the_page_lists_each_clients_epsilon_and_who_answered_when(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "hospital-0" in page
    assert "ε under response" in page
    assert "silent" in page
    assert "as each client stated it" in page
    peaks = [line["peak_memory_mb"]["process"] for line in RunDirectory.open(finished).metrics()]
    assert "memory, up to MB" in page
    assert all(f"<td>{peak:,}</td>" in page for peak in peaks)


def test_a_silent_client_does_not_look_like_a_liar(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    _, _, table = page.partition("answers said of the class")
    second = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", table.partition("</table>")[0])
    # By round: the round, and how much each client's answers said.
    rows = [second[start : start + 3] for start in range(3, len(second), 3)]
    assert [row[2] == "-" for row in rows] == [row[0] == "2" for row in rows]
    assert all(float(row[1]) > 0 for row in rows)


def test_report_writes_the_page_with_evaluations(finished: Path, tmp_path: Path) -> None:
    directory = RunDirectory.open(finished)
    about = {"run": directory.identity, "student": directory.ledger.ending()["student"]}
    (tmp_path / "found.json").write_text(json.dumps(FOUND | about))
    out = tmp_path / "page.html"
    said("report", finished, "--out", out, "--evaluation", tmp_path / "found.json")
    assert "Not for publication" in out.read_text(encoding="utf-8")
    other = CliRunner().invoke(app, ["report", str(finished), str(finished), "--out", "x.html"])
    assert other.exit_code == 2


def test_a_federation_is_measured_without_a_teacher_to_compare_with(
    finished: Path, tmp_path: Path
) -> None:
    images, labels = np.zeros((30, *SHAPE[1:]), np.uint8), np.arange(30) % CLASSES
    arrays: dict[str, Any] = {
        f"{split}_{what}": of
        for split in ("train", "test")
        for what, of in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "own.npz", **arrays)
    text = said("evaluate", finished, "--data", tmp_path / "own.npz")
    assert "student accuracy" in text
    assert "class images predicted student " in text
    assert "teacher" not in text


def test_status_says_why_a_client_does_not_take_part(tmp_path: Path) -> None:
    several = [Hospital("0"), Hospital("1")]
    several[1].mechanism = dpsd.RandomizedResponse(epsilon=4.0, candidates=7)
    out = run(several, tmp_path / "run", rounds=1, clients=1, student="cnn").directory.path
    text = said("federate", "status", out)
    assert "hospital-0 96 answered (round 1)" in text
    assert "hospital-1 0 garbage (when it was greeted)" in text
    assert "garbage: what it said was no reply" in text


def test_status_says_what_a_server_that_has_stopped_was_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FederationConfig(**SETTINGS, clients=1)
    _, directory = begin(settings, tmp_path / "run", student="cnn")
    request = directory._request_path(1)
    request.parent.mkdir(exist_ok=True)
    request.touch()
    assert "round 1 was being asked" in said("federate", "status", directory.path)
    monkeypatch.setattr("dpsd.cli.federate._online", lambda place: {})
    assert "round 1 is being asked; the server is running" in said(
        "federate", "status", directory.path
    )


def test_status_states_every_epsilon_with_its_adjacency(finished: Path) -> None:
    text = said("federate", "status", finished)
    assert "3 of 3 rounds; finished" in text
    assert "ε = 4 under response, 12 under round" in text
    assert "what the client stated of itself" in text


def test_watching_shows_what_clients_stated(finished: Path) -> None:
    look = Watch(RunDirectory.open(finished)).look()
    assert look.is_finished
    assert "hospital-1: ε = 4 under response" in look.spent


def test_certify_says_who_has_certificates(finished: Path) -> None:
    done = CliRunner().invoke(app, ["certify", str(finished)])
    assert done.exit_code == 5


def test_the_student_is_sampled_and_exported_like_any_other(finished: Path, tmp_path: Path) -> None:
    said("sample", finished, "--count", 20, "--out", tmp_path / "synthetic")
    said("export", finished, "--to", tmp_path / "student.safetensors")
    assert dpsd.RunDirectory.open(finished).student()

"""A federation on one machine, with real clients that speak Flower's messages."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpsd.cli import app
from dpsd.federated.client.folder import ClientFolder
from dpsd.models import build_classifier
from dpsd.runs.federation import FederationDirectory
from dpsd.teachers.directory import TeacherRecord, save_teacher

HAS_RAY = importlib.util.find_spec("ray") is not None

SETTINGS = (
    *("--epsilon", "2", "--adjacency", "response", "--rounds", "2", "--queries", "64"),
    *("--sources", "noise,silhouettes", "--generator-steps", "2", "--batch-size", "32"),
    *("--device", "cpu", "--precision", "float32"),
)


@pytest.fixture
def teachers(tmp_path: Path) -> list[str]:
    """Two teachers with weights of their own, which need not be any good."""
    places = [tmp_path / f"teacher-{number}" for number in range(2)]
    for number, place in enumerate(places):
        module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=3, seed=number)
        names = ("a", "b", "c")
        record = TeacherRecord(
            model="cnn", input_shape=(1, 8, 8), num_classes=3, class_names=names, data="none"
        )
        save_teacher(place, module, record)
    return [str(place) for place in places]


#: Where clients answer, in one test each.
BACKENDS = [
    "in-process",
    pytest.param(
        "ray",
        marks=[
            pytest.mark.federated,
            pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed"),
        ],
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_simulation_leaves_a_student_and_a_certificate_for_each_client(
    teachers: list[str], tmp_path: Path, backend: str
) -> None:
    out = tmp_path / "run"
    arguments = [*teachers, *SETTINGS, "--backend", backend, "--out", str(out)]
    done = CliRunner().invoke(app, ["federate", "simulate", *arguments])
    assert done.exit_code == 0, done.output
    directory = FederationDirectory.open(out)
    assert directory.is_finished()
    assert directory.class_names() == ("a", "b", "c")
    for number, client in enumerate(directory.clients(), start=1):
        folder = ClientFolder.open(out / "clients" / f"client-{number}")
        assert client.name == f"client-{number}"
        assert (client.code, client.answers) == ("answered", 128)
        assert client.ledger == folder.ledger.head
        said = [entry["entry"] for entry in folder.ledger.entries()]
        assert said == ["open", "reserve", "commit", "reserve", "commit"]
        compared = folder.reconcile()
        assert len(compared.files) == 1, "the answers are charged to the teacher's budget"
        assert not compared.shortfalls
        certificate = folder.certify()
        assert certificate.events == {"response": 1, "round": 2, "teacher": 128}
        assert client.spent["response"] == pytest.approx(2.0, rel=1e-3)


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_a_simulation_on_ray_is_refused_before_anything_is_made_where_ray_is_not_installed(
    teachers: list[str], tmp_path: Path
) -> None:
    arguments = [*teachers, *SETTINGS, "--backend", "ray", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, ["federate", "simulate", *arguments])
    assert done.exit_code == 2
    assert "--backend 'ray' needs Ray: pip install 'flwr[simulation]" in done.output
    assert not (tmp_path / "run").exists()


def test_a_simulation_of_unlike_teachers_is_refused(teachers: list[str], tmp_path: Path) -> None:
    module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=4, seed=0)
    record = TeacherRecord(
        model="cnn", input_shape=(1, 8, 8), num_classes=4, class_names=(), data="none"
    )
    save_teacher(tmp_path / "other", module, record)
    arguments = [*teachers, str(tmp_path / "other"), *SETTINGS, "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, ["federate", "simulate", *arguments])
    assert done.exit_code == 2
    assert "must agree" in done.output
    assert not (tmp_path / "run").exists()


def test_a_simulation_whose_server_is_trusted_states_two_costs(
    teachers: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    three = [*teachers, teachers[0]]  # a teacher's budget adds up, so the first needs a higher cap
    arguments = [*three, *SETTINGS, "--trusted-aggregator", "3", "--cap", "9,1e-5,response"]
    done = CliRunner().invoke(app, ["federate", "simulate", *arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    directory = FederationDirectory.open(out)
    assert [client.mechanism["name"] for client in directory.clients()] == [
        "shared-noise-votes"
    ] * 3
    certificate = ClientFolder.open(out / "clients" / "client-2").certify()
    others = certificate.against_others
    assert others is not None
    assert certificate.spent.response == pytest.approx(2.0, rel=1e-3)
    for kind in ("response", "round", "teacher"):
        assert getattr(others, kind) < getattr(certificate.spent, kind)
    stated = json.loads(certificate.to_json())
    assert stated["against_others"]["response"] == pytest.approx(others.response)
    for page in (certificate.to_markdown(), stated["trusted_server"], report(out)):
        assert "over at least 3 " in page
    shown = CliRunner().invoke(app, ["certify", str(out / "clients" / "client-2")])
    assert "sums over at least 3 clients, ε = " in " ".join(shown.output.split())


def report(out: Path) -> str:
    return " ".join((out / "report.html").read_text(encoding="utf-8").split())


def test_settings_of_other_mechanisms_are_refused_where_votes_are_added_up(
    teachers: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = [*teachers, teachers[0], *SETTINGS, "--trusted-aggregator", "3"]
    for more in (("--protect", "data"), ("--candidates", "all")):
        command = ["federate", "simulate", *arguments, *more, "--out", str(out)]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2
        said = " ".join(done.output.split())
        assert f"{more[0]} is" in said
        assert "trusted aggregator adds up votes" in said
        assert not out.exists()

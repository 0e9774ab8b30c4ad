"""MLflow gets what a run knows through its own client, and never ends a run that is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dpsd
from dpsd.errors import ConfigError
from dpsd.reporting.mlflow import MLflowObserver
from dpsd.runs.observing import Observer


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    mlflow = pytest.importorskip("mlflow", reason="no MLflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracked").as_uri())
    return mlflow.MlflowClient()


class Heard(Observer):
    """Keeps warnings, and how many lines it was told of at the end."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.rounds = 0

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def run_finished(self, metrics: list[dict[str, Any]], certificate: dpsd.Certificate) -> None:
        self.rounds = len(metrics)


def test_rounds_and_the_end_are_written_in_whole_seconds(
    client: Any, run: dpsd.RunDirectory
) -> None:
    heard, metrics, certificate = Heard(), run.metrics(), run.certify()
    with MLflowObserver(heard, name="digits") as observer:
        for line in metrics:
            observer.round_finished(line)
        observer.run_finished(metrics, certificate)
    experiment = client.get_experiment_by_name("dpsd")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert (tracked.info.run_name, tracked.info.status) == ("digits", "FINISHED")
    losses = client.get_metric_history(tracked.info.run_id, "student_loss")
    assert [(one.step, one.value) for one in losses] == [
        (line["round"], line["student_loss"]) for line in metrics
    ]
    assert tracked.data.metrics["epsilon/response"] == certificate.spent.response
    assert tracked.data.tags["dpsd.run"] == certificate.run
    assert "under response" in tracked.data.tags["dpsd.target"]
    times = [tracked.info.start_time, tracked.info.end_time, *(one.timestamp for one in losses)]
    assert {time % 1000 for time in times} == {0}
    assert heard.rounds == len(metrics)
    assert heard.warnings == []


def test_a_run_goes_on_if_mlflow_fails(
    client: Any, run: dpsd.RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, metrics = Heard(), run.metrics()

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk of the server is full\nand more")

    with MLflowObserver(heard, name="digits") as observer:
        monkeypatch.setattr(type(client), "log_batch", fail)
        for line in metrics:
            observer.round_finished(line)
        observer.run_finished(metrics, run.certify())
    assert heard.rounds == len(metrics)
    assert heard.warnings == [
        "MLflow gets nothing more of this run: OSError: the disk of the server is full"
    ]


def test_a_place_that_cannot_be_written_to_is_refused_beforehand(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuch://place")
    with pytest.raises(ConfigError, match="set MLFLOW_TRACKING_URI"):
        MLflowObserver(Observer(), name="digits").__enter__()


def test_without_mlflow_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="MLflow is not installed: pip install 'mlflow-skinny"):
        MLflowObserver(Observer(), name="digits")

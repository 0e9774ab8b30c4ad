"""Writing a run's metrics to MLflow, through its own client; needs the extra ``mlflow``.

Where to, MLflow's own variables say: ``MLFLOW_TRACKING_URI``, and ``MLFLOW_EXPERIMENT_NAME``.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from dpsd.errors import ConfigError
from dpsd.extras import how_to_install
from dpsd.privacy.records.certificate import Certificate
from dpsd.reporting.tracking import Tracking
from dpsd.runs.observing import Observer

_EXPERIMENT = "dpsd"


class MLflowObserver(Tracking):
    """An observer that writes to MLflow, and forwards everything to another one.

    A run in MLflow begins when this is entered. If MLflow fails later, the transcription goes on
    without it, as what was paid for would be lost otherwise; a warning says so, once.

    Args:
        inner: the other observer.
        name: the name of the run in MLflow.

    Raises:
        ConfigError: the extra is not installed, or MLflow cannot be reached.
    """

    def __init__(self, inner: Observer, *, name: str) -> None:
        if importlib.util.find_spec("mlflow") is None:
            raise ConfigError(f"MLflow is not installed: {how_to_install('mlflow')}")
        super().__init__(inner)
        self._name = name
        self._client: Any = None
        self._run = ""

    def __enter__(self) -> MLflowObserver:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
        try:
            client = MlflowClient()
            known = client.get_experiment_by_name(experiment)
            number = client.create_experiment(experiment) if known is None else known.experiment_id
            self._run = client.create_run(
                number, start_time=_now(), run_name=self._name
            ).info.run_id
        except (MlflowException, OSError) as error:
            raise ConfigError(
                f"MLflow cannot be written to ({_first_line(error)}): set MLFLOW_TRACKING_URI to a "
                "server or database that works, or leave MLflow out"
            ) from None
        self._client = client
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._client is not None:
            status = "FINISHED" if kind is None else "FAILED"
            self._tell("set_terminated", self._run, status=status, end_time=_now())

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        from mlflow.entities import Metric

        now = _now()
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._tell("log_batch", self._run, metrics=metrics)

    def run_finished(self, metrics: list[dict[str, Any]], certificate: Certificate) -> None:
        target = certificate.target
        stated = {
            "dpsd.run": certificate.run,
            "dpsd.student": certificate.student,
            "dpsd.target": "ε = {epsilon} at δ = {delta} under {adjacency}".format(**target),
        }
        for name, value in stated.items():
            self._tell("set_tag", self._run, name, value)
        super().run_finished(metrics, certificate)

    def _tell(self, what: str, *given: Any, **named: Any) -> None:
        """Call the client; after the first failure, nothing more is written."""
        if self._client is None:
            return
        from mlflow.exceptions import MlflowException

        try:
            getattr(self._client, what)(*given, **named)
        except (MlflowException, OSError) as error:
            self._client = None
            self.warn(f"MLflow gets nothing more of this run: {_first_line(error)}")


def _now() -> int:
    """The time in milliseconds, to whole seconds, as finer times could reveal a teacher."""
    return 1000 * int(time.time())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"

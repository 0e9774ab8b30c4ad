"""The protocol as MLServer speaks it, in an environment of its own, which takes minutes to build.

It runs only if ``DPSD_TEST_MLSERVER`` names a folder, where the environment is built once and kept.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import dpsd
from dpsd.errors import TeacherError
from dpsd.privacy.answers import open_for_mechanism
from dpsd.teachers import ServiceTeacher

FOLDER = os.environ.get("DPSD_TEST_MLSERVER")

pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="DPSD_TEST_MLSERVER names no folder for an environment"),
    pytest.mark.timeout(1_800),
]

MODEL = """
import joblib, numpy
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

digits = load_digits()
model = LogisticRegression(max_iter=300).fit(digits.data[:1300] / 16, digits.target[:1300])
joblib.dump(model, "model.joblib")
images = numpy.random.default_rng(0).random((300, 64), dtype=numpy.float32)
numpy.save("images.npy", images)
numpy.save("expected.npy", model.predict_proba(images))
"""


@dataclass
class Server:
    address: str
    images: torch.Tensor
    expected: torch.Tensor


def environment(folder: Path) -> Path:
    """The programs of an environment with MLServer."""
    programs = folder / "env" / "bin"
    if not (programs / "mlserver").exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
        packages = ("mlserver", "mlserver-sklearn")
        subprocess.run([programs / "pip", "install", "-q", *packages], check=True)
    return programs


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    assert FOLDER is not None
    folder = tmp_path_factory.mktemp("mlserver")
    programs = environment(Path(FOLDER).absolute())
    subprocess.run([programs / "python", "-c", MODEL], cwd=folder, check=True)
    ports = [free_port() for _ in range(3)]
    named = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    settings = {"host": "127.0.0.1", "parallel_workers": 0, **named}
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {
        "name": "digits",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": "7"},
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 10]},
        ],
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [programs / "mlserver", "start", folder], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            address = f"http://127.0.0.1:{ports[0]}/v2/models/digits"
            wait_until_ready(f"{address}/ready", process, folder / "log")
            yield Server(
                address,
                torch.from_numpy(np.load(folder / "images.npy")).view(-1, 1, 8, 8),
                torch.from_numpy(np.load(folder / "expected.npy")).float(),
            )
        finally:
            process.terminate()
            process.wait(30)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(log.read_text())


def test_answers_are_those_of_the_model(server: Server) -> None:
    teacher = dpsd.load_teacher(server.address, input_shape=(1, 8, 8))
    assert isinstance(teacher, ServiceTeacher)
    assert teacher.fingerprint == f"service:{server.address}/versions/7"
    assert (teacher.num_classes, teacher.scores) == (10, "probabilities")
    found = open_for_mechanism(teacher.ask(server.images, query_batch=0))
    torch.testing.assert_close(found, server.expected, atol=1e-5, rtol=0)


def test_what_the_server_says_of_public_noise_is_told(server: Server) -> None:
    with pytest.raises(TeacherError, match="the service has no such model"):
        dpsd.load_teacher(server.address.replace("digits", "letters"), input_shape=(1, 8, 8))
    with pytest.raises(TeacherError, match="takes images of 64, but input_shape 1,9,9 was given"):
        dpsd.load_teacher(server.address, input_shape=(1, 9, 9))


def test_a_run(server: Server, tmp_path: Path) -> None:
    run = dpsd.transcribe(
        dpsd.load_teacher(server.address, input_shape=(1, 8, 8)),
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=2.0, adjacency="response"),
        budget_file=tmp_path / "budgets.jsonl",
        recipe=dpsd.Recipe(rounds=2, queries=300, generator_steps=2, device="cpu"),
        out=tmp_path / "run",
    )
    assert run.certificate.events["teacher"] == 600
    assert run.directory.certify() == run.certificate

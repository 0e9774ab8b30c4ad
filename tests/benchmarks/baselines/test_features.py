"""DP-SGD, PATE and dpsd's own ensembles on one frozen public backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dpsd.benchmarks import teachers
from dpsd.benchmarks.baselines.pate import Pate
from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.errors import ConfigError, TeacherError
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.teachers import read_record
from dpsd.training import ensemble

BACKBONE = """
import torch

def edges():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU())
"""
FEATURES = "public_backbone:edges"


@pytest.fixture(autouse=True)
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "public_backbone.py").write_text(BACKBONE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


def test_dp_sgd_trains_one_layer_on_the_backbone(task: Task) -> None:
    body, head = PrivateSGD(features=FEATURES).network_for(task.train, seed=0)
    assert isinstance(head, nn.Linear)
    assert head.in_features == 8 * 3 * 3
    assert not any(weight.requires_grad for weight in body.parameters())
    assert any(isinstance(part, nn.Conv2d) for part in body.modules())
    # An image's features do not depend on the batch that it is in.
    images = torch.rand(4, *task.train.input_shape)
    assert torch.allclose(body(images)[:1], body(images[:1]), atol=1e-5)


def test_features_are_refused_where_nothing_is_linear_on_them() -> None:
    with pytest.raises(ConfigError, match="network='scattering'"):
        PrivateSGD(network="tempered", features=FEATURES)


def test_the_student_of_one_teacher_is_linear_on_features(task: Task) -> None:
    own = Transcribing(
        name="dpsd",
        protect="labels",
        adjacency=Adjacency.RESPONSE,
        recipe={"rounds": 1, "queries": 1_000, "student_steps": 100, "generator_steps": 0},
        features=FEATURES,
    )
    target = Budget(epsilon=20.0, delta=1e-5, adjacency=Adjacency.RESPONSE)
    outcome = own.measure(task, target=target, seed=0)
    assert outcome.details["student"] == "scattering"
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.3


def test_ensembles_on_other_features_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "in_a_process", lambda function, *given: function(*given))
    monkeypatch.setattr(ensemble, "VIEWS", 0)  # which the names of folders do not follow
    task = Task(data="digits", teachers=tmp_path / "teachers")
    path = task.teacher_path(20, FEATURES)
    stated = read_record(path).features
    assert stated is not None
    assert stated["name"] == FEATURES
    assert path != task.teacher_path(20)
    assert (task.teacher(20).features, task.teacher(20, FEATURES).members) == (None, 20)
    task.teacher_path(20).rename(path.with_name("aside"))
    path.rename(task.teachers / "digits-scattering-20-8-views")
    with pytest.raises(TeacherError, match="on the features public_backbone:edges, and"):
        task.teacher_path(20)


@pytest.mark.thorough
def test_pate_and_transcriptions_get_the_same_features(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    votes = measured(Pate(shards=20, queries=200, features=FEATURES), task, epsilon=50.0)
    assert votes.accuracy is not None
    assert votes.accuracy > 0.7
    own = Transcribing(
        name="dpsd, many teachers",
        protect="labels",
        adjacency=Adjacency.TEACHER,
        recipe={"queries": 2_000, "student_steps": 200, "generator_steps": 2},
        shards=20,
        features=FEATURES,
    )
    target = Budget(epsilon=200.0, delta=1e-5, adjacency=Adjacency.TEACHER)
    outcome = own.measure(task, target=target, seed=0)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.5

"""Rows with other settings: which they take, what they refuse, and what they are called then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dpsd.benchmarks.baselines.pate import Pate
from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
from dpsd.benchmarks.changing import changed
from dpsd.benchmarks.kept import settings_of
from dpsd.benchmarks.methods import PublishedTask
from dpsd.benchmarks.racing import Race
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.scaling import Untrained
from dpsd.benchmarks.suites.registry import SUITES
from dpsd.benchmarks.tables import Summary, cells, comma_separated
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.benchmarks.versions import made_by
from dpsd.errors import ConfigError

TASK = PublishedTask(data="mnist", teachers=Path("teachers"))


def row_named(suite: str, key: str) -> Row:
    return next(row for row in SUITES[suite].rows(TASK, 1.0) if row.key == f"mnist/{key}")


def test_a_recipe_is_changed_in_what_is_named_alone() -> None:
    row = row_named("label-sensitive", "1/dpsd-one-round")
    found = changed(row, {"queries": "5000", "sources": "noise, crops", "first_epochs": "none"})
    assert isinstance(row.method, Transcribing)
    assert isinstance(found.method, Transcribing)
    wanted = {"queries": 5_000, "sources": ("noise", "crops"), "first_epochs": None}
    assert found.method.recipe == {**row.method.recipe, **wanted}
    assert (found.method.mechanism, found.target) == (row.method.mechanism, row.target)


@pytest.mark.parametrize(
    ("suite", "key", "setting", "value"),
    [
        ("label-sensitive", "1/dpsd-one-round", "candidates", 3),
        ("data-sensitive", "1/dpsd", "scaling", "clip"),
        ("data-sensitive", "1/dpsd", "harden", False),
        ("data-sensitive", "1/dpsd", "top_k", None),
        ("data-sensitive", "1/dpsd-many", "consensus", 0.5),
    ],
)
def test_a_mechanism_is_changed_by_the_names_of_the_configuration(
    suite: str, key: str, setting: str, value: object
) -> None:
    row = row_named(suite, key)
    method = changed(row, {setting: str(value).lower()}).method
    assert isinstance(method, Transcribing)
    assert method.mechanism[setting] == value
    assert row.target is not None
    mechanism = method.configuration(row.target).privacy.mechanism(members=method.shards or 1)
    assert getattr(mechanism, {"consensus": "threshold"}.get(setting, setting)) == value


def test_baselines_races_and_timings_are_changed() -> None:
    private = changed(row_named("data-sensitive", "1/dp-sgd"), {"network": "tempered"}).method
    assert private == PrivateSGD(network="tempered")
    votes = changed(row_named("data-sensitive", "10/pate"), {"queries": "50"}).method
    assert votes == Pate(shards=500, queries=50)
    race = changed(row_named("speed", "1/dp-sgd"), {"epochs": "3"}).method
    assert race == Race(PrivateSGD(epochs=3, stop_at=0.95), reach=0.95)
    timed = changed(row_named("scale", "1/queries/8000"), {"input_shape": "3,32,32"}).method
    assert timed == Untrained(name="queries 8000", input_shape=(3, 32, 32))


def test_teachers_students_and_targets_are_changed() -> None:
    row = row_named("data-sensitive", "10/dpsd-many")
    found = changed(row, {"shards": "1000", "student": "cnn", "epsilon": "3", "delta": "1e-6"})
    assert isinstance(found.method, Transcribing)
    assert (found.method.shards, found.method.student) == (1_000, "cnn")
    assert found.target is not None
    assert (found.target.epsilon, found.target.delta) == (3.0, 1e-6)


def test_a_changed_row_is_told_from_the_plain_one_wherever_it_is_shown_or_kept() -> None:
    row = row_named("data-sensitive", "1/paper-dpsd")
    found = changed(row, {"rounds": "2", "queries": "9"})
    assert found.key == "mnist/1/paper-dpsd with queries=9, rounds=2"
    assert settings_of(found) != settings_of(row)
    assert made_by(found) != made_by(row)
    assert cells(Summary(found, []))[1] == "DPSD, to the letter, queries=9, rounds=2"
    assert "DPSD, to the letter, queries=9, rounds=2" in comma_separated([Summary(found, [])])
    # What its authors report is of other settings.
    assert row.published is not None
    assert found.published is None


def test_a_changed_row_is_the_same_however_it_is_written() -> None:
    row = row_named("data-sensitive", "1/dpsd")
    one = changed(row, {"replay": "1", "beta": "2.0"})
    other = changed(row, {"beta": "2", "replay": "1.0"})
    assert (one.key, settings_of(one)) == (other.key, settings_of(other))


@pytest.mark.parametrize(
    ("suite", "key", "changes", "words"),
    [
        ("data-sensitive", "1/dp-sgd", {"epoch": "1"}, "epoch=1: .* did you mean 'epochs'"),
        ("data-sensitive", "1/dp-sgd", {"name": "x"}, "has no setting 'name'"),
        ("data-sensitive", "1/datalens", {"epochs": "1"}, "is only quoted"),
        ("data-sensitive", "dafl", {"epsilon": "1"}, "has no setting 'epsilon'"),
        ("data-sensitive", "1/dpsd", {"shards": "9"}, "has no setting 'shards'"),
        ("data-sensitive", "1/dpsd", {"seed": "9"}, "has no setting 'seed'"),
        ("data-sensitive", "1/dpsd", {"candidates": "3"}, "has no setting 'candidates'"),
        ("data-sensitive", "1/dpsd", {"queries": "many"}, "queries=many: .* valid integer"),
        (
            "data-sensitive",
            "1/dpsd",
            {"queries": "0"},
            "queries=0: queries must be at least 1 and at most",
        ),
        ("data-sensitive", "1/dpsd", {"queries": "none"}, "queries=none: .* valid integer"),
        ("data-sensitive", "1/dpsd", {"sources": "nosie"}, "did you mean 'noise'"),
        ("data-sensitive", "1/dpsd", {"student": "cn"}, "student=cn: .* did you mean 'cnn'"),
        ("data-sensitive", "1/dpsd", {"epsilon": "-1"}, "epsilon=-1.0: epsilon must be positive"),
        ("data-sensitive", "1/dpsd-many", {"shards": "1"}, "shards must be at least 2"),
        ("data-sensitive", "1/dpsd-many", {"consensus_noise": "1"}, "with consensus"),
        ("data-sensitive", "1/dp-sgd", {"momentum": "nan"}, "momentum must be in"),
        (
            "data-sensitive",
            "1/dp-sgd",
            {"network": "cnn"},
            "'scattering', 'scattering-maps' or 'tempered'",
        ),
        ("scale", "1/queries/8000", {"student": "cn"}, "did you mean 'cnn'"),
        ("scale", "1/queries/8000", {"queries": "0"}, "queries must be at least 1 and at most"),
    ],
)
def test_what_a_row_cannot_take_is_refused_in_a_line(
    suite: str, key: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        changed(row_named(suite, key), changes)
    assert "\n" not in str(told.value)


def test_clients_of_a_federated_transcription_can_be_set_as_those_of_its_baselines() -> None:
    changes = {"clients": "7", "alpha": "0.2", "teacher_epochs": "3"}
    for key in ("5-0.3/1/dpsd-labels", "5-0.3/dense"):
        method = changed(row_named("federated", key), changes).method
        assert (method.clients, method.alpha, method.teacher_epochs) == (7, 0.2, 3)  # type: ignore[union-attr]
    ours = changed(row_named("federated", "5-0.3/1/dpsd-labels"), {"rounds": "3"}).method
    assert ours.recipe["rounds"] == 3  # type: ignore[union-attr]

"""A figure is known by the code and the defaults that decided it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dpsd.benchmarks import versions
from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.racing import Race
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.benchmarks.versions import SHOWING, made_by, source_hash
from dpsd.config.ensembles import ENSEMBLE_DEFAULTS
from dpsd.privacy.targets import Adjacency, Budget

PACKAGE = Path(versions.__file__).parents[1]

MANY = Transcribing(name="many", protect="labels", adjacency=Adjacency.TEACHER, shards=20)


def row_of(method: object) -> Row:
    task = Task(data="digits", teachers=Path("teachers"))
    target = Budget(epsilon=1.0, adjacency=Adjacency.TEACHER)
    return Row(key="one", task=task, method=method, target=target)  # type: ignore[arg-type]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("cli/bench.py", "climate.py", "models/cnn.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("one = 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "decides"), [("cli/bench.py", False), ("climate.py", True), ("models/cnn.py", True)]
)
def test_code_that_can_change_a_figure_decides(package: Path, name: str, decides: bool) -> None:
    before = source_hash.__wrapped__(package)
    assert source_hash.__wrapped__(package) == before
    (package / name).write_text("one = 2\n")
    assert (source_hash.__wrapped__(package) != before) == decides


def test_a_module_that_moves_decides(package: Path) -> None:
    before = source_hash.__wrapped__(package)
    (package / "climate.py").rename(package / "weather.py")
    assert source_hash.__wrapped__(package) != before


def test_what_only_shows_is_there() -> None:
    assert all((PACKAGE / place).exists() for place in SHOWING)


def test_a_default_that_changes_makes_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = made_by(row_of(MANY))
    assert made_by(row_of(MANY)) == before
    monkeypatch.setitem(ENSEMBLE_DEFAULTS, "queries", 11_000)
    assert made_by(row_of(MANY)) != before
    assert made_by(row_of(replace(MANY, recipe={"queries": 12_000}))) == before


def test_settings_of_every_kind_of_method_decide() -> None:
    methods = [
        MANY,
        replace(MANY, shards=30),
        replace(MANY, student="cnn"),
        replace(MANY, mechanism={"consensus": 0.5}),
        PrivateSGD(),
        PrivateSGD(epochs=1),
        Race(PrivateSGD(), reach=0.5),
        Race(PrivateSGD(), reach=0.9),
        Race(MANY, reach=0.9),
    ]
    assert len({made_by(row_of(method)) for method in methods}) == len(methods)

"""The examples of the Python API run as they stand, at a small size."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import dpsd

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = dpsd.Recipe(rounds=2, queries=200, generator_steps=2, generator_batch_size=16)


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_test_for_every_example() -> None:
    assert [file.stem for file in EXAMPLES.glob("*.py")] == ["any_classifier"]


def test_any_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = loaded("any_classifier").main(tmp_path / "run", SMALL)
    assert run.certificate.spent.response == pytest.approx(2, rel=1e-3)
    assert run.certificate.events["teacher"] == 400
    said = capsys.readouterr().out
    for expected in ("round 2: 200 queries", "teacher 9", "ε = 2 under response", "dpsd certify"):
        assert expected in said
    (tmp_path / "run").rename(tmp_path / "first")
    with pytest.raises(dpsd.BudgetError):  # the budget remembers the first run
        loaded("any_classifier").main(tmp_path / "run", SMALL)

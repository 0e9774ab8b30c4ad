"""The examples of the Python API run as they stand, at a small size."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import dpsd
from dpsd.models import build_classifier
from dpsd.teachers import TeacherRecord, save_teacher

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
    names = sorted(file.stem for file in EXAMPLES.glob("*.py"))
    assert names == ["any_classifier", "public_start"]


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


def test_public_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, public = (1, 8, 8), tmp_path / "public"
    start = build_classifier("cnn", input_shape=shape, num_classes=5, seed=7)
    save_teacher(public, start, TeacherRecord(model="cnn", input_shape=shape, num_classes=5))
    monkeypatch.setenv("PUBLIC_START", str(public))
    example = loaded("public_start")
    monkeypatch.setitem(sys.modules, "public_start", example)  # as if on PYTHONPATH
    known = start.state_dict()
    for classes in 10, 5:
        begun = example.student(input_shape=shape, num_classes=classes).state_dict()
        same = {name for name in begun if torch.equal(begun[name], known[name])}
        assert begun.keys() - same == {"head.weight", "head.bias"}
    with pytest.raises(dpsd.ConfigError, match="size mismatch for features"):
        build_classifier("public_start:student", input_shape=(3, 8, 8), num_classes=10)

    teacher = dpsd.load_teacher(
        lambda images: images.flatten(1)[:, :10],
        input_shape=shape,
        num_classes=10,
        scores="logits",
        name="pixels, version 1",
    )
    run = dpsd.transcribe(
        teacher,
        student="public_start:student",
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=2.0, adjacency="response"),
        budget_file=tmp_path / "budget.jsonl",
        recipe=SMALL,
        out=tmp_path / "run",
    )
    other = build_classifier("cnn", input_shape=shape, num_classes=5, seed=8).state_dict()
    trained = run.student.state_dict()["features.0.0.weight"]
    first = known["features.0.0.weight"], other["features.0.0.weight"]
    changed, elsewhere = ((trained - weight).norm() for weight in first)
    assert 0 < changed < elsewhere / 2

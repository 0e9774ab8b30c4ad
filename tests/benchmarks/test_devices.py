"""Benchmarks and simulations train and ask teachers on the accelerator where there is one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dpsd.benchmarks
import dpsd.federated.parts
import dpsd.federated.simulation

#: What runs on the CPU unless it is told otherwise.
TOLD = {"train_teacher", "load_teacher"}
FILES = sorted(Path(dpsd.benchmarks.__file__).parent.rglob("*.py"))
SIMULATED = [Path(one.__file__ or "") for one in (dpsd.federated.parts, dpsd.federated.simulation)]


def calls(source: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TOLD
    ]


@pytest.mark.parametrize("path", [*FILES, *SIMULATED], ids=lambda path: path.stem)
def test_every_teacher_is_told_its_device(path: Path) -> None:
    for call in calls(path.read_text(encoding="utf-8")):
        assert "device" in {keyword.arg for keyword in call.keywords}, ast.unparse(call)


def test_the_rule_has_something_to_say() -> None:
    found = [call for path in FILES for call in calls(path.read_text(encoding="utf-8"))]
    assert len(found) >= 5

"""Every script in ``benchmarks/`` says with ``--help`` what it does, and what each argument is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = [path for path in sorted(FOLDER.glob("*.py")) if "__main__" in path.read_text("utf-8")]


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2], node


def test_there_are_scripts() -> None:
    assert {"attacks.py", "noise.py", "small_sets.py"} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help_is_the_whole_docstring_and_leaves_no_argument_out(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree)
    found = list(calls(tree))
    parsers = [call for name, call in found if name == "explained"]
    assert [ast.unparse(one) for one in parsers] == ["explained(__doc__)"]
    assert "parse_args" in [name for name, _ in found]
    assert "ArgumentParser" not in [name for name, _ in found]
    unexplained = [
        ast.unparse(call.args[0])
        for name, call in found
        if name == "add_argument" and "help" not in [one.arg for one in call.keywords]
    ]
    assert not unexplained

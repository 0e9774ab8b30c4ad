"""What messages tell users to install is what ``pyproject.toml`` asks for, and can be installed."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dpsd.extras import how_to_install

ROOT = Path(__file__).parents[1]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))[
    "project"
]["optional-dependencies"]
SOURCES = [*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]


@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - {"dev", "docs"}))
def test_the_libraries_are_named_with_their_versions(extra: str) -> None:
    pip, install, *named = shlex.split(how_to_install(extra))
    assert (pip, install) == ("pip", "install")
    assert set(map(Requirement, named)) == set(map(Requirement, EXTRAS[extra]))


def test_an_unknown_extra_is_refused() -> None:
    with pytest.raises(ValueError, match="no extra 'onx'"):
        how_to_install("onx")


def test_messages_name_extras_that_there_are() -> None:
    named = {
        ast.literal_eval(node.args[0])
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "how_to_install"
    }
    assert {"onnx", "federated", "mlflow"} <= named <= EXTRAS.keys()


def test_nobody_is_told_to_install_dpsd_from_an_index() -> None:
    # It is on none; from its folder, it is installed as '.[extra]'.
    texts = [*SOURCES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    texts += (ROOT / "examples").rglob("*.*")
    assert len(texts) > 100
    for path in texts:
        if path.suffix in {".py", ".md", ".ipynb", ".toml"}:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"dpsd\[\w|pip install[^\n`]* ['\"]?dpsd\b", text), path

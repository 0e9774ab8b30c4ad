"""The names that a package promises are those of its stub, and each can be had."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

import dpsd

PACKAGE = Path(dpsd.__file__).parent
STUBS = sorted(PACKAGE.rglob("*.pyi"))


def stubbed_names(stub: Path) -> tuple[list[str], list[str]]:
    """The names that a stub imports, and those that it lists in ``__all__``."""
    imported: list[str] = []
    listed: list[str] = []
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            imported += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = ast.literal_eval(node.value)
    return imported, listed


def test_every_package_with_lazy_names_is_looked_at() -> None:
    packages = {str(stub.parent.relative_to(PACKAGE)) for stub in STUBS}
    assert packages == {".", "datasets", "models", "teachers"}


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.parent.name)
def test_a_stub_and_its_package_agree_on_the_names(stub: Path) -> None:
    parts = stub.parent.relative_to(PACKAGE.parent).parts
    package = importlib.import_module(".".join(parts))
    imported, listed = stubbed_names(stub)
    assert sorted(imported) == listed == package.__all__
    for name in listed:
        # A function may bear the name of the module that it comes from.
        assert not isinstance(getattr(package, name), ModuleType), name


def test_the_public_names_are_these() -> None:
    assert dpsd.__all__ == [
        *("Adjacency", "AnswerError", "Budget", "BudgetError", "Certificate", "ConfidentVotes"),
        *("ConfigError", "DataError", "DpsdError", "Gaussian", "Mechanism", "NoisyVotes"),
        *("Observer", "RandomizedResponse", "Recipe", "ReproducibleNoise", "Run", "RunDirectory"),
        *("RunError", "Scaling", "ServiceOptions", "SummedGradients", "SystemNoise", "Teacher"),
        *("TeacherError", "TranscriptionConfig", "load_teacher", "resume", "transcribe"),
    ]


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Observr"):
        _ = dpsd.Observr  # type: ignore[attr-defined]


def test_an_observer_can_be_subclassed_by_its_public_name() -> None:
    """Type checkers see a class, too: mypy reads this file like every other."""

    class Silent(dpsd.Observer):
        def warn(self, message: str) -> None:
            """Say nothing."""

    Silent().warn("no more rounds than one")

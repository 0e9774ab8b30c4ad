"""The shape of the house: who may import whom, and who may see what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dpsd

PACKAGE = Path(dpsd.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(["dpsd", *(part for part in parts if part != "__init__")])


MODULES = {module_name(file): TREES[file] for file in FILES}


def is_within(name: str, *parents: str) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def modules_in(*parents: str) -> Iterator[tuple[str, ast.Module]]:
    return ((name, tree) for name, tree in MODULES.items() if is_within(name, *parents))


def imports(tree: ast.AST) -> set[str]:
    """All that a module imports, wherever in it, as dotted names of modules and of what is in them.

    >>> sorted(imports(ast.parse("import os.path; from dpsd.storage.files import write_text")))
    ['dpsd.storage.files', 'dpsd.storage.files.write_text', 'os.path']
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def names(tree: ast.AST) -> set[str]:
    """Every identifier, attribute and text in a module that could reach something by name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name.rpartition(".")[2])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def calls(tree: ast.AST, function: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == function
    ]


def has_keyword(call: ast.Call, name: str, value: object) -> bool:
    return any(
        keyword.arg == name
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is value
        for keyword in call.keywords
    )


def test_the_whole_package_is_looked_at() -> None:
    assert {"dpsd", "dpsd.privacy.mechanisms.base", "dpsd.transcription.loop"} <= set(MODULES)


def test_only_devices_and_who_starts_them_know_of_several_processes() -> None:
    for name, tree in MODULES.items():
        if {found for found in imports(tree) if is_within(found, "torch.distributed")}:
            assert is_within(name, "dpsd.devices.group", "dpsd.transcription.launching"), name


def test_the_command_line_is_imported_by_nobody() -> None:
    for name, tree in MODULES.items():
        if not is_within(name, "dpsd.cli", "dpsd.__main__"):
            assert not {found for found in imports(tree) if is_within(found, "dpsd.cli")}, name


#: Modules of mechanisms that privatise answers themselves.
OPENING = {f"dpsd.privacy.mechanisms.{name}" for name in ("gaussian", "response", "sums")}


def test_only_mechanisms_open_answers() -> None:
    keys = {"open_for_mechanism", "_RawAnswers__probabilities", "_RawAnswers"}
    users = {name for name, tree in MODULES.items() if names(tree) & keys}
    assert users == {"dpsd.privacy.answers", *OPENING}


def test_answers_are_opened_in_privatize_alone() -> None:
    opening = {
        node.name
        for tree in (MODULES[name] for name in OPENING)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and calls(node, "open_for_mechanism")
    }
    assert opening == {"privatize"}


def test_only_the_loop_asks_teachers() -> None:
    def asks(tree: ast.AST) -> bool:
        return any(
            isinstance(node, ast.Attribute)
            and node.attr == "ask"
            and "teacher" in ast.unparse(node)
            for node in ast.walk(tree)
        )

    core = ["privacy", "distillation", "synthesis", "models", "datasets", "runs"]
    asking = {name for name, tree in MODULES.items() if asks(tree)}
    assert "dpsd.transcription.asking" in asking
    assert not [name for name in asking if is_within(name, *(f"dpsd.{part}" for part in core))]


def test_predictions_around_the_mechanism_are_for_evaluation_only() -> None:
    allowed = ["training", "results.evaluation", "cli", "attacks", "benchmarks"]
    users = {name for name, tree in MODULES.items() if "predict_classes" in names(tree)}
    assert "dpsd.training.classifier" in users
    assert not [
        name for name in users if not is_within(name, *(f"dpsd.{part}" for part in allowed))
    ]


@pytest.mark.parametrize("inside", ["transcription", "distillation", "synthesis", "privacy"])
def test_transcription_does_not_read_data_sets(inside: str) -> None:
    for name, tree in modules_in(f"dpsd.{inside}"):
        read = {found for found in imports(tree) if is_within(found, "dpsd.datasets")}
        assert not read, f"{name} imports {read}"


def test_privacy_noise_comes_from_its_own_source_only() -> None:
    """Nothing in ``privacy`` draws from a seeded generator, but for the source that says so."""
    drawing = {"rand", "randn", "randint", "randperm", "normal", "manual_seed", "multinomial"}
    for name, tree in modules_in("dpsd.privacy"):
        assert not names(tree) & drawing, name
        assert not {f for f in imports(tree) if is_within(f, "random", "dpsd.streams")}, name


def test_nothing_unpickles() -> None:
    pickling = ["pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"]
    for name, tree in MODULES.items():
        assert not {f for f in imports(tree) if is_within(f, *pickling)}, name
        for call in calls(tree, "torch.load"):
            assert has_keyword(call, "weights_only", True), f"{name}, line {call.lineno}"
        for function in ("np.load", "numpy.load", "np.lib.format.read_array"):
            for call in calls(tree, function):
                assert has_keyword(call, "allow_pickle", False), f"{name}, line {call.lineno}"


def test_nothing_is_saved_as_a_pickle() -> None:
    for name, tree in MODULES.items():
        assert not calls(tree, "torch.save"), name


def test_nothing_is_evaluated() -> None:
    for name, tree in MODULES.items():
        for function in ("eval", "exec", "os.system"):
            assert not calls(tree, function), f"{name} calls {function}"


def test_names_say_what_is_inside() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}
    assert not [name for name in MODULES if vague & set(name.split("."))]


def test_every_module_says_what_it_is() -> None:
    empty = {name for file in FILES if not TREES[file].body for name in [module_name(file)]}
    silent = {name for name, tree in MODULES.items() if not ast.get_docstring(tree)}
    assert silent <= empty

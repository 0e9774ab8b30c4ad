"""The shape of the house: who may import whom, and who may see what."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
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


def test_gradients_of_a_teacher_are_for_attacks_only() -> None:
    users = {name for name, tree in MODULES.items() if "with_gradients" in names(tree)}
    assert "dpsd.attacks.inversion.attacked" in users
    assert not [name for name in users if not is_within(name, "dpsd.attacks")]


#: The one module of a transcription that reads public images, and where it reads them.
READING, GATE = "dpsd.transcription.public", "dpsd.datasets.public_images"


@pytest.mark.parametrize("inside", ["transcription", "distillation", "synthesis", "privacy"])
def test_transcription_reads_no_data_sets_but_public_images_in_one_place(inside: str) -> None:
    for name, tree in modules_in(f"dpsd.{inside}"):
        read = {found for found in imports(tree) if is_within(found, "dpsd.datasets")}
        allowed = {found for found in read if name == READING and is_within(found, GATE)}
        assert read == allowed, f"{name} imports {read - allowed}"


def test_public_images_come_without_labels() -> None:
    assert READING in MODULES
    assert not names(MODULES[GATE]) & {"labels", "LabelledImages", "class_names"}
    assert "labels" not in names(MODULES[READING])
    functions = [node for node in MODULES[GATE].body if isinstance(node, ast.FunctionDef)]
    given = {node.name: ast.unparse(node.returns) for node in functions if node.returns}
    assert given["read_public"] == "Tensor"
    assert set(given.values()) <= {"Tensor", "Path", "bool"}


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


def opens_text_in_no_encoding(call: ast.Call) -> bool:
    """Whether a call opens a file or a pipe as text, in whatever encoding the system has.

    >>> [opens_text_in_no_encoding(call) for call in ast.walk(ast.parse(
    ...     "p.open(); open(p); p.open('rb'); os.fdopen(3, 'w'); p.read_text(encoding='utf-8')"
    ... )) if isinstance(call, ast.Call)]
    [True, True, False, True, False]
    """
    if isinstance(call.func, ast.Attribute):
        owner, name, position = ast.unparse(call.func.value), call.func.attr, 0
    elif isinstance(call.func, ast.Name):
        owner, name, position = "", call.func.id, 1
    else:
        return False
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in given:
        return False
    if (name == "run" and owner == "subprocess") or name in ("Popen", "check_output"):
        return bool(given.keys() & {"text", "universal_newlines"})
    if name in ("read_text", "write_text"):
        return bool(owner)  # a function of that name is our own, and writes UTF-8
    if name == "fdopen":
        position = 1
    elif name != "open" or owner in ("os", "Image", "RunDirectory", "gzip", "lzma", "tarfile"):
        return False
    mode = given.get("mode", call.args[position] if len(call.args) > position else None)
    return mode is None or (isinstance(mode, ast.Constant) and "b" not in str(mode.value))


def test_every_text_file_is_of_a_named_encoding() -> None:
    wrong = [
        f"{name}, line {node.lineno}: {ast.unparse(node)}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and opens_text_in_no_encoding(node)
    ]
    assert not wrong, "\n".join(wrong)


#: The end of a command line in which a value follows.
_COMMAND = re.compile(
    r"\bdpsd (?:transcribe|train-teacher|evaluate|sample|export|certify|budget|bench|data fetch)"
    r"(?: [^:;,.]*)? $|--(?:resume|cap) $"
)


def unquoted_commands(tree: ast.Module) -> Iterator[ast.JoinedStr]:
    """Texts that put a value into a command line as it is, which a blank in it would break.

    >>> [ast.unparse(text) for text in unquoted_commands(ast.parse(
    ...     "f'dpsd certify {path}', f'dpsd {version}', f'continue with --resume {path}'"
    ... ))]
    ["f'dpsd certify {path}'", "f'continue with --resume {path}'"]
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for part, value in pairwise(node.values):
                if (
                    isinstance(part, ast.Constant)
                    and isinstance(value, ast.FormattedValue)
                    and _COMMAND.search(str(part.value))
                ):
                    yield node


def test_commands_in_messages_are_quoted_for_the_shell() -> None:
    # The name of a data set that can be fetched is one word.
    harmless = {"dpsd.cli.data", "dpsd.datasets.location"}
    wrong = [
        f"{name}, line {node.lineno}: {ast.unparse(node)}"
        for name, tree in MODULES.items()
        if name not in harmless
        for node in unquoted_commands(tree)
    ]
    assert not wrong, "\n".join(wrong)


def test_tensors_are_read_where_errors_of_the_system_are_kept() -> None:
    """Elsewhere, a file that may not be read would be said not to exist."""
    readers = {"safetensors.safe_open", "safetensors.torch.load_file"}
    users = {name for name, tree in MODULES.items() if imports(tree) & readers}
    assert users == {"dpsd.storage.files"}

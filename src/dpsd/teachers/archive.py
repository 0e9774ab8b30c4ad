"""Reading a ``.pt2`` archive without letting it run code.

``torch.export.load`` trusts its file: it falls back to full unpickling, loads compiled libraries,
evaluates shape expressions as Python, and generates Python from the names in the graph. So a file
is first taken apart here. Everything in it that could be code is refused, and the rest is
reassembled into a clean archive. This is a guard against files that were tampered with, not a
sandbox: operators run in this process.

>>> read_archive(b"not a zip", where="teacher.pt2")
Traceback (most recent call last):
    ...
dpsd.errors.TeacherError: teacher.pt2 is damaged, cut off or not an exported program: ...
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dpsd.errors import TeacherError
from dpsd.teachers.fingerprint import fingerprint_records


@dataclass(frozen=True, kw_only=True)
class CheckedArchive:
    """A clean copy of an exported program.

    Attributes:
        content: the archive, for ``torch.export.load``.
        fingerprint: the hash of the graph and the weights, without traces, example inputs or names.
        extra: the extra files that whoever exported the program added, by name. They are data that
            nothing has checked.
    """

    content: bytes
    fingerprint: str
    extra: Mapping[str, bytes]


class UnsafeContentError(ValueError):
    """An error that names something in an archive that could run code."""


def read_archive(content: bytes, *, where: str) -> CheckedArchive:
    """Check an exported program and copy what is harmless.

    Args:
        content: the bytes of the ``.pt2`` file.
        where: the path of the file, for messages.

    Raises:
        TeacherError: the file is damaged, or holds something that could run code.
    """
    try:
        refuse_inflation(content)
        records: dict[str, bytes] = {}
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                if info.filename in records:
                    raise UnsafeContentError(f"two records called {info.filename!r}")
                records[info.filename] = archive.read(info)
        clean = {name: check(records[name]) for name, check in _checks(list(records)).items()}
    except UnsafeContentError as error:
        raise TeacherError(
            f"{where} will not be loaded, because loading it could run code: it holds {error}. "
            "Export the plain model with torch.export.save"
        ) from None
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        ValueError,
        KeyError,
        RecursionError,
    ) as error:
        raise TeacherError(
            f"{where} is damaged, cut off or not an exported program: export it again with "
            f"torch.export.save ({type(error).__name__})"
        ) from None
    lasting = {_inner(name): value for name, value in clean.items() if _LASTING.search(name)}
    extra = {
        found[1]: content
        for name, content in records.items()
        if (found := _EXTRA.fullmatch(_inner(name)))
    }
    return CheckedArchive(
        content=_archive(clean), fingerprint=fingerprint_records(lasting), extra=extra
    )


def refuse_inflation(content: bytes) -> None:
    """Refuse a zip file that unpacks to much more than its own size.

    Torch stores weights uncompressed, and compresses code and debugging records alone, so an honest
    file hardly grows; a zip bomb has to.

    Raises:
        UnsafeContentError: it would unpack to more than four times its size.
        zipfile.BadZipFile: it is not a zip file, or was cut off.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        declared = sum(info.file_size for info in archive.infolist())
    if declared > _MOST_INFLATION * len(content):
        raise UnsafeContentError(
            f"records that unpack to {declared:,} bytes out of {len(content):,} (a zip bomb)"
        )


def is_torchscript(content: bytes) -> bool:
    """Return whether a file is a TorchScript program, by the records that it holds.

    >>> is_torchscript(b"not a zip")
    False
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False
    has_code = any(re.match(r"[^/]+/code/.*\.py$", name) for name in names)
    return has_code and any(re.match(r"[^/]+/constants\.pkl$", name) for name in names)


def _checks(names: list[str]) -> dict[str, Callable[[bytes], bytes]]:
    """Return the check for each record to keep; records of unknown kinds are refused."""
    chosen: dict[str, Callable[[bytes], bytes]] = {}
    for name in names:
        for pattern, check in _RECORDS:
            if pattern.fullmatch(_inner(name)):
                if check is not None:
                    chosen[name] = check
                break
        else:
            raise UnsafeContentError(f"a record of an unexpected kind, {name!r}")
    if not any(_GRAPH.fullmatch(_inner(name)) for name in chosen):
        raise ValueError("no graph")
    return chosen


def _inner(name: str) -> str:
    """Return a record's name without the folder in which newer archives put all records.

    >>> _inner("teacher/models/model.json"), _inner("version")
    ('models/model.json', 'version')
    """
    folder, _, rest = name.partition("/")
    return rest if rest and folder not in _FOLDERS else name


def _verbatim(content: bytes) -> bytes:
    return content


def _tensors_only(content: bytes) -> bytes:
    """Keep a pickle if torch's restricted unpickler, which builds tensors only, accepts it."""
    if not content:
        return content
    refuse_inflation(content)
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - in any case, the full unpickler must not try it
        raise UnsafeContentError(
            f"a pickle with more than tensors ({type(error).__name__})"
        ) from None
    return content


def _unpickled_tensors(content: bytes) -> bytes:
    """Check a list of weights: each must be stored raw, in a record of the expected kind."""
    config = json.loads(content)
    for name, entry in config["config"].items():
        if entry["use_pickle"] or not _RAW_TENSOR.fullmatch(entry["path_name"]):
            raise UnsafeContentError(f"{name!r}, which is not stored as a plain tensor")
    _check_names(config)
    return content


def _graph(content: bytes) -> bytes:
    program = json.loads(content)
    program["graph_module"].pop("metadata", None)
    program["graph_module"]["metadata"] = {}
    if "guards_code" in program:
        program["guards_code"] = []  # source code; torch derives guards on ranges again
    _check_names(program)
    return json.dumps(program, sort_keys=True).encode()


def _check_names(value: Any, key: str = "") -> None:
    """Check every string in a graph, and drop the traces of the nodes' origins."""
    if isinstance(value, dict):
        if "target" in value and "metadata" in value:
            value["metadata"] = {}
        for name, item in value.items():
            if not _PLAIN.fullmatch(name):
                raise UnsafeContentError(f"the name {name[:60]!r}")
            _check_names(item, name)
    elif isinstance(value, list):
        for item in value:
            _check_names(item, key)
    elif isinstance(value, str):
        if key in ("in_spec", "out_spec"):
            _check_tree(json.loads(value))
        elif key == "expr_str":
            _check_expression(value)
        elif key in ("target", "as_operator"):
            if not _OPERATORS.fullmatch(value):
                raise UnsafeContentError(f"the operator {value[:60]!r}")
        elif not _STRINGS.get(key, _PLAIN).fullmatch(value):
            raise UnsafeContentError(f"the string {value[:60]!r}")


def _check_tree(spec: Any) -> None:
    """Check the nesting of inputs and outputs: only tuples, lists and dicts with plain keys."""
    if isinstance(spec, dict):
        if spec.get("type") not in (None, "builtins.tuple", "builtins.list", "builtins.dict"):
            raise UnsafeContentError(f"a container of type {str(spec['type'])[:60]!r}")
        _check_names(json.loads(spec.get("context") or "null"))
        for child in spec["children_spec"]:
            _check_tree(child)
    elif isinstance(spec, list):
        for item in spec:
            _check_tree(item)


def _check_expression(text: str) -> None:
    """Check a size such as ``Mul(Integer(2), Symbol('s0'))``, which sympy evaluates as Python.

    >>> _check_expression("Mul(Integer(2), Symbol('s0', positive=True)) + 1")
    >>> _check_expression("__import__('os').system('true')")
    Traceback (most recent call last):
        ...
    dpsd.teachers.archive.UnsafeContentError: the expression "__import__('os').system('true')"
    """
    refused = UnsafeContentError(f"the expression {text[:60]!a}")
    if len(text) > _LONGEST_EXPRESSION:
        raise refused
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, MemoryError, RecursionError):
        raise refused from None
    for node in ast.walk(tree):
        if not isinstance(node, _EXPRESSION_NODES):
            raise refused
        if isinstance(node, ast.Call) and not (
            isinstance(node.func, ast.Name) and node.func.id in _EXPRESSION_FUNCTIONS
        ):
            raise refused
        if isinstance(node, ast.Name) and not (
            node.id in _EXPRESSION_FUNCTIONS or _SYMBOL.fullmatch(node.id)
        ):
            raise refused
        if isinstance(node, ast.Constant) and not (
            isinstance(node.value, int | float | bool) or _SYMBOL.fullmatch(str(node.value))
        ):
            raise refused


def _archive(records: dict[str, bytes]) -> bytes:
    """Pack records as torch's reader expects them: uncompressed, and in one folder if they were."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


_MOST_INFLATION = 4
_FOLDERS = ("data", "models", "extra", "extra_files", ".data")
_EXTRA = re.compile(r"extra(?:_files)?/(.*)")
_RAW_TENSOR = re.compile(r"(weight|tensor)_\d+")
_GRAPH = re.compile(r"models/\w+\.json|serialized_exported_program\.json")
_LASTING = re.compile(r"data/(weights|constants)/|models/|serialized_(exp|state|const)")
# Record names of torch 2.7 and later, then of 2.6. Compiled code (data/aotinductor) and custom
# objects (data/constants/custom_obj_*, opaque_obj_*) match none, so they are refused.
_RECORDS: tuple[tuple[re.Pattern[str], Callable[[bytes], bytes] | None], ...] = (
    (_GRAPH, _graph),
    (re.compile(r"data/(weights|constants)/(weight|tensor)_\d+"), _verbatim),
    (re.compile(r"data/(weights|constants)/\w+_config\.json"), _unpickled_tensors),
    (re.compile(r"data/(weights|constants|sample_inputs)/\w+\.pt"), _tensors_only),
    (re.compile(r"serialized_(state_dict|constants|example_inputs)\.(pt|json)"), _tensors_only),
    (re.compile(r"archive_format|archive_version|version|byteorder|\.data/version"), _verbatim),
    (re.compile(r"\.data/serialization_id|extra(_files)?/.*"), None),
)
_PLAIN = re.compile(r"[\w.]*")
_STRINGS = {
    "torch_version": re.compile(r"[\w.+-]*"),
    "as_string": re.compile(r"[\w.,:> -]*"),  # an argument, such as einsum's "bij,bjk->bik"
}
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchvision)\.(?!from_file\b)\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_"
    r"|not_|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\._?sym_\w+"
)
_SYMBOL = re.compile(r"[a-z]{1,3}\d{1,6}")
_LONGEST_EXPRESSION = 2_000
_EXPRESSION_FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        """
        Symbol Integer Rational Float Add Mul Pow Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv
        ModularIndexing CeilToInt FloorToInt TruncToInt RoundToInt ToFloat IntTrueDiv FloatTrueDiv
        PowByNatural Where Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan LessThan
        StrictGreaterThan GreaterThan And Or Not true false
        """,
    )
)
_EXPRESSION_NODES = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd,
    ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip

"""Exported programs: what loads, and what is refused because loading it could run code."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dpsd.errors import TeacherError
from dpsd.privacy.answers import open_for_mechanism
from dpsd.teachers import load_teacher

Export = Callable[..., Path]
Rewrite = Callable[..., None]


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


class TwoInputs(nn.Module):
    def forward(self, images: Tensor, other: Tensor) -> Tensor:
        return images.flatten(1) + other


class Attentive(nn.Module):
    """Attention, a constant, a no-grad block and einsum: the wilder parts of the graph format."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.register_buffer("scale", torch.ones(8), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.reshape(images.shape[0], 8, 8) * self.scale + torch.arange(8)
        with torch.no_grad():
            rows = rows + 1
        rows, _ = self.attention(rows, rows, rows)
        return torch.einsum("bij,bij->bj", rows, nn.functional.gelu(rows)).softmax(-1)


@pytest.fixture
def path(module: nn.Module, export_pt2: Export, tmp_path: Path) -> Path:
    return export_pt2(module, tmp_path / "teacher.pt2")


@pytest.mark.parametrize("limit", [{}, {"batch": 4}, {"most": 4}])
def test_agreement(
    limit: dict[str, int],
    module: nn.Module,
    images: Tensor,
    expected: Tensor,
    export_pt2: Export,
    tmp_path: Path,
) -> None:
    teacher = load_teacher(export_pt2(module, tmp_path / "teacher.pt2", **limit))
    assert (teacher.input_shape, teacher.num_classes, teacher.scores) == ((1, 8, 8), 3, "logits")
    torch.testing.assert_close(open_for_mechanism(teacher.ask(images, query_batch=0)), expected)
    one = teacher.ask(images[:1], query_batch=1)
    torch.testing.assert_close(open_for_mechanism(one), expected[:1])


def test_richer_graph(images: Tensor, export_pt2: Export, tmp_path: Path) -> None:
    module = Attentive().eval()
    teacher = load_teacher(str(export_pt2(module, tmp_path / "attentive.pt2")))
    assert teacher.scores == "probabilities"
    answers = open_for_mechanism(teacher.ask(images, query_batch=0))
    torch.testing.assert_close(answers, module(images).detach(), rtol=1e-4, atol=1e-5)


def test_fingerprint(
    path: Path, make_module: Callable[..., nn.Module], export_pt2: Export, tmp_path: Path
) -> None:
    fingerprint = load_teacher(path).fingerprint
    renamed = Path(shutil.copy(path, tmp_path / "renamed.pt2"))
    again = export_pt2(make_module(0), tmp_path / "exported-again.pt2")
    other = export_pt2(make_module(1), tmp_path / "other.pt2")
    assert load_teacher(renamed).fingerprint == fingerprint
    assert load_teacher(again).fingerprint == fingerprint
    assert load_teacher(other).fingerprint != fingerprint


def test_declared_otherwise(path: Path) -> None:
    with pytest.raises(TeacherError, match=r"says input_shape \(1, 8, 8\)"):
        load_teacher(path, input_shape=(1, 28, 28))
    with pytest.raises(TeacherError, match="says num_classes 3"):
        load_teacher(path, num_classes=10)
    with pytest.raises(TeacherError, match="needs a module to fill"):
        load_teacher(path, weights="weights.pt")


def test_two_inputs(tmp_path: Path) -> None:
    program = torch.export.export(TwoInputs(), (torch.rand(2, 1, 2, 2), torch.rand(2, 4)))
    torch.export.save(program, tmp_path / "two.pt2")
    with pytest.raises(TeacherError, match=r"has inputs images.*other.*a teacher has one"):
        load_teacher(tmp_path / "two.pt2")


def test_damaged(path: Path, rewrite_zip: Rewrite) -> None:
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"PK nonsense"):
        path.write_bytes(damaged)
        with pytest.raises(TeacherError, match="damaged, cut off or not an exported program"):
            load_teacher(path)
    path.write_bytes(content)
    rewrite_zip(path, lambda name, data: None if name.endswith("weight_0") else data)
    with pytest.raises(TeacherError, match="cannot be loaded by torch"):
        load_teacher(path)


def _pickled(target: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(target), buffer)
    return buffer.getvalue()


def _in_graph(edit: Callable[[dict[str, object]], None]) -> Callable[[str, bytes, Path], bytes]:
    def change(name: str, content: bytes, target: Path) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        program = json.loads(content)
        edit(program)
        return json.dumps(program).replace("TARGET", str(target)).encode()

    return change


def _set_expression(program: dict[str, object]) -> None:
    text = json.dumps(program)
    evil = "__import__('pathlib').Path('TARGET').touch()"
    symbol = next(p for p in text.split('"') if p.startswith("Symbol("))
    program.update(json.loads(text.replace(symbol, evil)))


def _set_name(program: dict[str, object]) -> None:
    text = json.dumps(program).replace('"relu"', json.dumps("x=1\n    __import__('os')#"))
    program.update(json.loads(text))


def _set_operator(program: dict[str, object]) -> None:
    text = json.dumps(program).replace("torch.ops.aten.relu.default", "torch.hub.load")
    program.update(json.loads(text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda name, data, target: _pickled(target) if "sample_inputs" in name else data,
            "a pickle with more than tensors",
        ),
        (
            lambda name, data, target: (
                data.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
                if name.endswith("weights_config.json")
                else data
            ),
            "'0.weight', which is not stored as a plain tensor",
        ),
        (_in_graph(_set_expression), "the expression"),
        (_in_graph(_set_name), "the (name|string)"),
        (_in_graph(_set_operator), "the operator 'torch.hub.load'"),
    ],
)
def test_code_is_refused(
    path: Path,
    tmp_path: Path,
    rewrite_zip: Rewrite,
    change: Callable[[str, bytes, Path], bytes],
    message: str,
) -> None:
    target = tmp_path / "created"
    rewrite_zip(path, lambda name, data: change(name, data, target))
    with pytest.raises(TeacherError, match=f"could run code: it holds {message}"):
        load_teacher(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "record", ["data__aotinductor__model__code.so", "data__constants__opaque_obj_0"]
)
def test_foreign_records_are_refused(
    path: Path, tmp_path: Path, rewrite_zip: Rewrite, record: str
) -> None:
    target = tmp_path / "created"
    rewrite_zip(path, lambda name, data: data, **{record: pickle.dumps(Payload(target))})
    with pytest.raises(TeacherError, match="a record of an unexpected kind"):
        load_teacher(path)
    assert not target.exists()


def test_zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("teacher/data/weights/weight_99", bytes(10_000_000))
    with pytest.raises(TeacherError, match="zip bomb"):
        load_teacher(path)


def test_guards_and_traces_are_dropped(
    path: Path, tmp_path: Path, rewrite_zip: Rewrite, images: Tensor, expected: Tensor
) -> None:
    target = tmp_path / "created"

    def edit(program: dict[str, object]) -> None:
        program["guards_code"] = ["__import__('pathlib').Path('TARGET').touch() or True"]

    change = _in_graph(edit)
    rewrite_zip(path, lambda name, data: change(name, data, target))
    answers = load_teacher(path).ask(images, query_batch=0)
    torch.testing.assert_close(open_for_mechanism(answers), expected)
    assert not target.exists()

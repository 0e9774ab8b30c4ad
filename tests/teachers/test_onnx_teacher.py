"""ONNX files, made by hand so that every oddity can be."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpsd.errors import TeacherError
from dpsd.privacy.answers import open_for_mechanism
from dpsd.teachers import load_teacher

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
FLOAT = onnx.TensorProto.FLOAT


def linear_model(weight: Tensor, *, batch: object = "batch", height: object = 8) -> Any:
    """Flatten and multiply: images (batch, 1, 8, 8) to scores (batch, K)."""
    return onnx.helper.make_model(
        onnx.helper.make_graph(
            [
                onnx.helper.make_node("Flatten", ["images"], ["flat"]),
                onnx.helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
            ],
            "teacher",
            [onnx.helper.make_tensor_value_info("images", FLOAT, [batch, 1, height, 8])],
            [onnx.helper.make_tensor_value_info("scores", FLOAT, [batch, weight.shape[1]])],
            [onnx.numpy_helper.from_array(weight.numpy(), "weight")],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=9,
    )


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(64, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch", ["batch", 4])
def test_agreement(batch: object, weight: Tensor, images: Tensor, tmp_path: Path) -> None:
    onnx.save(linear_model(weight, batch=batch), tmp_path / "teacher.onnx")
    teacher = load_teacher(tmp_path / "teacher.onnx")
    assert (teacher.input_shape, teacher.num_classes, teacher.scores) == ((1, 8, 8), 3, "logits")
    answers = open_for_mechanism(teacher.ask(images, query_batch=0))
    torch.testing.assert_close(answers, (images.flatten(1) @ weight).softmax(1))


def test_exported_by_torch(
    module: nn.Module, images: Tensor, expected: Tensor, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    path = tmp_path / "teacher.onnx"
    torch.onnx.export(module, (images[:2],), str(path), dynamo=True, verbose=False)
    answers = open_for_mechanism(load_teacher(path).ask(images, query_batch=0))
    torch.testing.assert_close(answers, expected)


def test_fingerprint(weight: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    onnx.save(linear_model(weight), path)
    onnx.save(linear_model(weight + 1), tmp_path / "other.onnx")
    renamed = shutil.copy(path, tmp_path / "renamed.onnx")
    fingerprint = load_teacher(path).fingerprint
    assert load_teacher(renamed).fingerprint == fingerprint
    assert load_teacher(tmp_path / "other.onnx").fingerprint != fingerprint


def test_open_image_shape(weight: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    onnx.save(linear_model(weight, height="height"), path)
    with pytest.raises(TeacherError, match=r"leaves the image shape open.*give input_shape"):
        load_teacher(path)
    assert load_teacher(path, input_shape=(1, 8, 8)).num_classes == 3


def test_declared_otherwise(weight: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    onnx.save(linear_model(weight), path)
    with pytest.raises(TeacherError, match=r"says input_shape \(1, 8, 8\)"):
        load_teacher(path, input_shape=(3, 8, 8))
    with pytest.raises(TeacherError, match="says num_classes 3"):
        load_teacher(path, num_classes=10)


def test_two_inputs(weight: Tensor, tmp_path: Path) -> None:
    model = linear_model(weight)
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", FLOAT, ["batch", 3]))
    model.graph.node[1].output[0] = "unmasked"
    model.graph.node.append(onnx.helper.make_node("Mul", ["unmasked", "mask"], ["scores"]))
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(TeacherError, match=r"has 2 inputs, a teacher has one: images.*mask"):
        load_teacher(tmp_path / "two.onnx")


def test_several_outputs(weight: Tensor, tmp_path: Path) -> None:
    model = linear_model(weight)
    model.graph.node.append(onnx.helper.make_node("ArgMax", ["scores"], ["label"], axis=1))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["batch", 1])
    )
    onnx.save(model, tmp_path / "labelled.onnx")
    assert load_teacher(tmp_path / "labelled.onnx").num_classes == 3  # one output is scores
    model.graph.node.append(onnx.helper.make_node("Relu", ["scores"], ["more"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("more", FLOAT, ["batch", 3]))
    onnx.save(model, tmp_path / "ambiguous.onnx")
    with pytest.raises(TeacherError, match=r"has 2 outputs that could be class scores.*more"):
        load_teacher(tmp_path / "ambiguous.onnx")


def _save_external(model: Any, path: Path, location: str) -> None:
    onnx.save_model(
        model, path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    saved = onnx.load(str(path), load_external_data=False)
    for entry in saved.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(saved.SerializeToString())


def test_external_data_beside_the_model(weight: Tensor, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    _save_external(linear_model(weight), path, "weights.bin")
    teacher = load_teacher(path)
    answers = open_for_mechanism(teacher.ask(images, query_batch=0))
    torch.testing.assert_close(answers, (images.flatten(1) @ weight).softmax(1))
    data = tmp_path / "weights.bin"
    data.write_bytes(bytes(len(data.read_bytes())))
    assert load_teacher(path).fingerprint != teacher.fingerprint
    data.unlink()
    with pytest.raises(TeacherError, match="is missing: copy it along"):
        load_teacher(path)


@pytest.mark.parametrize("location", ["../weights.bin", "ABSOLUTE", "link/weights.bin", ""])
def test_external_data_elsewhere(location: str, weight: Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "teacher.onnx"
    location = location.replace("ABSOLUTE", str(tmp_path / "weights.bin"))
    _save_external(linear_model(weight), path, location)
    shutil.move(folder / "weights.bin", tmp_path / "weights.bin")
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(TeacherError, match="outside its own folder"):
        load_teacher(path)


def test_damaged(weight: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    onnx.save(linear_model(weight), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TeacherError, match="damaged, cut off or not an ONNX file"):
        load_teacher(path)
    model = linear_model(weight)
    model.graph.node[1].op_type = "Matmull"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(TeacherError, match="cannot be run by ONNX Runtime") as caught:
        load_teacher(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_extra(
    package: str, weight: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(linear_model(weight), tmp_path / "teacher.onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TeacherError, match=r"pip install 'onnx>="):
        load_teacher(tmp_path / "teacher.onnx")


def test_failure_while_asking(weight: Tensor, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    onnx.save(linear_model(weight, height="height"), path)
    with pytest.raises(TeacherError, match="Are input_shape, num_classes and scores right"):
        load_teacher(path, input_shape=(1, 9, 8))

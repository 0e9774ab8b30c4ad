"""Frozen public backbones: every kind is loaded, kept beside teachers, and known by its content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dpsd.datasets import LabelledImages, load_dataset
from dpsd.errors import ConfigError, DpsdError, TeacherError
from dpsd.models import build_classifier
from dpsd.models.backbones import untrained_backbone
from dpsd.teachers import TeacherRecord, load_teacher, save_teacher
from dpsd.teachers.backbones import Backbone, kept_backbone, load_backbone, own_backbone
from dpsd.teachers.sharding import Shards
from dpsd.training.ensemble import train_ensemble

SHAPE = (1, 8, 8)
KINDS = ["factory", "pt2", "onnx", "glyphs"]

FACTORIES = """
import torch

def features(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())

def number():
    return 3

def flat():
    return torch.nn.Flatten(0)

def broken():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Threshold(2.0, float("nan")))

class Centred(torch.nn.Module):
    def forward(self, images):
        return (images - images.mean(0)).flatten(1)

class Guessing(torch.nn.Module):
    def forward(self, images):
        return torch.nn.functional.dropout(images, 0.3, training=True).flatten(1)

class Remembering(torch.nn.Module):
    def __init__(self, patience=0):
        super().__init__()
        self.asked, self.patience = 0, patience
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        self.asked += 1
        if self.asked > self.patience:
            self.seen += 1e-9 * images.mean()
        return images.flatten(1) - self.seen

def later():
    return Remembering(patience=10)
"""


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU()).eval()


def exported(path: Path, *, seed: int = 0) -> Path:
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network(seed), (torch.zeros(2, *SHAPE),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def graph(path: Path, *, seed: int = 0) -> Path:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = torch.randn(64, 24, generator=torch.Generator().manual_seed(seed))
    made = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["features"]),
        ],
        "backbone",
        [helper.make_tensor_value_info("images", kind, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("features", kind, ["batch", 24])],
        [onnx.numpy_helper.from_array(weight.numpy(), "weight")],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(made, opset_imports=[opset], ir_version=9), path)
    return path


def own(*, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    body = untrained_backbone("glyphs")
    return own_backbone("glyphs", body, trained_on="nothing", input_shape=SHAPE)


def backbone(kind: str, folder: Path) -> Backbone:
    if kind == "glyphs":
        return own()
    if kind == "factory":
        return load_backbone("tiny_backbones:features", input_shape=SHAPE)
    make = exported if kind == "pt2" else graph
    return load_backbone(str(make(folder / f"public.{kind}")), input_shape=SHAPE)


@pytest.fixture(autouse=True)
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_backbones.py").write_text(FACTORIES, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    return load_dataset("digits", "train").subset(torch.arange(400))


@pytest.fixture(scope="module")
def shards(digits: LabelledImages) -> Shards:
    return Shards.assign(digits, teachers=10, seed=0)


def stored(
    path: Path,
    features: Backbone,
    digits: LabelledImages,
    shards: Shards,
    *,
    stated: dict[str, str] | None = None,
) -> Path:
    path.mkdir()
    shards.save(path)
    features.save(path)
    record = TeacherRecord(
        model="scattering",
        input_shape=SHAPE,
        num_classes=10,
        members=10,
        data="digits",
        features=stated or features.stated(),
    )
    return save_teacher(path, train_ensemble(digits, shards, features=features, views=0), record)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kept_backbone_is_the_one_that_was_given(kind: str, tmp_path: Path) -> None:
    given = backbone(kind, tmp_path)
    (tmp_path / "kept").mkdir()
    given.save(tmp_path / "kept")
    kept = kept_backbone(tmp_path / "kept", given.stated(), input_shape=SHAPE)
    images = torch.rand(5, *SHAPE)
    with torch.no_grad():
        assert kept.module(images).equal(given.module(images))
    assert kept.stated() == given.stated()
    assert kept.fingerprint.startswith("sha256:")


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_teachers_on_a_backbone_know_digits_and_are_read_back(
    kind: str, digits: LabelledImages, shards: Shards, tmp_path: Path
) -> None:
    given = backbone(kind, tmp_path)
    teachers = load_teacher(stored(tmp_path / "teachers", given, digits, shards))
    assert teachers.features is not None
    assert teachers.features.stated() == given.stated()
    assert teachers.members == 10
    found = teachers.predict_classes(digits.images)
    assert (found == digits.labels).double().mean() > 0.7
    content = json.loads((tmp_path / "teachers" / "teacher.json").read_text(encoding="utf-8"))
    assert content["features"] == given.stated()


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_with_another_backbone_is_refused(
    kind: str, digits: LabelledImages, shards: Shards, tmp_path: Path
) -> None:
    folder = stored(tmp_path / "teachers", backbone(kind, tmp_path), digits, shards)
    others = {
        "pt2": lambda: load_backbone(str(exported(tmp_path / "b.pt2", seed=1)), input_shape=SHAPE),
        "onnx": lambda: load_backbone(str(graph(tmp_path / "b.onnx", seed=1)), input_shape=SHAPE),
        "glyphs": lambda: own(seed=1),
        "factory": lambda: _otherwise(backbone("factory", tmp_path)),
    }
    others[kind]().save(folder)
    with pytest.raises(TeacherError, match="holds other features") as raised:
        load_teacher(folder)
    assert "\n" not in str(raised.value)


def _otherwise(given: Backbone) -> Backbone:
    assert isinstance(given.source, nn.Module)
    for weight in given.source.parameters():
        weight.data += 1
    return given


def test_a_teacher_without_its_backbone_is_refused(
    digits: LabelledImages, shards: Shards, tmp_path: Path
) -> None:
    folder = stored(tmp_path / "teachers", backbone("factory", tmp_path), digits, shards)
    (folder / "features.safetensors").unlink()
    with pytest.raises(TeacherError, match=r"no weights file .*features\.safetensors"):
        load_teacher(folder)


def test_a_description_that_states_half_a_backbone_is_refused(
    digits: LabelledImages, shards: Shards, tmp_path: Path
) -> None:
    given, half = backbone("factory", tmp_path), {"name": "glyphs"}
    folder = stored(tmp_path / "teachers", given, digits, shards, stated=half)
    with pytest.raises(TeacherError, match="features do not state name, hash and trained_on"):
        load_teacher(folder)


@pytest.mark.parametrize("text", ["", "public\n| images", "public " * 100])
def test_a_description_that_a_certificate_cannot_quote_is_refused(
    text: str, digits: LabelledImages, shards: Shards, tmp_path: Path
) -> None:
    given = backbone("factory", tmp_path)
    stated = {**given.stated(), "trained_on": text}
    folder = stored(tmp_path / "teachers", given, digits, shards, stated=stated)
    with pytest.raises(TeacherError, match="no trained_on of 1 to 300 printable signs"):
        load_teacher(folder)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_description_cannot_vouch_for_features_that_dpsd_does_not_know(
    kind: str, tmp_path: Path
) -> None:
    given = backbone(kind, tmp_path)
    (tmp_path / "kept").mkdir()
    given.save(tmp_path / "kept")
    stated = {**given.stated(), "trained_on": "public images alone"}
    with pytest.raises(TeacherError, match="which dpsd knows of its own alone"):
        kept_backbone(tmp_path / "kept", stated, input_shape=SHAPE)


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_what_is_kept_is_what_was_loaded_even_if_the_file_is_gone(
    kind: str, tmp_path: Path
) -> None:
    given = backbone(kind, tmp_path)
    (tmp_path / f"public.{kind}").unlink()
    (tmp_path / "kept").mkdir()
    given.save(tmp_path / "kept")
    kept = kept_backbone(tmp_path / "kept", given.stated(), input_shape=SHAPE)
    assert kept.fingerprint == given.fingerprint


def test_the_fingerprint_of_a_file_depends_on_its_content_alone(tmp_path: Path) -> None:
    one, same, other = (
        load_backbone(str(exported(tmp_path / name, seed=seed)), input_shape=SHAPE).fingerprint
        for name, seed in (("a.pt2", 0), ("b.pt2", 0), ("c.pt2", 1))
    )
    assert one == same != other


def test_a_record_reaches_one_teacher_only_on_a_backbone_too(
    digits: LabelledImages, shards: Shards, tmp_path: Path
) -> None:
    features = backbone("factory", tmp_path)
    changed = replace(digits, images=digits.images.clone())
    row = int(shards.rows()[3][0])
    changed.images[row] = 255 - changed.images[row]
    before, after = (
        train_ensemble(data, shards, features=features, views=1) for data in (digits, changed)
    )
    different = [
        i for i in range(10) if not before["head.weight"][i].equal(after["head.weight"][i])
    ]
    assert different == [3]


def fixed_batch(path: Path) -> Path:
    program = torch.export.export(network(), (torch.zeros(2, *SHAPE),))
    torch.export.save(program, path)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.pt2", "no file"),
        ("absent.onnx", "no file"),
        ("tiny_backbones:number", "are a int, not an nn.Module"),
        ("tiny_backbones:flat", r"numbers of shape \(3, F\)"),
        ("tiny_backbones:broken", "finite numbers"),
        ("tiny_backbones:Centred", "depend on other images"),
        ("tiny_backbones:Guessing", "or on chance"),
        ("tiny_backbones:Remembering", "change when they are computed"),
        ("tiny_backbones:nothing", "no attribute"),
        ("fixed.pt2", "batches of 2 only"),
        ("damaged.pt2", "damaged"),
        ("damaged.onnx", "damaged"),
    ],
)
def test_what_is_no_backbone_is_refused_in_one_line(
    name: str, message: str, tmp_path: Path
) -> None:
    if name.startswith("damaged"):
        (tmp_path / name).write_bytes(b"no model")
    if name == "fixed.pt2":
        fixed_batch(tmp_path / name)
    given = name if ":" in name else str(tmp_path / name)
    with pytest.raises(DpsdError, match=message) as raised:
        load_backbone(given, input_shape=SHAPE)
    assert "\n" not in str(raised.value)


def test_a_program_for_images_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not take images of shape \(1, 28, 28\)"):
        load_backbone(str(exported(tmp_path / "a.pt2")), input_shape=(1, 28, 28))


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout(0.3)])
def test_a_program_that_was_exported_in_training_is_refused(
    layer: nn.Module, tmp_path: Path
) -> None:
    module = nn.Sequential(layer, nn.Flatten()).train()
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module, (torch.zeros(2, *SHAPE),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "training.pt2")
    with pytest.raises(ConfigError, match="depend on other images, or on chance") as raised:
        load_backbone(str(tmp_path / "training.pt2"), input_shape=SHAPE)
    assert "\n" not in str(raised.value)


def test_features_that_change_only_during_the_training_are_refused(
    digits: LabelledImages, shards: Shards
) -> None:
    features = load_backbone("tiny_backbones:later", input_shape=SHAPE)
    with pytest.raises(TeacherError, match="features changed while they were computed"):
        train_ensemble(digits, shards, features=features, views=0)


def test_a_graph_says_that_it_has_no_gradients(tmp_path: Path) -> None:
    features = load_backbone(str(graph(tmp_path / "a.onnx")), input_shape=SHAPE).module
    student = build_classifier(
        "scattering", input_shape=SHAPE, num_classes=3, seed=0, features=features
    )
    images: Tensor = torch.rand(2, *SHAPE)
    torch.autograd.backward(student(images).sum())
    with pytest.raises(ConfigError, match=r"no gradients.*generator_steps 0"):
        student(images.requires_grad_())

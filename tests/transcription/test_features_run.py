"""Whole runs of teachers and students on frozen public backbones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from torch import nn

import dpsd
from dpsd import Budget, ConfigError, NoisyVotes, Recipe, ReproducibleNoise, Run, RunDirectory
from dpsd.datasets import load_dataset
from dpsd.errors import DpsdError, RunError
from dpsd.privacy.records import certificate
from dpsd.results.export import export_student
from dpsd.teachers import Teacher, TeacherRecord, load_teacher, save_teacher
from dpsd.teachers.backbones import Backbone, load_backbone
from dpsd.teachers.sharding import Shards
from dpsd.training.ensemble import train_ensemble
from dpsd.transcription.features import settled
from dpsd.transcription.starting import resume

SHAPE = (1, 8, 8)
SMALL: dict[str, Any] = {
    "rounds": 1,
    "queries": 300,
    "student_steps": 60,
    "batch_size": 32,
    "generator_steps": 2,
    "generator_batch_size": 16,
    "device": "cpu",
    "precision": "float32",
}
SCHEMA = json.loads(
    Path(certificate.__file__).with_name("certificate.schema.json").read_text(encoding="utf-8")
)


class Edges(nn.Module):
    """A backbone of fixed random convolutions."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, 8, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.conv(images)
        return maps.relu()


def exported(path: Path, seed: int = 0) -> Backbone:
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(
        Edges(seed).eval(), (torch.zeros(2, *SHAPE),), dynamic_shapes=shapes
    )
    torch.export.save(program, path)
    return load_backbone(str(path), input_shape=SHAPE)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return exported(tmp_path_factory.mktemp("public") / "edges.pt2")


@pytest.fixture(scope="module")
def teachers(public: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Teacher]:
    digits = load_dataset("digits", "train")
    shards = Shards.assign(digits, teachers=40, seed=0)
    folder = tmp_path_factory.mktemp("teachers")
    record = TeacherRecord(
        model="scattering",
        input_shape=SHAPE,
        num_classes=10,
        members=40,
        data="digits",
        features=public.stated(),
    )
    shards.save(folder)
    public.save(folder)
    save_teacher(folder, train_ensemble(digits, shards, features=public, views=0), record)
    return lambda: load_teacher(folder)


def transcribed(teacher: Teacher, out: Path, **more: Any) -> Run:
    return dpsd.transcribe(
        teacher,
        mechanism=NoisyVotes(noise=ReproducibleNoise(seed=5)),
        budget=Budget(epsilon=200.0, delta=1e-5, adjacency="teacher"),
        out=out,
        recipe=Recipe.suited_to(teacher, **SMALL | more.pop("recipe", {})),
        **more,
    )


@pytest.fixture(scope="module")
def run(teachers: Callable[[], Teacher], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return transcribed(teachers(), tmp_path_factory.mktemp("runs") / "run")


def test_the_student_gets_the_teachers_own_features(run: Run, public: Backbone) -> None:
    stated = {"teachers": public.stated(), "student": public.stated()}
    assert run.directory.facts()["features"] == stated
    images = torch.rand(4, *SHAPE)
    weight = run.student.get_submodule("features")(images)
    with torch.no_grad():
        assert torch.allclose(weight, public.module(images), atol=1e-6)


def test_a_file_of_the_same_name_is_not_taken_for_the_teachers_own(
    teachers: Callable[[], Teacher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = exported(tmp_path / "edges.pt2", seed=1)
    monkeypatch.chdir(tmp_path)
    teacher = teachers()
    assert teacher.features is not None
    assert teacher.features.name == other.name
    found = settled("edges.pt2", student="scattering", teacher=teacher)
    assert found is not None
    assert found.fingerprint == other.fingerprint != teacher.features.fingerprint


def test_the_certificate_states_the_features_and_that_nothing_covers_them(
    run: Run, public: Backbone
) -> None:
    stored = json.loads((run.directory.path / "certificate.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(stored)
    assert stored["features"]["student"]["hash"] == public.fingerprint
    assert certificate.PUBLIC_FEATURES in stored["does_not_promise"]
    page = run.certificate.to_markdown()
    assert f"Frozen features, student: `edges.pt2`, `{public.fingerprint}`" in page


def test_a_run_without_a_backbone_does_not_mention_any(
    teachers: Callable[[], Teacher], tmp_path: Path
) -> None:
    teacher = teachers()
    teacher.features = None  # as for teachers on wavelets
    path = transcribed(teacher, tmp_path / "run").directory.path
    stored = json.loads((path / "certificate.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(stored)
    assert "features" not in stored
    assert certificate.PUBLIC_FEATURES not in stored["does_not_promise"]
    assert not list(path.glob("features.*"))


def test_a_run_is_read_back_with_its_own_copy_of_the_features(run: Run) -> None:
    images = torch.rand(4, *SHAPE)
    again = RunDirectory.open(run.directory.path).student()
    assert torch.allclose(again(images), run.student(images), atol=1e-6)


@pytest.mark.parametrize("suffix", ["pt2", "onnx", "safetensors"])
def test_a_student_is_exported_with_its_features_inside(
    suffix: str, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / f"student.{suffix}"
    export_student(run.directory, path)
    if suffix == "safetensors":
        said = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert said["features"] == run.directory.facts()["features"]["student"]
        return
    images = torch.randint(0, 256, (40, *SHAPE), dtype=torch.uint8)
    found = load_teacher(path).predict_classes(images)
    with torch.no_grad():
        assert found.equal(run.student(images / 255).argmax(1))


def test_a_student_may_be_linear_on_wavelets_though_its_teachers_are_not(
    teachers: Callable[[], Teacher], tmp_path: Path
) -> None:
    found = transcribed(teachers(), tmp_path / "run", features="wavelets")
    assert set(found.directory.facts()["features"]) == {"teachers"}
    assert found.directory.config().features == "wavelets"
    assert found.student.get_submodule("head").in_features == 81
    assert RunDirectory.open(tmp_path / "run").student() is not None


def test_a_run_with_other_features_in_its_directory_is_refused(
    teachers: Callable[[], Teacher], tmp_path: Path
) -> None:
    found = transcribed(teachers(), tmp_path / "run")
    exported(tmp_path / "others.pt2", seed=1).save(found.directory.path)
    with pytest.raises(DpsdError, match="holds other features") as raised:
        RunDirectory.open(tmp_path / "run").student()
    assert "\n" not in str(raised.value)


def test_a_run_resumed_with_teachers_of_other_features_is_refused(
    run: Run, teachers: Callable[[], Teacher], tmp_path: Path
) -> None:
    teacher = teachers()
    teacher.features = exported(tmp_path / "others.pt2", seed=1)
    with pytest.raises(RunError, match="other features"):
        resume(run.directory.path, teacher)


def test_a_resumed_run_goes_on_with_its_own_copy(run: Run, teachers: Callable[[], Teacher]) -> None:
    again = resume(run.directory.path, teachers())
    images = torch.rand(4, *SHAPE)
    assert torch.allclose(again.student(images), run.student(images), atol=1e-6)


def test_a_facts_file_that_names_other_features_is_found_by_certify(
    teachers: Callable[[], Teacher], tmp_path: Path
) -> None:
    found = transcribed(teachers(), tmp_path / "run")
    path = found.directory.path / "student.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["features"]["student"]["trained_on"] = "the moon"
    path.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(RunError, match=r"features|changed"):
        RunDirectory(found.directory.path).certify()


def test_restarts_keep_the_features(
    teachers: Callable[[], Teacher], public: Backbone, tmp_path: Path
) -> None:
    recipe = {"restarts": 2, "polish_steps": 5}
    found = transcribed(teachers(), tmp_path / "run", recipe=recipe)
    images = torch.rand(4, *SHAPE)
    with torch.no_grad():
        own = found.student.get_submodule("features")(images)
        assert torch.allclose(own, public.module(images), atol=1e-6)


def test_features_for_a_student_that_learns_its_own_are_refused(
    teachers: Callable[[], Teacher], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="'cnn' learns its own"):
        transcribed(teachers(), tmp_path / "run", student="cnn", features="wavelets.pt2")


def test_a_graph_in_onnx_serves_teachers_and_a_student_without_a_generator(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = torch.randn(64, 24, generator=torch.Generator().manual_seed(0))
    graph = helper.make_graph(
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
    path = tmp_path / "public.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    features = load_backbone(str(path), input_shape=SHAPE)
    digits = load_dataset("digits", "train").subset(torch.arange(400))
    shards = Shards.assign(digits, teachers=20, seed=0)
    record = TeacherRecord(
        model="scattering",
        input_shape=SHAPE,
        num_classes=10,
        members=20,
        features=features.stated(),
    )
    folder = tmp_path / "teachers"
    folder.mkdir()
    shards.save(folder)
    features.save(folder)
    save_teacher(folder, train_ensemble(digits, shards, features=features, views=0), record)
    teacher = load_teacher(folder)
    with pytest.raises(ConfigError, match="no gradients"):
        transcribed(teacher, tmp_path / "refused")
    found = transcribed(teacher, tmp_path / "run", recipe={"generator_steps": 0})
    assert (tmp_path / "run" / "features.onnx").read_bytes() == path.read_bytes()
    images = torch.rand(4, *SHAPE)
    again = RunDirectory.open(tmp_path / "run").student()
    assert torch.allclose(again(images), found.student(images), atol=1e-6)
    with pytest.raises(DpsdError, match="cannot be exported"):
        export_student(found.directory, tmp_path / "student.pt2")
    export_student(found.directory, tmp_path / "student.safetensors")

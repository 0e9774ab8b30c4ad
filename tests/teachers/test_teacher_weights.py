"""State dicts, factories and the directory that train-teacher writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dpsd.errors import TeacherError
from dpsd.models import build_classifier
from dpsd.privacy.answers import open_for_mechanism
from dpsd.teachers import TeacherRecord, load_teacher, read_record, save_teacher
from dpsd.teachers.weights import fill_module

SHAPE = (1, 8, 8)
FACTORY_CODE = """
from torch import nn

def build(num_classes=3):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, num_classes),
    )

def raising():
    raise RuntimeError("no licence\\nfor this model")

def number():
    return 7

def function():
    return lambda images: images.flatten(1)[:, :3]
"""


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.fixture(autouse=True)
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_factories.py").write_text(FACTORY_CODE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_factory_with_weights(
    suffix: str, module: nn.Module, images: Tensor, expected: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(module.state_dict(), path)
    else:
        torch.save({"state_dict": module.state_dict(), "epoch": 3}, path)
    teacher = load_teacher("my_factories:build", input_shape=SHAPE, weights=path)
    torch.testing.assert_close(open_for_mechanism(teacher.ask(images, query_batch=0)), expected)
    assert teacher.fingerprint == load_teacher(module, input_shape=SHAPE).fingerprint
    with pytest.raises(TeacherError, match=r"is a state dict.*package.module:factory"):
        load_teacher(path)


def test_factory_that_returns_a_function() -> None:
    teacher = load_teacher("my_factories:function", input_shape=SHAPE)
    assert teacher.fingerprint == "callable:my_factories:function"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("my_factories:raising", "raised RuntimeError: no licence for this model$"),
        ("my_factories:number", "is a int; a teacher is"),
        ("my_factories:absent", "no attribute 'absent'"),
        ("no_such_module:build", "not found"),
        ("nowhere/teacher", "there is no nowhere/teacher"),
        ("nowhere.pt2", "there is no nowhere.pt2"),
    ],
)
def test_bad_sources(source: str, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        load_teacher(source, input_shape=SHAPE)


def test_weights_that_do_not_fit(module: nn.Module, tmp_path: Path) -> None:
    state = module.state_dict()
    state["extra"] = state.pop("5.bias")
    state["5.weight"] = torch.zeros(4, 16)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(TeacherError) as caught:
        load_teacher(
            "my_factories:build", input_shape=SHAPE, weights=tmp_path / "other.safetensors"
        )
    assert "missing 5.bias; unexpected extra; other shapes: 5.weight is (4, 16) instead of " in str(
        caught.value
    )
    with pytest.raises(TeacherError, match="needs a module to fill"):
        load_teacher("my_factories:function", input_shape=SHAPE, weights="other.safetensors")


def test_a_pickle_is_not_unpickled(tmp_path: Path) -> None:
    target = tmp_path / "created"
    path = tmp_path / "model.pt"
    torch.save({"weights": Payload(target)}, path)
    for source, weights in ((path, None), ("my_factories:build", path)):
        with pytest.raises(TeacherError, match=r"will not be unpickled\. Convert it"):
            load_teacher(source, input_shape=SHAPE, weights=weights)
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_damaged_weights(suffix: str, module: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(TeacherError, match="no weights file"):
        load_teacher("my_factories:build", input_shape=SHAPE, weights=path)
    if suffix == ".safetensors":
        save_file(module.state_dict(), path)
    else:
        torch.save(module.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(TeacherError, match="damaged"):
        load_teacher("my_factories:build", input_shape=SHAPE, weights=path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_that_may_not_be_read_are_said_to_be_there(
    suffix: str, module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file without permission, safetensors says that there is no such file."""
    path = tmp_path / f"weights{suffix}"
    save_file(module.state_dict(), path)
    real = Path.open

    def refuse(self: Path, *arguments: Any, **settings: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return real(self, *arguments, **settings)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TeacherError, match=rf"weights{suffix} cannot be read: Permission denied$"):
        load_teacher("my_factories:build", input_shape=SHAPE, weights=path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    module = build_classifier("cnn", input_shape=SHAPE, num_classes=10, seed=0)
    record = TeacherRecord(
        model="cnn",
        input_shape=SHAPE,
        num_classes=10,
        class_names=tuple("0123456789"),
        data="digits",
        accuracy=0.5,
        value_range=(0, 4095),
        seed=0,
    )
    return save_teacher(tmp_path / "teacher", module, record)


def test_directory_round_trip(directory: Path, images: Tensor, tmp_path: Path) -> None:
    teacher = load_teacher(directory)
    record = read_record(directory)
    assert record.class_names == tuple("0123456789")
    assert record.value_range == (0, 4095)
    assert (teacher.input_shape, teacher.num_classes) == (SHAPE, 10)
    module = build_classifier("cnn", input_shape=SHAPE, num_classes=10, seed=0).eval()
    with torch.no_grad():
        wanted = module(images).softmax(1)
    torch.testing.assert_close(open_for_mechanism(teacher.ask(images, query_batch=0)), wanted)
    assert sorted(p.name for p in directory.iterdir()) == ["teacher.json", "teacher.safetensors"]
    moved = Path(shutil.copytree(directory, tmp_path / "elsewhere"))
    assert load_teacher(str(moved)).fingerprint == teacher.fingerprint


def test_directory_that_says_otherwise(directory: Path) -> None:
    with pytest.raises(TeacherError, match=r"says num_classes 10, but num_classes 7"):
        load_teacher(directory, num_classes=7)
    with pytest.raises(TeacherError, match="says input_shape"):
        load_teacher(directory, input_shape=(3, 8, 8))
    with pytest.raises(TeacherError, match="normalises its own input"):
        load_teacher(directory, normalization=([0.5], [0.5]))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "teacher.json").unlink(), r"has no teacher\.json: give a directory"),
        (lambda d: (d / "teacher.safetensors").unlink(), "no weights file"),
        (lambda d: _cut(d / "teacher.json"), "damaged"),
        (lambda d: _cut(d / "teacher.safetensors"), "damaged or cut off"),
        (lambda d: _edit(d / "teacher.json", format="other"), "is of format 'other'"),
        (lambda d: _edit(d / "teacher.json", version=2), "is of version 2"),
        (lambda d: _edit(d / "teacher.json", model="resnet9"), "did you mean"),
        (lambda d: _edit(d / "teacher.json", num_classes=9), "does not fit"),
        (lambda d: _edit(d / "teacher.json", weights_sha256="0"), "sha256 differs"),
        (lambda d: _edit(d / "teacher.json", value_range=[4095, 0]), "damaged"),
        (lambda d: _edit(d / "teacher.json", value_range=7), "damaged"),
    ],
)
def test_damaged_directory(directory: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(directory)
    with pytest.raises(TeacherError, match=message) as caught:
        load_teacher(directory)
    assert str(directory) in str(caught.value)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_a_prefix_of_all_names_is_passed_over(prefix: str, module: nn.Module) -> None:
    state = {f"{prefix}{name}": value + 1 for name, value in module.state_dict().items()}
    fill_module(module, state, where="weights.pt")
    assert all(value.equal(state[f"{prefix}{name}"]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("forest.pkl", r"joblib.load\('forest.pkl'\).predict_proba"),
        ("model.keras", "KERAS_BACKEND=torch"),
        ("model.pb", "tf2onnx"),
        ("net.torchscript", r"torch.jit.load\('net.torchscript'\)"),
        ("pytorch_model.bin", "safetensors.torch.save_file"),
        ("net.engine", "/v2/models/NAME"),
    ],
)
def test_files_of_other_kinds_have_their_mends(name: str, mend: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"whatever it is")
    with pytest.raises(TeacherError, match=mend):
        load_teacher(tmp_path / name)

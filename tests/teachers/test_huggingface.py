"""Snapshots of Hugging Face classifiers, made here from configurations with random weights."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import dpsd
from dpsd.errors import TeacherError
from dpsd.privacy.answers import open_for_mechanism
from dpsd.runs.budgets import budget_of
from dpsd.teachers import load_teacher
from dpsd.teachers.snapshot import _normalization

transformers = pytest.importorskip("transformers")

NAMES = {0: "cat", 1: "dog", 2: "eel"}
MEAN, DEVIATION = 0.5, 0.25


def vit(**changed: Any) -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "image_size": 16, "patch_size": 4}
    config = transformers.ViTConfig(**sizes | {"id2label": NAMES} | changed)
    built: nn.Module = transformers.ViTForImageClassification(config)
    return built


def resnet() -> nn.Module:
    config = transformers.ResNetConfig(
        **{"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_channels": 1},
        **{"layer_type": "basic", "id2label": NAMES},
    )
    built: nn.Module = transformers.ResNetForImageClassification(config)
    return built


def saved(folder: Path, model: nn.Module, *, channels: int = 3, **preprocessor: Any) -> Path:
    """A snapshot as ``save_pretrained`` writes it."""
    model.eval()
    model.save_pretrained(folder)  # type: ignore[operator]
    steps = {"do_resize": True, "size": {"height": 16, "width": 16}, "do_rescale": True}
    steps |= {"rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [MEAN] * channels}
    steps |= {"image_std": [DEVIATION] * channels, "image_processor_type": "ViTImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(steps | preprocessor))
    return folder


def edit(path: Path, **changed: Any) -> None:
    content = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of a ViT. Not to be changed."""
    torch.manual_seed(0)
    return saved(tmp_path_factory.mktemp("snapshots") / "vit", vit())


@pytest.fixture
def snapshot(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "vit"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def answers(teacher: dpsd.Teacher, images: Tensor) -> Tensor:
    return open_for_mechanism(teacher.ask(images, query_batch=0))


@pytest.mark.parametrize(("make", "channels"), [(vit, 3), (resnet, 1)])
def test_answers_are_those_of_the_model(make: Any, channels: int, tmp_path: Path) -> None:
    model = make()
    folder = saved(tmp_path / "model", model, channels=channels)
    teacher = load_teacher(f"hf:{folder}")
    assert teacher.input_shape == (channels, 16, 16)
    assert (teacher.num_classes, teacher.scores) == (3, "logits")
    assert teacher.class_names == ("cat", "dog", "eel")
    assert teacher.location == f"hf:{folder.resolve()}"
    images = torch.rand(7, channels, 16, 16)
    with torch.no_grad():
        expected = model((images - MEAN) / DEVIATION).logits.softmax(1)
    torch.testing.assert_close(answers(teacher, images), expected)


@given(
    st.floats(0, 1),
    st.floats(0.1, 1),
    st.sampled_from([1 / 255, 1.0, 1 / 127.5, 0.5]),
    st.booleans(),
    st.booleans(),
    st.floats(0, 1),
)
def test_normalisation_is_the_preprocessors_arithmetic(
    mean: float, deviation: float, factor: float, rescale: bool, normalize: bool, pixel: float
) -> None:
    steps: dict[str, Any] = {"do_rescale": rescale, "rescale_factor": factor}
    steps |= {"do_normalize": normalize, "image_mean": mean, "image_std": [deviation]}
    expected = pixel * 255 * (factor if rescale else 1)
    if normalize:
        expected = (expected - mean) / deviation
    (shift,), (scale,) = _normalization(steps) or ((0.0,), (1.0,))
    assert (pixel - shift) / scale == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("steps", "shape"),
    [
        ({"size": {"shortest_edge": 16}, "crop_pct": 0.875}, (3, 16, 16)),
        ({"size": 16}, (3, 16, 16)),
        (
            {
                "size": {"shortest_edge": 20},
                "do_center_crop": True,
                "crop_size": {"height": 16, "width": 16},
            },
            (3, 16, 16),
        ),
    ],
)
def test_the_shape_is_that_of_the_images_that_reach_the_model(
    steps: dict[str, Any], shape: tuple[int, int, int], snapshot: Path
) -> None:
    edit(snapshot / "preprocessor_config.json", **steps)
    teacher = load_teacher(f"hf:{snapshot}")
    assert teacher.input_shape == shape
    assert teacher.applied is not None
    assert ("crop_pct" in teacher.applied) == ("crop_pct" in steps)


def test_what_is_given_must_be_what_the_snapshot_does(snapshot: Path) -> None:
    same = ([MEAN] * 3, [DEVIATION] * 3)
    agreeing = load_teacher(
        f"hf:{snapshot}", input_shape=(3, 16, 16), num_classes=3, normalization=same
    )
    assert agreeing.normalization is not None
    for settings, said in (
        ({"input_shape": (3, 32, 32)}, "input_shape"),
        ({"num_classes": 4}, "num_classes"),
        ({"normalization": ([0.1] * 3, [1.0] * 3)}, "leave out normalization"),
        ({"normalization": ([0.1], [1.0])}, "leave out normalization"),
        ({"scores": "probabilities"}, "leave out scores"),
    ):
        with pytest.raises(TeacherError, match=said):
            load_teacher(f"hf:{snapshot}", **settings)
    edit(snapshot / "preprocessor_config.json", do_resize=False)
    with pytest.raises(TeacherError, match="give input_shape"):
        load_teacher(f"hf:{snapshot}")
    assert load_teacher(f"hf:{snapshot}", input_shape=(3, 16, 16)).num_classes == 3


def test_the_fingerprint_is_of_content(snapshot: Path, tmp_path: Path) -> None:
    first = load_teacher(f"hf:{snapshot}").fingerprint
    moved = snapshot.rename(tmp_path / "renamed")
    edit(moved / "config.json", id2label={"0": "a", "1": "b", "2": "c"}, transformers_version="9")
    assert load_teacher(f"hf:{moved}").fingerprint == first
    edit(moved / "config.json", hidden_act="relu")  # no weight changes, but every answer does
    acting = load_teacher(f"hf:{moved}").fingerprint
    weights = load_file(moved / "model.safetensors")
    weights["classifier.bias"][0] += 1
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    assert len({first, acting, load_teacher(f"hf:{moved}").fingerprint}) == 3


def test_a_model_that_is_trained_further_is_noticed(snapshot: Path) -> None:
    teacher = load_teacher(f"hf:{snapshot}")
    teacher.require_unchanged()
    with torch.no_grad():
        next(teacher._module.parameters()).add_(1)  # type: ignore[attr-defined]
    with pytest.raises(TeacherError, match="was changed"):
        teacher.require_unchanged()


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, None),
        ({"0": "crane", "1": "eel", "2": "crane"}, ("crane (0)", "eel", "crane (2)")),
        ({"0": "a", "1": "b", "2": "c\x1b[2J"}, None),
    ],
)
def test_names_come_from_id2label(labels: object, names: object, snapshot: Path) -> None:
    edit(snapshot / "config.json", id2label=labels)
    assert load_teacher(f"hf:{snapshot}").class_names == names
    assert load_teacher(f"hf:{snapshot}", class_names="x,y,z").class_names == ("x", "y", "z")


def refused(snapshot: Path, said: str) -> None:
    with pytest.raises(TeacherError, match=said) as error:
        load_teacher(f"hf:{snapshot}")
    assert "\n" not in str(error.value)


def test_a_hub_name_is_not_downloaded() -> None:
    for source in ("hf:google/vit-base-patch16-224", Path("hf:google/vit-base-patch16-224")):
        with pytest.raises(TeacherError, match="`hf download google/vit-base-patch16-224 --local"):
            load_teacher(source)


def test_weights_that_would_be_unpickled_are_refused(snapshot: Path) -> None:
    mark = snapshot / "mark"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (mark,)

    (snapshot / "model.safetensors").unlink()
    refused(snapshot, "has no model.safetensors: download the whole")
    torch.save({"classifier.weight": Payload()}, snapshot / "pytorch_model.bin")
    refused(snapshot, r"pytorch_model\.bin will not be loaded.*save_pretrained")
    (snapshot / "pytorch_model.bin").unlink()
    (snapshot / "model.safetensors.index.json").write_text("{}")
    refused(snapshot, "max_shard_size")
    assert not mark.exists()


def test_code_that_comes_with_a_snapshot_never_runs(snapshot: Path) -> None:
    (snapshot / "modeling.py").write_text(f"open({str(snapshot / 'mark')!r}, 'w')\n")
    remote = {"AutoModelForImageClassification": "modeling.Net", "AutoConfig": "modeling.Config"}
    edit(snapshot / "config.json", auto_map=remote)
    assert load_teacher(f"hf:{snapshot}").num_classes == 3  # transformers' own class
    edit(snapshot / "config.json", model_type="own")
    refused(snapshot, "model_type 'own'.*code that comes with a snapshot is never run")
    edit(snapshot / "config.json", model_type="vit", attn_implementation="some/kernel")
    refused(snapshot, "attn_implementation 'some/kernel'")
    assert not (snapshot / "mark").exists()


@pytest.mark.parametrize(
    ("file", "changed", "said"),
    [
        ("config.json", {"model_type": "bert", "architectures": None}, "not an image classifier"),
        ("config.json", {"architectures": ["ViTModel"]}, "describes ViTModel"),
        ("config.json", {"hidden_size": 1 << 12}, "a larger model than model.safetensors holds"),
        ("config.json", {"num_hidden_layers": 9_000}, "a larger model"),
        ("config.json", {"num_hidden_layers": 1 << 40}, "num_hidden_layers 1099511627776, and"),
        ("config.json", {"id2label": None, "num_labels": 1 << 40}, "num_labels 1099511627776"),
        ("config.json", {"depths": [1, [1 << 40]]}, "depths 1099511627776"),
        ("config.json", {"hidden_act": "nonsense"}, "cannot be built by transformers"),
        ("config.json", {"quantization_config": {"quant_method": "awq"}}, "quantization"),
        ("preprocessor_config.json", {"do_flip_channel_order": True}, "do_flip_channel_order"),
        ("preprocessor_config.json", {"include_top": True}, "include_top"),
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5]}, "2 numbers for 3 channels"),
        ("preprocessor_config.json", {"image_mean": None}, "image_mean"),
        ("preprocessor_config.json", {"image_std": [0, 0, 0]}, "positive"),
        ("preprocessor_config.json", {"size": {"longest_edge": 16}}, "height"),
        ("preprocessor_config.json", {"size": {"height": 10**9, "width": 10**9}}, "input_shape"),
    ],
    ids=str,
)
def test_odd_settings_are_refused(
    file: str, changed: dict[str, Any], said: str, snapshot: Path
) -> None:
    edit(snapshot / file, **changed)
    refused(snapshot, said)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_damaged_and_missing_files_are_refused(file: str, snapshot: Path) -> None:
    path = snapshot / file
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"[1]", b"[" * 100_000):
        path.write_bytes(damaged)
        refused(snapshot, path.name)
    path.unlink()
    refused(snapshot, f"has no {file}")


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_links_out_of_the_folder_are_not_followed(
    file: str, snapshot: Path, tmp_path: Path
) -> None:
    (snapshot / file).rename(tmp_path / file)
    (snapshot / file).symlink_to(tmp_path / file)
    refused(snapshot, f"{file} is a link out of its folder")
    (tmp_path / file).rename(snapshot / "blob")
    (snapshot / file).unlink()
    (snapshot / file).symlink_to("blob")
    assert load_teacher(f"hf:{snapshot}").num_classes == 3


def test_a_model_without_a_head_is_refused(snapshot: Path) -> None:
    weights = load_file(snapshot / "model.safetensors")
    del weights["classifier.weight"]
    spare = {"spare": torch.zeros(1000)}  # as many numbers as before
    save_file(weights | spare, snapshot / "model.safetensors", metadata={"format": "pt"})
    refused(snapshot, r"does not fit ViTForImageClassification \(missing: classifier.weight\)")


def test_a_snapshot_without_its_prefix_is_recognised(snapshot: Path) -> None:
    with pytest.raises(TeacherError, match=f"give hf:{snapshot}"):
        load_teacher(snapshot)


def test_without_transformers_the_extra_is_named(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(snapshot, r"pip install 'huggingface_hub>=[\d.]+' 'transformers>=")


def test_a_run_is_charged_beside_the_snapshot_and_resumes(snapshot: Path, tmp_path: Path) -> None:
    teacher = load_teacher(f"hf:{snapshot}")
    run = dpsd.transcribe(
        teacher,
        student="lenet5",
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=2.0, adjacency="round"),
        recipe=dpsd.Recipe(rounds=1, queries=30, generator_steps=1, epochs=1),
        out=tmp_path / "run",
    )
    account = budget_of(teacher)
    assert account is not None
    assert account.paths == [snapshot / "budget.jsonl"]
    again = run.directory.config().load_teacher(device="cpu")
    assert again.fingerprint == teacher.fingerprint
    assert again.class_names == ("cat", "dog", "eel")
    assert dpsd.resume(tmp_path / "run", again).certificate == run.certificate


def test_a_module_of_ones_own_may_be_called_hf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hf.py").write_text(
        "from torch import nn\n"
        "def vit():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hf", raising=False)
    assert load_teacher("hf:vit", input_shape=(1, 8, 8)).location == "hf:vit"
    with pytest.raises(TeacherError, match="there is no folder models/vit"):
        load_teacher("hf:models/vit")
    sys.modules.pop("hf")

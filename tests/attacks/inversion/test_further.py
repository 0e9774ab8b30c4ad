"""Further models are opened from whatever holds them, and refused if they do not fit the run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import dpsd
from dpsd.attacks.attacking import Attacking
from dpsd.attacks.inversion.attacked import attacked
from dpsd.attacks.inversion.further import further_model
from dpsd.attacks.names import check_model, named_paths
from dpsd.attacks.target import Target
from dpsd.datasets import load_dataset
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError, TeacherError
from dpsd.models import build_classifier
from dpsd.results.export import export_student
from dpsd.runs.directory import RunDirectory
from dpsd.teachers import TeacherRecord, save_teacher

SHAPE = (1, 8, 8)
EXECUTION = Execution.of("cpu", "float32")
MEMBERS, OTHERS = (load_dataset("digits", split) for split in ("train", "test"))


@pytest.fixture(scope="module")
def folder(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's student in forms that are made at once, and a teacher of another shape."""
    place = tmp_path_factory.mktemp("further")
    export_student(run, place / "student.safetensors")
    shutil.copytree(run.path, place / "other-run")
    record = TeacherRecord(model="cnn", input_shape=SHAPE, num_classes=10, data="digits")
    save_teacher(place / "teacher", run.student(), record)
    larger = build_classifier("cnn", input_shape=(1, 12, 12), num_classes=10, seed=0)
    save_teacher(place / "larger", larger, replace(record, input_shape=(1, 12, 12)))
    return place


@pytest.mark.parametrize(
    "name",
    [
        *("student.safetensors", "student.pt2", "other-run", "teacher"),
        pytest.param("student.onnx", marks=pytest.mark.thorough),
    ],
)
def test_a_student_is_the_same_in_every_form(name: str, run: RunDirectory, folder: Path) -> None:
    if not (folder / name).exists():
        export_student(run, folder / name)
    check_model(str(folder / name))
    model = further_model(str(folder / name), run=run, execution=EXECUTION)
    target = attacked(name, model, shape=SHAPE)
    images = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(target.labels(images), EXECUTION.predict(run.student(), images).argmax(1))
    is_white_box = name in ("student.safetensors", "other-run", "teacher")
    assert (target.module is not None) == is_white_box


def test_models_that_do_not_fit_the_run_are_refused(
    run: RunDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = "give a model of the same shape and classes"
    with pytest.raises(ConfigError, match=rf"also: .*larger has images of shape \(1, 12, .*{mend}"):
        further_model(str(folder / "larger"), run=run, execution=EXECUTION)
    names = tuple("abcdefghij")
    monkeypatch.setattr(RunDirectory, "class_names", lambda one: names[:: 1 if one is run else -1])
    with pytest.raises(ConfigError, match="other-run has the run's classes in another order"):
        further_model(str(folder / "other-run"), run=run, execution=EXECUTION)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"student": "os:getcwd"}, "no architecture of dpsd's own"),
        ({"num_classes": 10**12}, "has number of classes 1000000000000, and the run's is 10"),
        ({"input_shape": "1x8"}, "does not describe a student"),
        ({"input_shape": [1, 8]}, "does not describe a student"),
        ({"class_names": [["a"]]}, "does not describe a student"),
        (None, "does not describe a student"),
    ],
)
def test_a_hostile_export_runs_no_code_and_takes_no_memory(
    changed: dict[str, object] | None, said: str, run: RunDirectory, tmp_path: Path
) -> None:
    stated = {"student": "cnn", "input_shape": [1, 8, 8], "num_classes": 10}
    header = None if changed is None else {"dpsd": json.dumps(stated | changed)}
    path = tmp_path / "student.safetensors"
    save_file({"weight": torch.zeros(1)}, path, metadata=header)
    with pytest.raises((ConfigError, TeacherError), match=f"^also: {path} .*{said}"):
        further_model(str(path), run=run, execution=EXECUTION)


def test_a_run_whose_student_is_code_of_its_own_is_refused_before_that_is_imported(
    run: RunDirectory, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "chosen_by_a_run.py").write_text("raise SystemExit('imported')")
    facts = run.facts() | {"student": "chosen_by_a_run:network"}
    monkeypatch.setattr(RunDirectory, "facts", lambda _: facts)
    said = r"'chosen_by_a_run:network', which is no architecture of dpsd's own.*\.pt2"
    with pytest.raises(TeacherError, match=f"other-run cannot be attacked: its student is {said}"):
        further_model(str(folder / "other-run"), run=run, execution=EXECUTION)


def test_damaged_and_unfinished_models_are_refused_by_their_path(
    run: RunDirectory, folder: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((folder / "student.safetensors").read_bytes()[:90])
    begun = shutil.copytree(run.path, tmp_path / "begun")
    lines = (begun / "ledger.jsonl").read_text().splitlines(keepends=True)
    (begun / "ledger.jsonl").write_text("".join(lines[:-1]))
    for path, said in ((cut, "does not describe"), (begun, "is not finished: finish it with dpsd")):
        with pytest.raises(TeacherError, match=f"^also: {path} cannot be attacked: .*{said}"):
            further_model(str(path), run=run, execution=EXECUTION)
    with pytest.raises(TeacherError, match="there is no"):
        check_model(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["teacher=x"], "is called 'teacher', as is a model of the run itself"),
        (["runs/student"], "is called 'student', as is a model of the run itself"),
        (["a.onnx", "a=b.onnx"], r"'a=b.onnx' is called 'a', as is a\.onnx"),
        (["=x"], "has no name of 1 to 60 printable characters"),
        (["a\nb=x"], "has no name of 1 to 60 printable characters"),
        (["n" * 61 + "=x"], "has no name of 1 to 60 printable characters"),
    ],
)
def test_names_that_collide_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^also: .*{said}.* give it another name with also NAME="
    ):
        named_paths(texts)


def test_a_path_may_contain_what_divides_a_name_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ε=1").mkdir()
    assert named_paths(["ε=1", "eps=ε=1", "https://h/v2/models/m=1", "runs/ε=8", "."]) == {
        "ε=1": "ε=1",
        "eps": "ε=1",
        "m=1": "https://h/v2/models/m=1",
        "ε=8": "runs/ε=8",
        tmp_path.name: ".",
    }


def test_findings_of_inversion_alone_depend_on_further_models(run: RunDirectory) -> None:
    target = Target(run=run, members=MEMBERS, others=OTHERS, device="cpu")
    one, other = (
        build_classifier("cnn", input_shape=SHAPE, num_classes=10, seed=seed) for seed in (0, 1)
    )
    ways: list[dict[str, nn.Module | dpsd.Teacher]] = [{}, {"a": one}, {"a": other}, {"b": one}]
    keys = [
        [Attacking(target=target, also=also)._attacked_by(kind) for also in ways]
        for kind in ("inversion", "copies")
    ]
    assert all(before != after for before in keys[0] for after in keys[0] if before is not after)
    assert all(key == keys[0][0] for key in keys[1])

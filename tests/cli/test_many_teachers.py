"""``train-teacher --shards`` on data of one's own: what one record reaches, and what it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from safetensors.torch import load_file

import dpsd
from dpsd.datasets import load_dataset
from dpsd.runs.directory import RunDirectory

Invoke = Callable[..., Result]
AssertError = Callable[[Result, int, str], None]
SHAPE = ("--size", 8, "--channels", 1, "--classes", "few,many")
TRAIN = ("--shards", 6, "--views", 2, "--device", "cpu")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return load_dataset("digits", "train").images[:80, 0].numpy()


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    """Eighty scans of forty patients, named after them."""
    for split in ("train", "test"):
        for number, image in enumerate(pixels):
            name = f"{'few' if number % 3 else 'many'}/patient{number // 2}_{number}.png"
            path = tmp_path / "scans" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path / "scans"


def arrays(path: Path, images: np.ndarray, labels: np.ndarray, **more: np.ndarray) -> str:
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        **more,  # type: ignore[arg-type]
    )
    return str(path)


@pytest.fixture
def trained(invoke: Invoke) -> Callable[..., Path]:
    def train(data: object, out: Path, *more: object) -> Path:
        result = invoke("train-teacher", "--data", data, "--out", out, *TRAIN, *more)
        assert result.exit_code == 0, result.stderr
        return out

    return train


def changed(one: Path, other: Path) -> list[int]:
    """The teachers of two ensembles whose weights differ by as much as a bit."""
    before, after = (load_file(path / "teacher.safetensors") for path in (one, other))
    return [
        i
        for i in range(len(before["head.bias"]))
        if any(not part[i].equal(after[name][i]) for name, part in before.items())
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--size, --channels and --classes are not declared"),
        (SHAPE[:2], "--channels 1 and --classes cat,dog"),
        (SHAPE[2:], "--size is not declared"),
        (("--classes", "few", *SHAPE[:4]), "there must be 2"),
        (("--size", "big", *SHAPE[2:]), "size is 'big'"),
    ],
)
def test_what_all_teachers_share_must_be_declared(
    invoke: Invoke,
    assert_error: AssertError,
    folder: Path,
    tmp_path: Path,
    flags: Sequence[object],
    message: str,
) -> None:
    out = tmp_path / "many"
    for data in (f"folder:{folder}", tmp_path / "own.npz"):
        result = invoke("train-teacher", "--data", data, "--out", out, *TRAIN, *flags)
        assert_error(result, 2, message)
    assert not out.exists()


def test_one_teacher_still_reads_its_shape_off_the_data(
    invoke: Invoke, folder: Path, tmp_path: Path
) -> None:
    data = ("--data", f"folder:{folder}", "--epochs", 1)
    result = invoke("train-teacher", *data, "--out", tmp_path / "one")
    assert result.exit_code == 0, result.stderr
    assert dpsd.load_teacher(tmp_path / "one").input_shape == (1, 8, 8)


def test_a_file_reaches_one_teacher(
    trained: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    """The first file, which decided size and colour for everybody, is as good as any."""
    data = f"folder:{folder}"
    before = trained(data, tmp_path / "before", *SHAPE)
    first = min((folder / "train/few").iterdir())
    Image.new("RGB", (30, 17), (90, 90, 90)).save(first)
    after = trained(data, tmp_path / "after", *SHAPE)
    assert len(changed(before, after)) == 1
    for name in ("input_shape", "num_classes", "class_names"):
        facts = [json.loads((path / "teacher.json").read_text())[name] for path in (before, after)]
        assert facts[0] == facts[1]
    first.rename(first.with_name("aaa.png"))
    renamed = trained(data, tmp_path / "renamed", *SHAPE)
    assert len(changed(after, renamed)) in (1, 2)  # where it was, and where it is


def test_a_row_reaches_one_teacher_and_that_of_an_equal_one(
    trained: Callable[..., Path], pixels: np.ndarray, tmp_path: Path
) -> None:
    images, labels = pixels.copy(), np.arange(80) % 2
    images[50] = images[7]  # a duplicate
    worlds = []
    for name, row, value, label in (
        ("before", 0, images[0], 0),
        ("other", 3, 255 - images[3], 0),
        ("lone", 7, 255 - images[7], 1),
    ):
        world, classes = images.copy(), labels.copy()
        world[row], classes[row] = value, label
        data = arrays(tmp_path / f"{name}.npz", world, classes)
        worlds.append(trained(data, tmp_path / name, "--drop-duplicates", *SHAPE))
    assert len(changed(worlds[0], worlds[1])) == 1
    assert len(changed(worlds[0], worlds[2])) == 2  # row 50 steps in for row 7
    assert dpsd.load_teacher(worlds[0]).records == 80
    assert dpsd.load_teacher(worlds[2]).records == 80


def test_a_label_that_was_not_declared_is_refused_by_row(
    invoke: Invoke, assert_error: AssertError, pixels: np.ndarray, tmp_path: Path
) -> None:
    data = arrays(tmp_path / "own.npz", pixels, np.where(np.arange(80) == 77, 2, 0))
    result = invoke("train-teacher", "--data", data, "--out", tmp_path / "many", *TRAIN, *SHAPE)
    assert_error(result, 3, "row 77 has label 2, but there are 2 classes")


def test_a_person_is_protected(
    invoke: Invoke, trained: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    data = f"folder:{folder}"
    rule = ("--group-by", r"re:^(patient\d+)_", *SHAPE)
    before = trained(data, tmp_path / "before", *rule)
    for number in (6, 7):
        (path,) = (folder / "train").glob(f"*/patient3_{number}.png")
        Image.new("L", (8, 8), number).save(path)
    Image.new("L", (8, 8), 90).save(folder / "train/few/patient3_999.png")
    after = trained(data, tmp_path / "after", *rule)
    assert len(changed(before, after)) == 1
    teacher = dpsd.load_teacher(after)
    assert (teacher.records, teacher.persons, teacher.dealt_by) == (81, 40, "person")

    flags = ("--rounds", 1, "--queries", 60, "--student-steps", 2, "--generator-steps", 1)
    out = tmp_path / "run"
    result = invoke(
        *("transcribe", after, "--epsilon", 4, "--adjacency", "teacher", "--out", out, *flags)
    )
    assert result.exit_code == 0, result.stderr
    assert "person-level" in result.stdout
    page = " ".join(invoke("certify", out).stdout.split())
    for words in ("a person: all of their training records", "no two persons have the same record"):
        assert words in page
    stored = json.loads((out / "certificate.json").read_text())
    assert (stored["dealt_by"], stored["unit"]) == (
        "person",
        "a person: all of their training records",
    )
    assert "training record" not in stored["headline"]
    schema = Path(dpsd.__file__).parent / "privacy/records/certificate.schema.json"
    jsonschema.validate(stored, json.loads(schema.read_text(encoding="utf-8")))
    assert RunDirectory.open(out).ledger.opening()["dealt_by"] == "person"
    result = invoke("evaluate", out, "--data", data, "--json")
    assert result.exit_code == 0, result.stderr
    assert [row["name"] for row in json.loads(result.stdout)["classes"]] == ["few", "many"]

    facts = json.loads((out / "student.json").read_text())
    (out / "student.json").write_text(json.dumps({**facts, "dealt_by": "name"}))
    assert invoke("certify", out).exit_code != 0


def test_evaluate_keeps_the_declared_order_of_classes(
    invoke: Invoke, trained: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    """Folders in alphabetical order would have every label wrong."""
    data = f"folder:{folder}"
    order = ("--size", 8, "--channels", 1, "--classes", "many,few")
    path, out = trained(data, tmp_path / "many", *order), tmp_path / "run"
    flags = ("--rounds", 1, "--queries", 60, "--student-steps", 2, "--generator-steps", 1)
    target = ("--epsilon", 4, "--adjacency", "teacher")
    result = invoke("transcribe", path, *target, "--out", out, *flags)
    assert result.exit_code == 0, result.stderr
    measured = json.loads(invoke("evaluate", out, "--data", data, "--json").stdout)
    assert [row["name"] for row in measured["classes"]] == ["many", "few"]
    assert (
        measured["teacher_accuracy"] == json.loads((path / "teacher.json").read_text())["accuracy"]
    )


def test_persons_by_table_and_by_array(
    trained: Callable[..., Path],
    invoke: Invoke,
    assert_error: AssertError,
    folder: Path,
    pixels: np.ndarray,
    tmp_path: Path,
) -> None:
    files = sorted(path.relative_to(folder / "train") for path in folder.glob("train/*/*.png"))
    lines = [f"{path.as_posix()},{path.name.split('_')[0]}" for path in files]
    table = tmp_path / "persons.csv"
    table.write_text("\n".join(["file,patient", *lines]), encoding="utf-8")
    rule = ("--group-by", f"csv:{table}:patient", *SHAPE)
    by_table = trained(f"folder:{folder}", tmp_path / "table", *rule)
    by_name = ("--group-by", r"re:^(patient\d+)_", *SHAPE)
    assert not changed(by_table, trained(f"folder:{folder}", tmp_path / "name", *by_name))

    data = arrays(tmp_path / "own.npz", pixels, np.arange(80) % 2, whose=np.arange(80) // 2)
    by_array = trained(data, tmp_path / "array", "--group-by", "array:whose", *SHAPE)
    assert dpsd.load_teacher(by_array).persons == 40

    table.write_text("\n".join(["file,patient", *lines[1:]]), encoding="utf-8")
    out = ("--out", tmp_path / "no")
    result = invoke("train-teacher", "--data", f"folder:{folder}", *out, *TRAIN, *rule)
    assert_error(result, 3, f"does not list file {files[0].as_posix()}")
    result = invoke("train-teacher", "--data", "digits", *out, "--group-by", "array:whose")
    assert_error(result, 2, "give --shards or --validation-share too")
    result = invoke("train-teacher", "--data", "digits", *out, *TRAIN, "--group-by", "whose")
    assert_error(result, 2, "it must be csv:PATH:COLUMN, re:EXPRESSION or array:NAME")
    assert not (tmp_path / "no").exists()

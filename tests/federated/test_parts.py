"""The teachers of simulated clients are trained once, kept, and found again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dpsd.datasets import load_dataset
from dpsd.datasets.sameness import place_of
from dpsd.errors import TeacherError
from dpsd.federated.partitions import dirichlet_partition
from dpsd.federated.parts import ClientTeachers
from dpsd.teachers import load_teacher, read_record


def teachers(folder: Path) -> ClientTeachers:
    return ClientTeachers(
        data="digits", folder=folder, model="lenet5", clients=3, alpha=0.1, epochs=6
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients")
    assert not teachers(folder).are_kept()
    teachers(folder).train()
    return folder


def test_teachers_are_trained_once_and_again_where_one_is_missing(home: Path) -> None:
    told: list[str] = []
    paths = teachers(home).train(told.append)
    assert teachers(home).are_kept()
    assert not told
    (paths[1] / "teacher.json").unlink()
    before = (paths[0] / "teacher.safetensors").stat().st_mtime_ns
    assert not teachers(home).are_kept()
    assert teachers(home).train(told.append) == paths
    assert len(told) == 1
    assert "client-2" in told[0]
    assert (paths[0] / "teacher.safetensors").stat().st_mtime_ns == before


def test_each_teacher_knows_the_classes_of_its_part_best(home: Path) -> None:
    test, train = load_dataset("digits", "test"), load_dataset("digits", "train")
    counts = dirichlet_partition(train.labels, num_classes=10, clients=3, alpha=0.1).counts
    for number, path in enumerate(teachers(home).paths):
        found = load_teacher(path).predict_classes(test.images)
        never = (counts[number] == 0).nonzero().flatten()
        assert read_record(path).data == f"part {number + 1} of 3 of digits"
        assert not (found.unsqueeze(-1) == never).any()
        largest = int(counts[number].argmax())
        assert (found[test.labels == largest] == largest).double().mean() > 0.8


def test_what_teachers_are_made_of_lies_beside_them_with_a_picture(home: Path) -> None:
    folder = teachers(home).home
    said = json.loads((folder / "partition.json").read_text())
    assert (said["clients"], said["alpha"], len(said["counts"])) == (3, 0.1, 3)
    assert (folder / "partition.svg").exists()
    assert (folder / "partition.png").exists()


def test_teachers_of_another_partition_are_refused(home: Path, tmp_path: Path) -> None:
    folder = teachers(home).home
    copied = tmp_path / folder.name
    copied.mkdir()
    said = json.loads((folder / "partition.json").read_text())
    (copied / "partition.json").write_text(json.dumps({**said, "alpha": 0.3}))
    with pytest.raises(TeacherError, match=r"alpha 0\.3 instead of 0\.1"):
        teachers(tmp_path).train()
    (copied / "partition.json").write_text(json.dumps({**said, "digest": "0"}))
    with pytest.raises(TeacherError, match="digest 0 instead of"):
        teachers(tmp_path).train()
    (copied / "partition.json").write_text("{")
    with pytest.raises(TeacherError, match="is damaged"):
        teachers(tmp_path).train()


def test_a_relative_path_to_other_data_finds_no_teachers_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        images = np.full((20, 8, 8), number, dtype=np.uint8)
        labels = np.arange(20) % 2
        np.savez(
            tmp_path / name / "own.npz",
            train_images=images,
            train_labels=labels,
            test_images=images,
            test_labels=labels,
        )
    monkeypatch.chdir(tmp_path / "one")

    def kept() -> ClientTeachers:
        return ClientTeachers(
            data="own.npz", folder=tmp_path, model="lenet5", clients=2, alpha=9.0, epochs=1
        )

    paths = kept().train()
    assert read_record(paths[0]).data_place == str(place_of("own.npz"))
    assert kept().are_kept()
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(TeacherError, match=r"holds teachers of the data in .*/one/own\.npz"):
        kept().train()

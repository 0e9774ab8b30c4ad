"""Which records validate is looked up by the files that the data's name leads to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpsd import ConfigError
from dpsd.datasets.sameness import place_of
from dpsd.results.validation import held_out_by, trained_on_by
from dpsd.teachers import TeacherRecord

RECORD = TeacherRecord(model="lenet5", input_shape=(1, 8, 8), num_classes=3)

#: The run is read only where no teacher is given.
RUN: Any = None

SPELLINGS = ("../small/xrays.npz", "{}/small/xrays.npz", "{}/small/../small/xrays.npz", "link.npz")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("small", "project/teacher"):
        (tmp_path / name).mkdir(parents=True)
    for number, name in enumerate(("small/xrays.npz", "small/others.npz", "project/xrays.npz")):
        np.savez(tmp_path / name, train_images=np.full((9, 8, 8), number, dtype=np.uint8))
    (tmp_path / "project/link.npz").symlink_to(tmp_path / "small/xrays.npz")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


def recorded(folder: Path, data: str, *, share: float, has_place: bool = True) -> str:
    place = str(place_of(data)) if has_place else ""
    record = replace(RECORD, data=data, data_place=place, validation_share=share)
    path = folder / "project/teacher/teacher.json"
    path.write_text(record.describe(weights_sha256="none"))
    return str(path.parent)


@pytest.mark.parametrize("has_place", [True, False])
@pytest.mark.parametrize("trained", SPELLINGS)
@pytest.mark.parametrize("asked", SPELLINGS)
def test_the_records_of_a_file_are_known_by_whatever_path(
    folder: Path, trained: str, asked: str, has_place: bool
) -> None:
    trained, asked = trained.format(folder), asked.format(folder)
    teacher = recorded(folder, trained, share=0.0, has_place=has_place)
    for share in (None, 0.2):
        with pytest.raises(ConfigError, match="was trained on all training records"):
            held_out_by(RUN, asked, teacher=teacher, share=share)
    assert trained_on_by(RUN, asked, teacher=teacher) == (0.0, None)
    teacher = recorded(folder, trained, share=0.2, has_place=has_place)
    assert held_out_by(RUN, asked, teacher=teacher) == (0.2, None)
    with pytest.raises(ConfigError, match=r"says that 0\.2 was held out"):
        held_out_by(RUN, asked, teacher=teacher, share=0.3)


def test_another_working_directory_makes_other_data_of_the_same_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "small")
    teacher = recorded(folder, "xrays.npz", share=0.2)
    monkeypatch.chdir(folder / "project")
    assert held_out_by(RUN, "../small/xrays.npz", teacher=teacher) == (0.2, None)
    about = f"the teacher's record is about 'xrays.npz at {folder}/small/xrays.npz'"
    with pytest.raises(ConfigError) as caught:
        held_out_by(RUN, "xrays.npz", teacher=teacher)
    assert about in str(caught.value)
    assert held_out_by(RUN, "../small/others.npz", teacher=teacher, share=0.1) == (0.1, None)


def test_a_named_data_set_is_known_in_another_folder_of_data_sets(folder: Path) -> None:
    """Its publishers' records are the same everywhere; a path to its file is compared as a path."""
    teacher = recorded(folder, "digits", share=0.2)
    assert held_out_by(RUN, "digits", teacher=teacher, root=folder) == (0.2, None)
    (folder / "medmnist").mkdir()
    blood = folder / "medmnist/bloodmnist.npz"
    blood.write_text("blood")
    teacher = recorded(folder, str(blood), share=0.2)
    assert held_out_by(RUN, "medmnist:bloodmnist", teacher=teacher, root=folder) == (0.2, None)
    with pytest.raises(ConfigError, match="nothing states which training records"):
        held_out_by(RUN, "medmnist:bloodmnist", teacher=teacher, root=folder / "small")

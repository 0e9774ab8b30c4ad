"""What a teacher was trained on becomes no query, by whatever setting or path it is given."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dpsd
from dpsd import Budget, ConfigError, RandomizedResponse, Recipe, Teacher
from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.config.federation import FederationConfig, SimulationSettings
from dpsd.config.transcription import TranscriptionConfig
from dpsd.datasets.sameness import place_of
from dpsd.federated.simulation import new_simulation
from dpsd.models import build_classifier
from dpsd.privacy.targets import Adjacency
from dpsd.runs.observing import Observer
from dpsd.teachers import Committee, TeacherRecord, save_teacher
from dpsd.transcription.public import refuse_private
from dpsd.transcription.starting import start

from .thirds import SHAPE

BUDGET = Budget(epsilon=9.0, delta=1e-6, adjacency="response")
HOLDS = "holds what the teacher was trained on"
RECORD = TeacherRecord(model="lenet5", input_shape=SHAPE, num_classes=3)

Taught = Callable[..., Teacher]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with private images in a file and in a folder, and public ones."""
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for name in ("small/scans/train/ill", "small/scans/test/ill", "others", "project/deep"):
        (tmp_path / name).mkdir(parents=True)
        picture.save(tmp_path / name / "1.png")
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "small/xrays.npz", train_images=images)
    np.savez(tmp_path / "others.npz", images=images[::-1])
    (tmp_path / "link.npz").symlink_to("small/xrays.npz")
    (tmp_path / "link").symlink_to("small/scans")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


@pytest.fixture
def taught(folder: Path) -> Taught:
    """Makes a teacher whose record names its data, with or without their place."""

    def make(data: str, *, name: str = "teacher", has_place: bool = True, seed: int = 0) -> Teacher:
        place = str(place_of(data)) if has_place else ""
        net = build_classifier("lenet5", input_shape=SHAPE, num_classes=3, seed=seed)
        record = replace(RECORD, data=data, data_place=place)
        return dpsd.load_teacher(save_teacher(folder / "project" / name, net, record))

    return make


FILES = ("../small/xrays.npz", "{}/small/xrays.npz", "{}/others/../small/xrays.npz", "../link.npz")
FOLDERS = (
    *("../small/scans", "{}/small/scans", "{}/others/../small/scans/", "../link", "../small"),
    *("../small/scans/train", "{}/link/train/ill"),
)


@pytest.mark.parametrize("has_place", [True, False])  # records of earlier versions have none
@pytest.mark.parametrize("setting", ["public", "probe"])
@pytest.mark.parametrize("trained", FILES)
@pytest.mark.parametrize("shown", FILES)
def test_a_file_of_training_images_is_refused(
    folder: Path, taught: Taught, trained: str, shown: str, setting: str, has_place: bool
) -> None:
    teacher = taught(trained.format(folder), has_place=has_place)
    with pytest.raises(ConfigError, match=f"^{setting} is .*, which {HOLDS}"):
        refuse_private(Recipe(**{setting: shown.format(folder)}), [teacher])
    refuse_private(Recipe(**{setting: str(folder / "others.npz")}), [teacher])


@pytest.mark.parametrize("setting", ["public", "probe", "sources"])
@pytest.mark.parametrize("trained", FOLDERS[:4])
@pytest.mark.parametrize("shown", FOLDERS)
def test_a_folder_that_is_holds_or_lies_within_the_training_folder_is_refused(
    folder: Path, taught: Taught, trained: str, shown: str, setting: str
) -> None:
    def given(path: str) -> Recipe:
        path = path.format(folder)
        return Recipe(**{setting: ("noise", f"folder:{path}") if setting == "sources" else path})

    teacher = taught(f"folder:{trained.format(folder)}")
    with pytest.raises(ConfigError, match=f"^{setting} is .*, which {HOLDS}"):
        refuse_private(given(shown), [teacher])
    for other in ("../others", "{}/small/scans/test"):
        refuse_private(given(other), [teacher])


@pytest.mark.parametrize("has_place", [True, False])
def test_another_working_directory_changes_nothing(
    folder: Path, taught: Taught, has_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = taught("../small/xrays.npz", has_place=has_place)
    monkeypatch.chdir(folder)
    for shown in ("small/xrays.npz", str(folder / "small/xrays.npz"), "link.npz"):
        with pytest.raises(ConfigError, match=HOLDS):
            refuse_private(Recipe(probe=shown), [teacher])


def test_training_images_that_have_moved_with_their_teacher_are_known(
    folder: Path, taught: Taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught("../small/xrays.npz")
    moved = folder / "moved"
    moved.mkdir()
    for name in ("small", "project"):
        shutil.move(folder / name, moved / name)
    monkeypatch.chdir(moved)
    with pytest.raises(ConfigError, match=HOLDS):
        refuse_private(
            Recipe(public="small/xrays.npz"), [dpsd.load_teacher(moved / "project/teacher")]
        )


GIVEN: list[dict[str, Any]] = [
    {"probe": "../small/scans/train"},
    {"public": "../small/scans"},
    {"sources": ("noise", "folder:../link/train")},
]


@pytest.mark.parametrize("given", GIVEN)
def test_no_run_begins_with_training_images(
    folder: Path, taught: Taught, given: dict[str, Any]
) -> None:
    """In Python, and from a configuration as the command line reads it."""
    teacher = taught(f"folder:{folder}/small/scans")
    out = folder / "run"
    with pytest.raises(ConfigError, match=HOLDS) as caught:
        dpsd.transcribe(
            teacher,
            mechanism=RandomizedResponse(),
            budget=BUDGET,
            out=out,
            recipe=Recipe(rounds=1, queries=20, **given),
        )
    assert "\n" not in str(caught.value)
    config = TranscriptionConfig(
        teacher=str(folder / "project/teacher"), epsilon=1.0, adjacency="response", **given
    )
    with pytest.raises(ConfigError, match=HOLDS):
        start(config, teacher, out=out, observer=Observer())
    assert not out.exists()


def test_no_member_of_a_committee_is_shown_its_training_images(
    folder: Path, taught: Taught
) -> None:
    first = taught("digits", name="many/first")
    committee = Committee([first, taught("../small/xrays.npz", name="many/second", seed=1)])
    shown = Recipe(probe=str(folder / "link.npz"))
    for teacher in (committee, dpsd.load_teacher(folder / "project/many")):
        with pytest.raises(ConfigError, match=HOLDS):
            refuse_private(shown, [teacher])
    refuse_private(shown, [first])


@pytest.mark.parametrize("given", GIVEN[1:])
def test_no_simulated_federation_begins_with_a_clients_training_images(
    folder: Path, taught: Taught, given: dict[str, Any]
) -> None:
    taught("digits", name="one")
    taught("folder:../small/scans", name="two", seed=1)
    settings = SimulationSettings(teachers=["one", "two"], epsilon=9.0, adjacency="response")

    def configured(teacher: Teacher) -> FederationConfig:
        return FederationConfig(input_shape=SHAPE, num_classes=3, rounds=1, queries=20, **given)

    with pytest.raises(ConfigError, match=HOLDS):
        new_simulation(settings, folder / "run", configured=configured, observer=Observer())
    assert not (folder / "run").exists()


@pytest.mark.parametrize("given", GIVEN)
def test_no_benchmark_asks_about_training_images(
    folder: Path, taught: Taught, given: dict[str, Any]
) -> None:
    teacher = taught("folder:../small/scans")
    method = Transcribing(name="dpsd", protect="labels", adjacency=Adjacency.RESPONSE, recipe=given)
    task = Task(data="folder:../small/scans", teachers=folder)
    with pytest.raises(ConfigError, match=HOLDS):
        method.run(
            task, teacher, target=BUDGET, seed=0, out=folder / "run/out", observer=Observer()
        )

"""A run names its public images to everyone without saying in which folders they are kept."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dpsd
from dpsd import Budget, RandomizedResponse, Recipe, Run, RunDirectory, RunError
from dpsd.config.recipe import Recipe as Settings
from dpsd.results.export import export_student

from .thirds import Answering, Listens, teacher_of

SECRET = "home-of-ann"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with public images of every kind, whose name is nobody's business."""
    folder = tmp_path / SECRET
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8), dtype=np.uint8)
    (folder / "drawings").mkdir(parents=True)
    for number, image in enumerate(images[60:]):
        Image.fromarray(image).save(folder / "drawings" / f"{number}.png")
    np.savez(folder / "scans.npz", images=images[:40])
    np.savez(folder / "covid.npz", images=images[40:60])
    return folder


def transcribe(kept: Path, out: Path) -> Run:
    return dpsd.transcribe(
        teacher_of(Answering()),
        mechanism=RandomizedResponse(),
        budget=Budget(epsilon=9.0, delta=1e-6, adjacency="round"),
        out=out,
        student="lenet5",
        public=kept / "scans.npz",
        probe=kept / "covid.npz",
        recipe=Recipe(
            rounds=1,
            queries=40,
            sources=("noise", f"folder:{kept / 'drawings'}"),
            generator_steps=1,
            device="cpu",
        ),
        observer=Listens(),
    )


def test_nothing_but_the_settings_names_the_folders_of_public_images(
    kept: Path, tmp_path: Path
) -> None:
    run = transcribe(kept, tmp_path / "run")
    assert run.certificate.sources == [
        *("noise", "folder:drawings", "public:scans.npz", "probe:covid.npz")
    ]
    assert run.directory.certify() == run.certificate
    folders = [run.directory.path]
    if importlib.util.find_spec("huggingface_hub") is not None:
        export_student(run.directory, f"hf:{tmp_path / 'hub'}")
        folders.append(tmp_path / "hub")
    files = [file for one in folders for file in one.rglob("*") if file.is_file()]
    assert {"certificate.json", "report.html", "ledger.jsonl"} <= {file.name for file in files}
    naming = [file.name for file in files if SECRET.encode() in file.read_bytes()]
    assert naming == ["config.toml"]  # by which the run finds its images again


def test_a_run_whose_ledger_states_whole_paths_still_certifies_and_resumes(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier versions wrote it; what it published stays what it was."""

    def in_full(recipe: Settings) -> list[str]:
        return [*recipe.asked_sources, *recipe.stated_images]

    with monkeypatch.context() as patch:
        patch.setattr(Settings, "stated_sources", property(in_full))
        earlier = transcribe(kept, tmp_path / "run")
    run = RunDirectory.open(tmp_path / "run")
    assert run.certify() == earlier.certificate
    assert f"probe:{kept / 'covid.npz'}" in run.certify().sources
    assert json.loads((run.path / "certificate.json").read_text())["sources"] == (
        earlier.certificate.sources
    )
    resumed = dpsd.resume(run.path, teacher_of(Answering()), observer=Listens())
    assert resumed.certificate == earlier.certificate


def test_a_ledger_that_states_other_sources_is_refused(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Settings, "stated_sources", property(lambda recipe: ["noise", "scans.npz"]))
        transcribe(kept, tmp_path / "run")
    with pytest.raises(RunError, match="says that sources is"):
        RunDirectory.open(tmp_path / "run").certify()

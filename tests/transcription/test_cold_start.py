"""A run whose only source is the generator, on a real teacher of small digits."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import dpsd
from dpsd import Budget, RandomizedResponse, Recipe, ReproducibleNoise, Run, Teacher
from dpsd.config.base import to_toml
from dpsd.config.transcription import TranscriptionConfig
from dpsd.datasets.labelled import LabelledImages
from dpsd.datasets.registry import load_dataset
from dpsd.storage.files import load_tensors
from dpsd.synthesis.names import DEFAULT

SHAPE = (1, 16, 16)
CLASSES = 10
RECIPE = Recipe(
    rounds=2,
    queries=300,
    sources=("none",),
    batch_size=64,
    epochs=2.0,
    generator_steps=3,
    generator_batch_size=32,
    generator_share=0.3,
    selection=1.0,
    device="cpu",
    precision="float32",
)


def enlarged(data: LabelledImages) -> Tensor:
    """Digits of 16x16 pixels in [0, 1]; on smaller images, a single generator is not so stuck."""
    images: Tensor = F.interpolate(data.images / 255, size=SHAPE[1:], mode="bilinear")
    return images


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """Ridge regression on the pixels of digits, which reads most of them."""
    data = load_dataset("digits", "train")
    inputs = F.pad(enlarged(data).flatten(1), (0, 1), value=1.0)
    wanted = F.one_hot(data.labels, CLASSES) - 1 / CLASSES
    penalty = 10 * torch.eye(inputs.shape[1])
    weights = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ wanted)

    def scores(images: Tensor) -> Tensor:
        found: Tensor = 10 * F.pad(images.flatten(1), (0, 1), value=1.0) @ weights
        return found

    return dpsd.load_teacher(scores, input_shape=SHAPE, num_classes=CLASSES, scores="logits")


def transcribe(
    teacher: Teacher,
    out: Path,
    *,
    observer: dpsd.Observer | None = None,
    public: Tensor | None = None,
    **changed: Any,
) -> Run:
    return dpsd.transcribe(
        teacher,
        mechanism=RandomizedResponse(noise=ReproducibleNoise(seed=3)),
        budget=Budget(epsilon=10.0, delta=1e-5, adjacency="response"),
        out=out,
        student="lenet5",
        recipe=RECIPE.model_copy(update=changed),
        observer=observer,
        public=public,
    )


def entropy(shares: list[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0)


def predicted(run: Run) -> Tensor:
    """The student's classes for real digits."""
    with torch.inference_mode():
        classes: Tensor = run.student(enlarged(load_dataset("digits", "test"))).argmax(-1)
    return classes


def accuracy(run: Run) -> float:
    labels = load_dataset("digits", "test").labels
    return float((predicted(run) == labels).float().mean())


@pytest.fixture(scope="module")
def started(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return transcribe(teacher, tmp_path_factory.mktemp("started"))


def test_a_cold_start_leaves_the_few_classes_of_one_generator(
    teacher: Teacher, tmp_path: Path, started: Run
) -> None:
    stuck = transcribe(teacher, tmp_path, cold_start=False)
    assert stuck.certificate.sources == ["none"]
    for without, line in zip(stuck.metrics, started.metrics, strict=True):
        assert entropy(line["label_shares"]) > max(1.4, entropy(without["label_shares"]) + 0.3)
    assert len(predicted(stuck).unique()) < len(predicted(started).unique())
    assert accuracy(started) > accuracy(stuck) + 0.1


def test_networks_begin_and_the_generator_joins_them(started: Run) -> None:
    first, second = (line["sources"] for line in started.metrics)
    assert first == {"networks": 300, "generator": 0}
    assert second["networks"] > second["generator"] > 0
    assert started.certificate.sources == ["networks"]
    assert started.directory.ledger.opening()["sources"] == ["networks"]


def test_a_run_that_was_cut_off_ends_with_the_same_bits_as_another_of_its_seed(
    teacher: Teacher, tmp_path: Path, started: Run
) -> None:
    class Stops(dpsd.Observer):
        def round_finished(self, metrics: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, tmp_path, observer=Stops())
    resumed = dpsd.resume(tmp_path, teacher)
    for name in ("student", "generator"):
        whole, again = (
            load_tensors(run.directory.path / f"{name}.safetensors") for run in (started, resumed)
        )
        assert whole.keys() == again.keys()
        assert all(whole[key].equal(again[key]) for key in whole)
    for index in (1, 2):
        asked, same = (run.directory.stored_releases(index) for run in (started, resumed))
        assert asked is not None
        assert same is not None
        assert asked.queries.equal(same.queries)
        assert asked.release.equal(same.release)


def test_a_run_of_a_version_without_a_cold_start_goes_on_without_it(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = functools.partial(to_toml, without={"cold_start"})
    monkeypatch.setattr("dpsd.runs.folder.to_toml", earlier)

    class Stops(dpsd.Observer):
        def round_finished(self, metrics: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, tmp_path, observer=Stops(), cold_start=False, queries=40)
    assert "cold_start =" not in (tmp_path / "config.toml").read_text(encoding="utf-8")
    resumed = dpsd.resume(tmp_path, teacher)
    assert resumed.metrics[1]["sources"] == {"generator": 40}
    assert resumed.certificate.sources == ["none"]


def test_the_seed_decides_which_networks_ask(
    teacher: Teacher, tmp_path: Path, started: Run
) -> None:
    other = transcribe(teacher, tmp_path, rounds=1, seed=1).directory.stored_releases(1)
    asked = started.directory.stored_releases(1)
    assert asked is not None
    assert other is not None
    assert not asked.queries.equal(other.queries)


def test_public_images_are_a_start_of_their_own(teacher: Teacher, tmp_path: Path) -> None:
    public = (255 * enlarged(load_dataset("digits", "train"))).to(torch.uint8)[:300]
    run = transcribe(teacher, tmp_path, rounds=1, queries=100, public=public, probe="none")
    assert run.metrics[0]["sources"] == {"public": 100, "generator": 0}
    assert run.certificate.sources == ["none", "public:(tensor)"]


def test_a_cold_start_is_the_default_and_changes_no_other_run() -> None:
    config = TranscriptionConfig(teacher="teacher/", epsilon=1.0)
    assert config.recipe.cold_start
    assert config.recipe.sources == DEFAULT

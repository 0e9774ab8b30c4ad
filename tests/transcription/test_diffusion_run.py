"""Runs whose queries are drawn by diffusion: resumed with the same bits, recorded, kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import dpsd
from dpsd.distillation.denoising import DenoiserTraining
from dpsd.distillation.releases import RoundReleases
from dpsd.teachers import CallableTeacher

RECIPE = dpsd.Recipe(
    rounds=2,
    queries=64,
    sources=("noise", "diffusion"),
    batch_size=32,
    generator_steps=0,
    generator_share=0.0,
    device="cpu",
    precision="float32",
)


def scores(images: Tensor) -> Tensor:
    thirds = images[:, 0, :6].reshape(len(images), 3, 16).mean(-1)
    return (20 * thirds).softmax(-1)


class Phases(dpsd.Observer):
    """Notes the phases of a run, and interrupts one."""

    def __init__(self, interrupted: tuple[str, int] | None = None) -> None:
        self.begun: list[tuple[str, int]] = []
        self._interrupted = interrupted

    def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
        self.begun.append((name, round_index))
        if (name, round_index) == self._interrupted:
            raise KeyboardInterrupt
        return super().phase(name, total=total, round_index=round_index)

    def warn(self, message: str) -> None:
        pass  # a run of 64 queries is too short to learn much


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> dpsd.Teacher:
    short = partial(DenoiserTraining, images=64, steps=2, batch_size=8)
    monkeypatch.setattr("dpsd.distillation.diffusion.DenoiserTraining", short)
    return CallableTeacher(
        scores, input_shape=(1, 8, 8), num_classes=3, scores="probabilities", name="thirds"
    )


def transcribe(teacher: dpsd.Teacher, out: Path, observer: Phases) -> dpsd.Run:
    return dpsd.transcribe(
        teacher,
        mechanism=dpsd.RandomizedResponse(noise=dpsd.ReproducibleNoise(seed=5)),
        budget=dpsd.Budget(epsilon=9.0, adjacency="round"),
        out=out,
        student="lenet5",
        recipe=RECIPE,
        observer=observer,
    )


def test_a_run_that_is_resumed_draws_and_steers_as_one_that_never_stopped(
    teacher: dpsd.Teacher, tmp_path: Path
) -> None:
    whole, broken = Phases(), Phases(("student", 1))
    run = transcribe(teacher, tmp_path / "whole", whole)
    assert whole.begun[:2] == [("diffusion", 1), ("synthesis", 1)]
    assert "diffusion" in run.certificate.sources
    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, tmp_path / "broken", broken)
    assert broken.begun[0] == ("synthesis", 1)  # the denoiser was kept
    dpsd.resume(tmp_path / "broken", teacher, observer=Phases())
    students = [tmp_path / name / "student.safetensors" for name in ("whole", "broken")]
    assert students[0].read_bytes() == students[1].read_bytes()
    facts = [json.loads(path.with_suffix(".json").read_text()) for path in students]
    assert facts[0]["denoiser"] == facts[1]["denoiser"]
    assert facts[0]["denoiser"].startswith("sha256:")


def test_the_student_steers_from_the_second_round_on(
    teacher: dpsd.Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn without steering is the same until the student has learned something."""
    transcribe(teacher, tmp_path / "steered", Phases())
    monkeypatch.setattr("dpsd.distillation.diffusion.Diffusion.guided_by", lambda *arguments: None)
    transcribe(teacher, tmp_path / "plain", Phases())

    def drawn(run: str, index: int) -> Tensor:
        path = tmp_path / run / "releases" / f"round-{index:04d}.safetensors"
        found = RoundReleases.load(path, index=index)
        return found.images((found.source == 1).nonzero().flatten())

    assert torch.equal(drawn("steered", 1), drawn("plain", 1))
    assert not torch.equal(drawn("steered", 2), drawn("plain", 2))

"""Runs that leave each source out once: what they tell, cost, repeat and refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dpsd
from dpsd import (
    Budget,
    ConfigError,
    Gaussian,
    Mechanism,
    NoisyVotes,
    Observer,
    RandomizedResponse,
    Recipe,
    ReproducibleNoise,
    Run,
    Teacher,
)
from dpsd.teachers import Committee

SHAPE = (1, 8, 8)
NOISE = ReproducibleNoise(seed=5)
BUDGET = Budget(epsilon=9.0, delta=1e-6, adjacency="round")
RECIPE: dict[str, Any] = {
    "rounds": 2,
    "queries": 120,
    "sources": ("noise", "mixed", "strokes", "silhouettes"),
    "batch_size": 32,
    "generator_steps": 1,
    "generator_batch_size": 8,
    "leave_one_out_steps": 4,
    "device": "cpu",
    "precision": "float32",
}
PLAIN = ["noise", "strokes", "silhouettes"]


def teacher_of(*, bend: float = 0.0) -> Teacher:
    """A teacher of the brightest third of an image, a little different for each ``bend``."""

    def scores(images: Tensor) -> Tensor:
        thirds = images[:, 0, :6].reshape(len(images), 3, 16).mean(-1)
        return 20 * thirds + bend * images[:, 0, 7, :3]

    return dpsd.load_teacher(
        scores, input_shape=SHAPE, num_classes=3, scores="logits", name=f"thirds {bend}"
    )


class Own(nn.Module):
    """A student with a weight that no ``reset_parameters`` sets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 64))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T


class Listens(Observer):
    """Notes phases, and may break a run at the start of one."""

    def __init__(self, fails_in: str = "") -> None:
        self.phases: list[str] = []
        self.fails_in = fails_in

    def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
        if name == self.fails_in:
            raise KeyboardInterrupt
        self.phases.append(name)
        return super().phase(name, total=total, round_index=round_index)


def transcribe(
    out: Path,
    *,
    teacher: Teacher | None = None,
    mechanism: Mechanism | None = None,
    budget: Budget = BUDGET,
    student: str | nn.Module = "lenet5",
    observer: Observer | None = None,
    **changed: Any,
) -> Run:
    return dpsd.transcribe(
        teacher or teacher_of(),
        mechanism=mechanism or RandomizedResponse(noise=NOISE),
        budget=budget,
        out=out,
        student=student,
        recipe=Recipe(**{**RECIPE, **changed}),
        observer=observer,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was never interrupted."""
    return transcribe(tmp_path_factory.mktemp("runs") / "whole")


def test_each_source_is_left_out_once_and_nothing_else_changes(whole: Run, tmp_path: Path) -> None:
    found = whole.metrics[-1]["left_out"]
    assert list(found["sources"]) == PLAIN
    assert found["agreement"]["mean"] == pytest.approx(
        sum(one["mean"] for one in found["sources"].values()) / 3
    )
    assert not any("left_out" in line for line in whole.metrics[:-1])
    without = transcribe(tmp_path / "without", leave_one_out_steps=0)
    assert "left_out" not in without.metrics[-1]
    assert without.certificate.events == whole.certificate.events
    for name, tensor in without.student.state_dict().items():
        assert tensor.equal(whole.student.state_dict()[name])


def test_the_report_says_what_it_is_about(whole: Run) -> None:
    page = (whole.directory.path / "report.html").read_text(encoding="utf-8")
    for name in PLAIN:
        assert f'<tr><th scope="row">{name}</th>' in page
    assert "but not about real ones" in page


@pytest.mark.parametrize("student", ["lenet5", "own"])
def test_a_run_that_is_resumed_finds_the_same(whole: Run, tmp_path: Path, student: str) -> None:
    """Also if its student cannot be reset: others begin as it began, not as it was taught."""
    given: Callable[[], str | nn.Module] = Own if student == "own" else lambda: student
    if student == "own":
        whole = transcribe(tmp_path / "whole", student=Own(), rounds=1)
    with pytest.raises(KeyboardInterrupt):
        transcribe(
            tmp_path / "cut",
            student=given(),
            observer=Listens("leaving out"),
            rounds=len(whole.metrics),
        )
    observer = Listens()
    own = given() if student == "own" else None
    run = dpsd.resume(tmp_path / "cut", teacher_of(), student=own, observer=observer)
    assert observer.phases == ["leaving out"]
    assert run.metrics[-1]["left_out"] == whole.metrics[-1]["left_out"]
    again = Listens()
    dpsd.resume(tmp_path / "cut", teacher_of(), student=given() if own else None, observer=again)
    assert again.phases == []  # it is there already


def test_an_ensemble_leaves_sources_out(tmp_path: Path) -> None:
    committee = Committee([teacher_of(bend=number / 10) for number in range(20)])
    run = transcribe(
        tmp_path,
        teacher=committee,
        mechanism=NoisyVotes(noise=NOISE),
        budget=Budget(epsilon=50.0, delta=1e-5, adjacency="teacher"),
        student="scattering",
        student_steps=4,
    )
    assert all(run.metrics[-1]["left_out"]["sources"].values())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"sources": ("noise", "strokes", "mixed")}, r"has 2 \(noise,strokes\): name more"),
        ({"sources": ("none",)}, r"has 0 \(none\): name more"),
        (
            {"mechanism": Gaussian(harden=False, noise=NOISE)},
            "Gaussian does not tell how often student and teacher agree",
        ),
    ],
)
def test_a_run_that_cannot_tell_is_refused_before_anything_is_asked(
    tmp_path: Path, given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        transcribe(tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()

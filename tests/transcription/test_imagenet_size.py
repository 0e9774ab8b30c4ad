"""Images of 224 pixels and a thousand classes go the whole way, a handful of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import dpsd
from dpsd.distillation.releases import RoundReleases
from dpsd.models import build_classifier

SHAPE, CLASSES = (3, 224, 224), 1000


@pytest.mark.thorough
def test_a_large_teacher_becomes_a_large_student(tmp_path: Path) -> None:
    module = build_classifier("resnet50", input_shape=SHAPE, num_classes=CLASSES, seed=1)
    teacher = dpsd.load_teacher(module, input_shape=SHAPE, scores="logits")
    recipe = dpsd.Recipe.suited_to(
        teacher,
        rounds=1,
        queries=6,
        student_steps=1,
        batch_size=2,
        generator_steps=1,
        generator_batch_size=2,
    )
    run = dpsd.transcribe(
        teacher,
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=8.0, adjacency="response"),
        out=tmp_path,
        student="resnet34",
        recipe=recipe,
        observer=Quiet(),
    )
    assert run.certificate.events == {"response": 1, "round": 1, "teacher": 6}
    path = tmp_path / "releases" / "round-0001.safetensors"
    stored = RoundReleases.load(path, index=1)
    assert stored.queries.shape == (6, *SHAPE)
    assert stored.prior.shape == (6, CLASSES)
    assert stored.release.max() < CLASSES
    # The pixels as bytes and once, with a few kilobytes for what goes with each.
    assert path.stat().st_size < 6 * (3 * 224 * 224 + 4_000)
    student = dpsd.RunDirectory.open(tmp_path).student()
    assert sum(weight.numel() for weight in student.parameters()) == 21_797_672


class Quiet(dpsd.Observer):
    """Random weights deserve the warnings that they cause."""

    def warn(self, message: str) -> None:
        """Say nothing."""

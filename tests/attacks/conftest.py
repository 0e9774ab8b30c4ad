"""A finished run on images of handwritten digits, of which no test changes anything."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import Tensor

import dpsd
from dpsd.runs.directory import RunDirectory


def _columns(images: Tensor) -> Tensor:
    """Logits: how light the columns are, and two classes more."""
    return F.pad(9 * images.mean((1, 2)), (0, 2), value=-1.0)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of one round. Not to be changed."""
    teacher = dpsd.load_teacher(_columns, input_shape=(1, 8, 8), num_classes=10)
    return dpsd.transcribe(
        teacher,
        student="cnn",
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=1.0, delta=1e-5, adjacency=dpsd.Adjacency.RESPONSE),
        out=tmp_path_factory.mktemp("runs") / "run",
        recipe=dpsd.Recipe(rounds=1, queries=64, student_steps=1, generator_steps=0),
        observer=None,
    ).directory

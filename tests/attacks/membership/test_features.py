"""Shadow teachers on a frozen public backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dpsd.attacks.membership.recipes import TeacherRecipe
from dpsd.datasets import load_dataset
from dpsd.devices.execution import Execution
from dpsd.teachers import TeacherRecord
from dpsd.teachers.backbones import load_backbone

BACKBONE = """
import torch

def edges():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU())
"""


def test_shadows_are_linear_on_the_teachers_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shadow_backbone.py").write_text(BACKBONE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    features = load_backbone("shadow_backbone:edges", input_shape=(1, 8, 8))
    record = TeacherRecord(
        model="scattering",
        input_shape=(1, 8, 8),
        num_classes=10,
        members=8,
        features=features.stated(),
    )
    recipe = TeacherRecipe(record=record, share=0.5, features=features)
    assert recipe.stated()["features"] == features.stated()
    records = load_dataset("digits", "train").subset(torch.arange(200))
    teacher, module = recipe.make(
        records, seed=0, folder=tmp_path, execution=Execution(torch.device("cpu"), "float32")
    )
    assert teacher.features is not None
    assert teacher.features.stated() == features.stated()
    images = records.images[:50] / 255
    with torch.no_grad():
        agreed = module(images).argmax(1) == teacher.predict_classes(images)
    # One is the mean of all members' probabilities, and the other is their majority.
    assert agreed.double().mean() > 0.8

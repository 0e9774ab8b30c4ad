"""Teachers that benchmarks share are trained once, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpsd.benchmarks.methods import Task
from dpsd.errors import ConfigError


def test_a_teacher_is_trained_once(task: Task) -> None:
    written = (task.teacher_path() / "teacher.safetensors").stat().st_mtime_ns
    assert (task.teacher_path() / "teacher.safetensors").stat().st_mtime_ns == written
    assert task.teacher().members == 1
    assert Path(task.teacher(20).location or "").name == "digits-20-8-views"
    assert task.teacher(20).is_disjoint


def test_an_ensemble_is_no_white_box(task: Task) -> None:
    from dpsd.benchmarks.teachers import open_module

    with pytest.raises(ConfigError, match="holds 20 teachers"):
        open_module(task.teacher_path(20))

"""``dpsd demo`` before it begins; ``tests/test_wheel.py`` plays it from an installed package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from dpsd.cli.demo import _teacher
from dpsd.datasets import load_dataset
from dpsd.teachers import load_teacher, read_record


def test_what_is_there_is_not_written_into(
    invoke: Callable[..., Result],
    tmp_path: Path,
    assert_error: Callable[[Result, int, str], None],
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert_error(invoke("demo", "--out", tmp_path), 2, "not empty: give another --out")
    assert_error(invoke("demo", "--out", tmp_path / "notes.txt"), 2, "give another --out")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_first_help_names_it(invoke: Callable[..., Result]) -> None:
    assert "dpsd demo" in invoke("--help").stdout
    said = " ".join(invoke("demo", "--help").stdout.split())
    assert "--quick" in said


def test_its_teacher_lies_where_its_runs_find_it_with_what_it_was_trained_on(
    tmp_path: Path,
) -> None:
    teacher = _teacher(load_dataset("digits", "train"), tmp_path / "teacher", epochs=1)
    assert teacher.location == str((tmp_path / "teacher").resolve())
    assert load_teacher(teacher.location).fingerprint == teacher.fingerprint
    record = read_record(tmp_path / "teacher")
    assert (record.model, record.data, record.epochs) == ("cnn", "digits", 1)
    assert record.precision == "bfloat16"  # attacks train theirs alike

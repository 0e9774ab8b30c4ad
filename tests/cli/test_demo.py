"""``dpsd demo`` before it begins; ``tests/test_wheel.py`` plays it from an installed package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result


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

"""Figures bear every name that a class may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpsd.reporting.curves import confusion_figure


@pytest.mark.parametrize("names", [["$\\bad$", "b"], ["a$^$", "c"], ["A$ & B$", "_^{}"]])
def test_class_names_are_no_formulas(names: list[str], tmp_path: Path) -> None:
    figure = confusion_figure(
        "confusion",
        [[0.5, 0.5], [0.25, 0.75]],
        classes=names,
        rows_are="the teacher says",
        title="Confusion",
    )
    assert figure is not None
    assert {path.suffix for path in figure.save(tmp_path)} == {".svg", ".png"}
    text = (tmp_path / "confusion.svg").read_text(encoding="utf-8")
    assert names[0].replace("&", "&amp;") in text

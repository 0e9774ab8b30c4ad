"""Figures bear every name that a class may have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dpsd.reporting.curves import confusion_figure, progress_figure


def unwrapped(svg: str) -> str:
    """The texts of a drawing, joined."""
    return " ".join(re.findall(r">([^<>]*[^<>\s])[^<>]*</text>", svg))


@pytest.mark.parametrize("names", [["$\\bad$", "b"], ["a$^$", "c"], ["A$ & B$", "_^{}"]])
def test_class_names_are_no_formulas(names: list[str], tmp_path: Path) -> None:
    figure = confusion_figure(
        "confusion",
        [[0.5, 0.5], [0.25, 0.75]],
        classes=names,
        rows_are="the teacher says",
        title="Confusion",
        run="runs/a$b",
    )
    assert figure is not None
    assert {path.suffix for path in figure.save(tmp_path)} == {".svg", ".png"}
    assert "runs/a$b: Confusion. Shares of each row, in %" in unwrapped(figure.svg)
    text = (tmp_path / "confusion.svg").read_text(encoding="utf-8")
    assert names[0].replace("&", "&amp;") in text


@pytest.mark.parametrize(("is_one_loss", "panels"), [(True, 1), (False, 2)])
def test_losses_that_are_not_to_be_compared_are_drawn_apart(is_one_loss: bool, panels: int) -> None:
    rounds = [{"round": n, "student_loss": 2.0 / n, "agreement": None} for n in (1, 2)]
    figure = progress_figure({"a": rounds, "b": rounds}, is_one_loss=is_one_loss)
    assert figure is not None
    assert len(figure.drawn.axes) == panels
    assert ("a smaller one does not mean a better student" in figure.finding) != is_one_loss


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ([], "On average over the classes, the student"),
        ([1], "On average over the 2 of 3 classes that have a row, the student"),
    ],
)
def test_a_mean_over_some_of_the_classes_says_over_how_many(missing: list[int], said: str) -> None:
    rows = [[0.9, 0.1, -0.0001], [0.5, 0.5, 0.0], [-0.0001, 0.1, 0.9]]
    figure = confusion_figure(
        "confusion",
        [None if number in missing else row for number, row in enumerate(rows)],
        classes=["a", "b", "c"],
        rows_are="the teacher says",
        title="Confusion",
        run="run",
    )
    assert figure is not None
    assert figure.finding.startswith(said)
    assert "-0.0%" not in str(figure.rows)

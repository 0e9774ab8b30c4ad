"""Evaluations are read as they were written, and whole, or refused."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dpsd.errors import ConfigError
from dpsd.reporting.evaluations import _Evaluation, _OfClass, read_evaluation
from dpsd.results.evaluation import ClassResult, Evaluation

CLASSES = tuple(
    ClassResult(
        name=name,
        images=images,
        student_accuracy=accuracy,
        teacher_accuracy=None,
        agreement=None,
        predicted=predicted,
    )
    for name, images, accuracy, predicted in (("cat", 3, 1.0, 4), ("dog", 1, 0.0, 0))
)
FOUND = Evaluation(
    data="pets",
    split="test",
    validation_share=0.0,
    images=4,
    student_accuracy=0.75,
    teacher_accuracy=None,
    student_balanced_accuracy=0.5,
    teacher_balanced_accuracy=None,
    agreement=None,
    classes=CLASSES,
    run="f00",
    student="sha256:ab",
    confusion=((3, 0), (1, 0)),
).to_dict()


def written(folder: Path, found: dict[str, Any]) -> Path:
    path = folder / "measured.json"
    path.write_text(json.dumps(found))
    return path


def test_an_evaluation_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_evaluation(written(tmp_path, FOUND)) == json.loads(json.dumps(FOUND))


def test_everything_that_an_evaluation_states_is_checked() -> None:
    for stated, read in ((Evaluation, _Evaluation), (ClassResult, _OfClass)):
        names = {field.name for field in fields(stated)}
        assert set(read.model_fields) - {"privatised"} == names


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"agreement": 1.01}, "agreement: "),
        ({"images": "4"}, "images: "),
        ({"images": 5}, "classes have 4 images, and images is 5"),
        ({"split": "all"}, "split: "),
        ({"privatised": True}, "privatised: "),
        ({"classes": [{"name": "cat"}]}, r"classes.0.images: field required"),
        ({"confusion": [[3, 0], [0, 0]]}, "not as large as their classes"),
        ({"confusion": [[3], [1]]}, "have not 2 numbers"),
        ({"confusion": [[4, -1], [1, 0]]}, "confusion.0.1: "),
        ({"headline": "ε = 1"}, "headline: there is no such field"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_line(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = written(tmp_path, FOUND | changed)
    with pytest.raises(ConfigError, match=f"^evaluation: {path} .*{said}.*dpsd evaluate RUN") as no:
        read_evaluation(path)
    assert "\n" not in str(no.value)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "measured.json").write_text("no")
    with pytest.raises(ConfigError, match=r"cannot be read.*write it with dpsd evaluate"):
        read_evaluation(tmp_path / "measured.json")


def test_an_evaluation_of_an_earlier_version_has_no_errors(tmp_path: Path) -> None:
    earlier = {name: value for name, value in FOUND.items() if name != "standard_errors"}
    assert read_evaluation(written(tmp_path, earlier)) == json.loads(json.dumps(earlier))

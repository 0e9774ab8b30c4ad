"""Persons by table, by expression and by array; no record goes without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dpsd.datasets import LabelledImages, persons_of
from dpsd.errors import ConfigError, DataError


def pets(*names: str, name: str = "folder:pets") -> LabelledImages:
    count = len(names) or 3
    return LabelledImages(
        images=torch.zeros(count, 1, 8, 8, dtype=torch.uint8),
        labels=torch.zeros(count, dtype=torch.int64),
        class_names=("cat", "dog"),
        name=name,
        split="train",
        names=names or None,
    )


def grouped(data: LabelledImages, rule: str) -> tuple[str, ...]:
    return persons_of(data, rule, root=Path("nowhere"))


def table(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_a_table_of_files_and_persons(tmp_path: Path) -> None:
    data = pets("cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png")
    lines = ("patient,file,age", "ada,cat/1.png,7", "ben,2.png,8", "ben,dog/1.png,8", "c d,3.png,1")
    path = table(tmp_path / "persons.csv", *lines, "eve,test/9.png,1")
    assert grouped(data, f"csv:{path}:patient") == ("ada", "ben", "ben", "c d")
    odd = table(tmp_path / "a:b.csv", "image;1,who", "cat/1.png,x")
    assert grouped(pets("cat/1.png"), f"csv:{odd}:who") == ("x",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("file,patient", "cat/1.png,ada"), r"does not list file cat/2\.png"),
        (("file,patient", "cat/1.png,ada", "2.png,"), r"cat/2\.png has no patient"),
        (("file,patient", "1.png,ada", "2.png,b"), "2 files have that name"),
        (
            ("file,patient", "2.png,ada", "2.png,ben"),
            "line 3: 2.png belongs to 'ben', but to 'ada'",
        ),
        (("file,who", "2.png,ada"), "no column 'patient'.*its columns are file, who"),
        (("patient,who", "2.png,ada"), "no column 'patient'"),
        ((), "no column 'patient'.*missing"),
    ],
)
def test_tables_that_leave_a_record_without_a_person(
    tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    path = table(tmp_path / "persons.csv", *lines)
    with pytest.raises(DataError, match=message):
        grouped(pets("cat/1.png", "cat/2.png", "dog/1.png"), f"csv:{path}:patient")


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"file,\xff\xfe\x00patient\n\xff")
    for name in ("bytes.csv", "absent.csv"):
        with pytest.raises(DataError, match="cannot be read as a CSV file"):
            grouped(pets("cat/1.png"), f"csv:{tmp_path / name}:patient")


def test_an_expression_over_file_names() -> None:
    data = pets("patient9/patient12_a.png", "dog/patient7_b.png", "dog/xpatient12_c.png")
    assert grouped(data, r"re:(patient\d+)_") == ("patient12", "patient7", "patient12")
    assert grouped(data, r"re:^[a-z]+(\d+):?_") == ("12", "7", "12")
    with pytest.raises(
        DataError, match=r"finds no person in the file name 'dog/xpatient12_c\.png'"
    ):
        grouped(data, r"re:^(patient\d+)_")
    with pytest.raises(DataError, match="finds no person"):
        grouped(data, r"re:patient\d*(z?)")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "persons.csv:patient",
            "group_by is 'persons.csv:patient'; it must be csv:PATH:COLUMN, re",
        ),
        ("csv:persons.csv", "it must be csv:PATH:COLUMN"),
        ("csv::patient", "it must be csv:PATH:COLUMN"),
        ("re:", "it must be"),
        ("", "it must be"),
        (r"re:\d+", "has 0 groups"),
        (r"re:(a)(b)", "has 2 groups"),
        ("re:(", "is not a regular expression"),
        ("array:who", "is not an .npz file"),
    ],
)
def test_rules_that_make_no_sense(rule: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grouped(pets("cat/1.png"), rule)


@pytest.mark.parametrize("rule", ["re:(a)", "csv:persons.csv:patient"])
def test_arrays_have_no_file_names(rule: str) -> None:
    with pytest.raises(ConfigError, match="array:NAME names an array"):
        grouped(pets(name="mnist"), rule)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([3, 1, 3]), ("3", "1", "3")),
        (np.array([[3], [1], [3]], np.uint8), ("3", "1", "3")),
        (np.array(["ada ", "ben", "ada"]), ("ada", "ben", "ada")),
        (np.array([b"ada", b"ben", b"ada"]), ("ada", "ben", "ada")),
    ],
)
def test_an_array_of_persons(tmp_path: Path, array: np.ndarray, expected: tuple[str, ...]) -> None:
    np.savez(tmp_path / "own.npz", who=array)
    assert grouped(pets(name=str(tmp_path / "own.npz")), "array:who") == expected
    (tmp_path / "medmnist").mkdir()
    np.savez(tmp_path / "medmnist/bloodmnist.npz", who=array)
    data = pets(name="medmnist:bloodmnist")
    assert persons_of(data, "array:who", root=tmp_path) == expected


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1, 2]), r"one for each of the 3 records of the train split"),
        (np.array([1.0, 2.0, 3.0]), "whole numbers or text"),
        (np.zeros((1, 3), np.uint8), "whole numbers or text"),
        (np.array(["a", " ", "b"]), "row 1, is empty"),
        (np.array([{}, {}, {}], dtype=object), "pickled"),
        (np.array(3), "whole numbers or text"),
    ],
)
def test_arrays_that_are_no_persons(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "own.npz", who=array)
    with pytest.raises(DataError, match=message):
        grouped(pets(name=str(tmp_path / "own.npz")), "array:who")
    with pytest.raises(DataError, match="has no array whom"):
        grouped(pets(name=str(tmp_path / "own.npz")), "array:whom")

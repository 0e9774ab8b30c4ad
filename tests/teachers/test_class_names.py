"""Names of classes: which are taken, where they come from, and where they arrive."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import dpsd
from dpsd.config.teacher import TeacherSettings
from dpsd.errors import ConfigError, TeacherError
from dpsd.models import build_classifier
from dpsd.teachers import TeacherRecord, load_teacher, save_teacher
from dpsd.teachers.class_names import (
    LONGEST_NAME,
    checked_class_names,
    found_class_names,
    parsed_class_names,
)

SHAPE = (1, 8, 8)


@given(st.lists(st.text(max_size=5), max_size=6), st.integers(2, 6))
def test_names_that_a_file_states_are_usable_or_left_out(names: list[str], classes: int) -> None:
    found = found_class_names(names, num_classes=classes)
    if found is not None:
        assert checked_class_names(found, num_classes=classes) == found


@given(st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), min_size=2, max_size=6))
def test_repeated_names_are_told_apart(names: list[str]) -> None:
    found = found_class_names(names, num_classes=len(names))
    assert found is not None
    assert len(set(found)) == len(names)
    assert all(shown.startswith(name) for shown, name in zip(found, names, strict=True))


@pytest.mark.parametrize("stated", [None, 3, "ab", [1, 2], [[], {}], ["0", "1"], ["a", "\u202eb"]])
def test_anything_else_that_a_file_states_is_left_out(stated: object) -> None:
    assert found_class_names(stated, num_classes=2) is None


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], "at least two"),
        (["a", "a"], "'a' is named twice"),
        (["a", ""], "empty"),
        (["a", "b\n"], "spaces"),
        (["a", "b\x1b[2J"], "cannot be printed"),
        (["a", "b" * (LONGEST_NAME + 1)], "at most 200"),
        (["a", 1], "not text"),
    ],
)
def test_names_that_cannot_be_shown_or_told_apart_are_refused(
    names: list[object], said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^class_names.*{said}"):
        checked_class_names(names)


def test_a_file_has_one_name_a_line_and_names_with_commas(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("tench, Tinca tinca\n\n goldfish \n")
    names = ("tench, Tinca tinca", "goldfish")
    assert parsed_class_names(f"@{tmp_path / 'names.txt'}") == names
    settings = TeacherSettings(teacher="t", class_names=(f"@{tmp_path / 'names.txt'}",))
    assert settings.class_names == names
    with pytest.raises(ConfigError, match=r"class_names: .*nowhere.* cannot be read"):
        TeacherSettings(teacher="t", class_names=("@nowhere",))


def test_a_number_of_names_other_than_that_of_the_classes_is_refused(module: nn.Module) -> None:
    with pytest.raises(TeacherError, match="class_names has 2 names, but the teacher has 3"):
        load_teacher(module, input_shape=SHAPE, class_names="cat,dog")
    teacher = load_teacher(module, input_shape=SHAPE, class_names=["cat", "dog", "eel"])
    assert teacher.class_names == ("cat", "dog", "eel")


def saved(folder: Path, *names: str, seed: int = 0) -> Path:
    made = build_classifier("cnn", input_shape=SHAPE, num_classes=3, seed=seed)
    record = TeacherRecord(model="cnn", input_shape=SHAPE, num_classes=3, class_names=names)
    return save_teacher(folder, made, record)


def test_a_directory_states_names_and_the_user_may_replace_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "teacher", "cat", "dog", "eel")
    assert load_teacher(path).class_names == ("cat", "dog", "eel")
    assert load_teacher(path, class_names="Katze,Hund,Aal").class_names == ("Katze", "Hund", "Aal")
    assert load_teacher(saved(tmp_path / "silent")).class_names is None


def test_a_committee_must_agree_on_its_classes(tmp_path: Path) -> None:
    saved(tmp_path / "all" / "a", "cat", "dog", "eel")
    saved(tmp_path / "all" / "b", seed=1)
    assert load_teacher(tmp_path / "all").class_names == ("cat", "dog", "eel")
    saved(tmp_path / "all" / "c", "dog", "cat", "eel", seed=2)
    with pytest.raises(TeacherError, match=r"calls class 0 'dog', and .* calls it 'cat'"):
        load_teacher(tmp_path / "all")
    assert load_teacher(tmp_path / "all", class_names="x,y,z").class_names == ("x", "y", "z")


def test_a_program_states_names_in_an_extra_file(
    module: nn.Module, tmp_path: Path, export_pt2: Callable[..., Path]
) -> None:
    path = tmp_path / "named.pt2"
    program = torch.export.export(module, (torch.rand(2, *SHAPE),))
    for said, names in (
        (json.dumps({"class_names": ["cat", "dog", "eel"]}), ("cat", "dog", "eel")),
        (json.dumps({"class_names": ["cat"]}), None),
        (json.dumps(["cat"]), None),
        ("[" * 5000, None),
    ):
        torch.export.save(program, path, extra_files={"dpsd.json": said})
        assert load_teacher(path).class_names == names
    assert load_teacher(export_pt2(module, tmp_path / "plain.pt2")).class_names is None


def test_names_stay_with_a_run_when_it_is_resumed(module: nn.Module, tmp_path: Path) -> None:
    names = ("cat", "dog", "eel")
    teacher = load_teacher(module, input_shape=SHAPE, class_names=names)
    run = dpsd.transcribe(
        teacher,
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=2.0, adjacency="round"),
        recipe=dpsd.Recipe(rounds=1, queries=30, generator_steps=1, epochs=1),
        out=tmp_path / "run",
    )
    assert run.certificate.class_names == run.directory.class_names() == names
    again = dpsd.resume(tmp_path / "run", load_teacher(module, input_shape=SHAPE))
    assert again.certificate == run.certificate
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "0 “cat”, 1 “dog”, 2 “eel”" in page
    facts = tmp_path / "run" / "student.json"
    facts.write_text(facts.read_text().replace("eel", "elk"))
    with pytest.raises(dpsd.RunError, match=r"student\.json was changed"):
        dpsd.RunDirectory.open(tmp_path / "run")

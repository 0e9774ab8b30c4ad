"""Every command's output can be written in any encoding, whatever signs that encoding lacks.

Commands run in this process, with streams of the encoding, as if the output was redirected.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from typer.testing import CliRunner

from dpsd.attacks import games
from dpsd.benchmarks import running
from dpsd.benchmarks.kept import Measured
from dpsd.benchmarks.methods import Outcome
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.versions import made_by
from dpsd.cli import app, demo
from dpsd.cli.console import _Spelling, grid
from dpsd.cli.encoding import SPELLED, settle, spelled
from dpsd.config.recipe import Recipe
from dpsd.datasets.labelled import LabelledImages
from dpsd.training import classifier

from .conftest import TINY

ENCODINGS = ("cp1252", "ascii", "latin-1")
#: Signs of dpsd that none of these encodings has.
LACKING = "εδ∞≤─│╭━"


class Redirected:
    """Runs command lines whose output is redirected, in an encoding."""

    def __init__(self, encoding: str) -> None:
        joins = "mix_stderr" in inspect.signature(CliRunner).parameters
        options: dict[str, Any] = {"mix_stderr": False} if joins else {}
        self._runner = CliRunner(charset=encoding, **options)

    def __call__(self, *arguments: object, code: int = 0) -> Result:
        result = self._runner.invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.stderr
        assert not any(sign in result.stdout + result.stderr for sign in LACKING)
        return result


@pytest.fixture(params=ENCODINGS)
def redirected(request: pytest.FixtureRequest) -> Redirected:
    return Redirected(request.param)


def leaves(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Every command of the app, as it is called."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, *path, name)
        else:
            yield (*path, name)


def all_commands() -> list[tuple[str, ...]]:
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    return list(leaves(group))


@dataclasses.dataclass(frozen=True)
class Place:
    """What the commands work on."""

    teacher: Path
    run: Path
    folder: Path


#: What each command is given; the slow ones run in one encoding only, the poorest.
ARGUMENTS: dict[tuple[str, ...], Callable[[Place], tuple[object, ...]]] = {
    ("inspect",): lambda at: (at.teacher,),
    ("transcribe",): lambda at: (at.teacher, "--epsilon", 4, "--out", at.folder / "run", *TINY),
    ("train-teacher",): lambda at: ("--data", "digits", "--epochs", 1, "--out", at.folder / "t"),
    ("evaluate",): lambda at: (at.run, "--data", "digits"),
    ("sample",): lambda at: (at.run, "--count", 20, "--out", at.folder / "synthetic"),
    ("export",): lambda at: (at.run, "--to", at.folder / "student.safetensors"),
    ("certify",): lambda at: (at.run,),
    ("watch",): lambda at: (at.run,),
    ("report",): lambda at: (at.run, "--out", at.folder / "page.html"),
    ("attack",): lambda at: (
        *(shutil.copytree(at.run, at.folder / "attacked"), "--data", "digits"),
        *("--kind", "copies", "--quick"),
    ),
    ("budget",): lambda at: (at.teacher, "--cap", "99,1e-5,round"),
    ("audit",): lambda at: ("--draws", 1000),
    ("bench",): lambda at: (
        *("scale", "--only", "digits/1/queries/8", "--share", 0.001),
        *("--out", at.folder),
    ),
    ("models",): lambda at: (),
    ("demo",): lambda at: ("--quick", "--out", at.folder / "demo"),
    ("federate", "simulate"): lambda at: (
        *(at.teacher, shutil.copytree(at.teacher, at.folder / "another"), "--epsilon", 4),
        *("--cap", "99,1e-5,round", "--out", at.folder / "federation", *TINY),
    ),
    ("federate", "client"): lambda at: (at.teacher, "--out", at.folder / "client"),
    ("data", "list"): lambda at: (),
    ("data", "fetch"): lambda at: ("mnist", "--root", at.folder),
}
SLOW = {
    ("federate", "simulate"),
    ("transcribe",),
    ("train-teacher",),
    ("audit",),
    ("attack",),
    ("demo",),
}


def measured(row: Row, settings: str, seed: int) -> Measured:
    """What a row of a benchmark would give, without waiting for it."""
    outcome = Outcome(seconds=1.0, accuracy=0.5)
    about: dict[str, Any] = {"peak_memory": 1, "hardware": "", "day": "", "made_by": made_by(row)}
    return Measured(row=row.key, settings=settings, seed=seed, outcome=outcome, **about)


@pytest.fixture
def place(
    teacher: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """Data to fetch that are there already, a demo of a few queries, a short audit."""
    content = b"\x00"
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "part").write_bytes(content)
    module = importlib.import_module("dpsd.datasets.fetch")  # its name is a function's, too
    source = module.Source(
        mirrors=(), checksums={"part": hashlib.md5(content).hexdigest()}, of_unpacked=False
    )
    monkeypatch.setitem(module.SOURCES, "mnist", source)
    scenes = demo._scenes

    def short(*arguments: Any, **options: Any) -> list[Any]:
        few = Recipe(rounds=1, queries=60, first_queries=60, student_steps=2, generator_steps=1)
        return [dataclasses.replace(scene, recipe=few) for scene in scenes(*arguments, **options)]

    monkeypatch.setattr(demo, "_scenes", short)
    monkeypatch.setattr(demo, "_MANY", 6)
    train = classifier.train_teacher
    monkeypatch.setattr(
        classifier, "train_teacher", lambda data, **how: train(data, **{**how, "epochs": 1})
    )
    few_games = games.standard_games(epsilon=1.0, delta=1e-5)[:2]
    monkeypatch.setattr(games, "standard_games", lambda **_: few_games)
    monkeypatch.setattr(running, "_run", measured)
    return Place(teacher, finished_run, tmp_path)


def test_no_command_is_forgotten() -> None:
    # A server waits for clients on a port, and these two are about one; they speak in tests of it.
    about_servers = {("federate", name) for name in ("server", "invite", "status")}
    assert set(ARGUMENTS) | about_servers == set(all_commands())


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=pytest.mark.thorough if command == ("demo",) else ())
        for command in ARGUMENTS
    ],
    ids=" ".join,
)
def test_every_command_can_say_what_it_has_to_say(
    redirected: Redirected, command: tuple[str, ...], place: Place
) -> None:
    if command in SLOW and redirected._runner.charset != "ascii":
        pytest.skip("slow: the poorest encoding stands for the others")
    redirected(*command, *ARGUMENTS[command](place))


@pytest.mark.parametrize("command", [(), ("data",), *all_commands()], ids=" ".join)
def test_every_help_is_shown_and_its_boxes_are_straight(
    redirected: Redirected, command: tuple[str, ...]
) -> None:
    shown = redirected(*command, "--help").stdout
    sides = {len(line) for line in shown.splitlines() if line.startswith(("|", "+"))}
    assert len(sides) == 1, sides


def test_every_form_of_a_certificate_is_what_its_readers_expect(
    redirected: Redirected, finished_run: Path
) -> None:
    assert "eps = 4 at delta = 1e-05" in redirected("certify", finished_run).stdout
    markdown = redirected("certify", finished_run, "--format", "markdown").stdout
    assert "**eps = 4 at delta = 1e-05, adjacency `response`**" in markdown
    page = redirected("certify", finished_run, "--format", "html").stdout
    assert page.isascii()
    assert "&#949; = 4" in page  # which says that it is UTF-8, and so is
    json.loads(redirected("certify", finished_run, "--format", "json").stdout)


def test_settings_are_printed_as_toml_that_says_the_same(redirected: Redirected) -> None:
    name = "modèle ε \N{GRINNING FACE}"
    printed = redirected("transcribe", name, "--epsilon", 1, "--print-config").stdout
    assert printed.isascii()
    assert tomllib.loads(printed)["teacher"] == name


def test_errors_are_shown_too(redirected: Redirected, tmp_path: Path) -> None:
    result = redirected("transcribe", "ε.onnx", "--epsilon", 1, "--out", tmp_path, code=4)
    assert "there is no eps.onnx" in result.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["cp1252", "C"],
)
def test_a_real_process_does_as_well(environment: dict[str, str]) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONIO", "LC_"))}
    done = subprocess.run(
        [sys.executable, "-m", "dpsd", "--help"],
        env={**inherited, **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"An eps means nothing without its adjacency" in b" ".join(done.stdout.split())
    assert b"+- Options -" in done.stdout


@given(st.text(), st.sampled_from([*ENCODINGS, "utf-8", "cp437", "utf-16", "shift-jis"]))
def test_any_text_can_be_printed_in_any_encoding(text: str, encoding: str) -> None:
    with io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") as stream:
        settle(stream, None, io.StringIO())
        stream.write(text)
        stream.flush()
    said = spelled(text, encoding)
    assert spelled(said, encoding) == said
    assert said == text or not text.isascii()


@given(st.text(st.characters(min_codepoint=0x2500, max_codepoint=0x257F)))
def test_boxes_keep_their_width(text: str) -> None:
    assert len(spelled(text, "ascii")) == len(text)


def test_a_file_name_that_is_no_text_is_shown_escaped() -> None:
    assert os.fsdecode(b"run-\xff").encode("utf-8", SPELLED) == b"run-\\udcff"


def test_columns_stay_aligned_when_their_signs_get_longer() -> None:
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as stream:
        settle(stream)
        table = grid("adjacency", "ε", "δ", right=("ε",))
        table.add_row("response", "≤ 2", "1")
        _Spelling(file=stream, markup=False, width=60).print(table)
        stream.flush()
        assert isinstance(stream.buffer, io.BytesIO)
        lines = stream.buffer.getvalue().decode("ascii").splitlines()
    assert lines[0].split() == ["adjacency", "eps", "delta"]
    assert lines[1].split() == ["response", "<=", "2", "1"]
    assert lines[0].index("delta") == lines[1].index("1")
    assert {cell_len(line.rstrip()) <= 60 for line in lines} == {True}


def test_names_of_classes_are_json_in_any_encoding(
    redirected: Redirected, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpsd import datasets

    load = datasets.load_dataset

    def named(*arguments: Any, **options: Any) -> LabelledImages:
        data = load(*arguments, **options)
        return dataclasses.replace(data, class_names=tuple(f"ε{n} é" for n in range(10)))

    monkeypatch.setattr(datasets, "load_dataset", named)
    shown = redirected("evaluate", finished_run, "--data", "digits", "--json").stdout
    assert [row["name"] for row in json.loads(shown)["classes"]][1] == "ε1 é"

"""Mistakes and lists are told before anything waits for what takes seconds to import.

Each command runs in a process of its own, which lists its modules as it ends. Nothing is timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dpsd.benchmarks.names import SUITE_NAMES
from dpsd.benchmarks.suites.registry import SUITES
from dpsd.datasets import registry
from dpsd.datasets.published import ARRAYS, HOMES, LOOSE
from dpsd.models import generators, names
from dpsd.models import registry as models
from dpsd.synthesis.mixture import SOURCES
from dpsd.synthesis.names import DRAWN, FOLDER
from dpsd.synthesis.photographs import Folder

#: What takes long to import, and what no mistake or list needs.
SLOW = {
    "torch",
    "numpy",
    "scipy",
    "sklearn",
    "dp_accounting",
    "matplotlib",
    "PIL",
    "safetensors",
    "urllib3",
    "transformers",
    "huggingface_hub",
    "flwr",
}

_RUN = """
import atexit, json, sys
from pathlib import Path

def tell():
    Path(sys.argv[1]).write_text(json.dumps(sorted(sys.modules)))

atexit.register(tell)
from dpsd.cli import app
app(sys.argv[2:], prog_name="dpsd")
"""

SETTINGS = "teacher = 'nowhere'\nepsilon = 1.0\n"
STARTING = ("--epsilon", "1", "--out", "run")


def run(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """What a command says, and the packages that it imported."""
    modules = folder / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(modules), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, {name.partition(".")[0] for name in json.loads(modules.read_text())}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("transcribe", "--help"),
        ("bench", "--help"),
        ("attack", "--help"),
        ("federate", "--help"),
        ("federate", "simulate", "--help"),
        ("federate", "server", "--help"),
        ("federate", "client", "--help"),
        ("models",),
        ("data", "list"),
        ("transcribe", "teacher", "--epsilon", "1", "--print-config"),
        ("transcribe", "--config", "settings.toml", "--print-config"),
    ],
    ids=" ".join,
)
def test_lists_and_help_import_nothing_slow(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    done, imported = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not imported & SLOW


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("transcribe", "teacher", "--epsilon", "one", "--out", "run"), 2, "'--epsilon': 'one'"),
        (("transcribe", "teacher", "--epsilon", "-1", "--out", "run"), 2, "--epsilon must be"),
        (("transcribe", "teacher", "--epsilno", "1", "--out", "run"), 2, "--epsilno"),
        (("transcribe", "teacher", "--protect", "all", *STARTING), 2, "'all' is not one of"),
        (("transcribe", "teacher", "--candidates", "1", *STARTING), 2, "--candidates must be"),
        (
            ("transcribe", "teacher", "--cap", "x", *STARTING),
            2,
            "--cap: 'x' is not a privacy target",
        ),
        (("transcribe", "teacher", "--student", "cn", *STARTING), 2, "did you mean 'cnn'"),
        (("transcribe", "teacher", "--generator", "dcgna", *STARTING), 2, "did you mean 'dcgan'"),
        (("transcribe", "teacher", "--sources", "nosie", *STARTING), 2, "did you mean 'noise'"),
        (("transcribe", "teacher", "--top-k", "3", *STARTING), 2, "--top-k is 3"),
        (("transcribe", "teacher", "--mean", "0.5", *STARTING), 2, "--mean and --deviation"),
        (("transcribe", "teacher", "--class-names", "a,a", *STARTING), 2, "--class-names: 'a' is"),
        (
            ("transcribe", "teacher", "--class-names", "@no", *STARTING),
            2,
            "--class-names: no cannot",
        ),
        (("transcribe", "nowhere", *STARTING), 4, "there is no nowhere"),
        (("transcribe", "hf:own/net", *STARTING), 4, "run `hf download own/net --local-dir net`"),
        (("transcribe", "hf:empty", *STARTING), 4, "empty has no config.json"),
        (("budget", "hf:empty"), 4, "empty has no config.json"),
        (("transcribe", "nowhere.onnx", *STARTING), 4, "there is no nowhere.onnx"),
        (("transcribe", "settings.toml", *STARTING), 4, "settings.toml is not of a known kind"),
        (("transcribe", "empty", *STARTING), 4, "empty has no teacher.json"),
        (("transcribe", "--config", "settings.toml", "--out", "run"), 4, "there is no nowhere"),
        (("transcribe", "--resume", "empty"), 5, "empty is not a run directory"),
        (("certify", "empty"), 5, "empty is not a run directory"),
        (("evaluate", "empty", "--data", "mnist"), 5, "empty is not a run directory"),
        (("evaluate", "run-like", "--data", "mnits"), 2, "unknown data set 'mnits'"),
        (("watch", "empty"), 5, "empty is not a run directory"),
        (("report", "empty"), 5, "empty is not a run directory"),
        (("report", "run-like", "--public", "--evaluation", "x"), 2, "which --public leaves out"),
        (("attack", "empty", "--data", "mnist"), 5, "empty is not a run directory"),
        (("attack", "run-like", "--data", "mnits"), 2, "unknown data set 'mnits'"),
        (("attack", "run-like", "--data", "mnist", "--kind", "copy"), 2, "did you mean 'copies'"),
        (("attack", "run-like", "--data", "mnist", "--kind", ","), 2, "--kind is empty; give some"),
        (("attack", "run-like", "--data", "x.npz", "--size", "x"), 2, "--size is 'x'"),
        (("attack", "run-like", "--data", "mnist", "--also", "nowhere"), 4, "--also: there is no"),
        (("attack", "run-like", "--data", "mnist", "--also", "student=x"), 2, "--also NAME=PATH"),
        (("sample", "empty"), 5, "empty is not a run directory"),
        (("export", "empty", "--to", "student.onnx"), 5, "empty is not a run directory"),
        (("export", "run-like", "--to", "student.pkl"), 2, "--to: 'student.pkl' does not name"),
        (("train-teacher", "--data", "mnits", "--out", "t"), 2, "unknown data set 'mnits'"),
        (("train-teacher", "--data", "digits", "--model", "cn", "--out", "t"), 2, "'cnn'"),
        (("train-teacher", "--data", "mnist", "--size", "x", "--out", "t"), 2, "--size is 'x'"),
        (("data", "fetch", "mnits"), 2, "unknown data set to fetch 'mnits'"),
        (("data", "fetch", "cifar10"), 2, "get it from https://www.cs.toronto.edu"),
        (
            ("train-teacher", "--data", "x.npz", "--value-range", "1", "--out", "t"),
            2,
            "is '1'; give",
        ),
        (("transcribe", "https://h/v2/models/m", *STARTING), 2, "say with --budget-file"),
        (("transcribe", "https://h/models/m", *STARTING), 4, "is not the address of a model"),
        (("budget", "https://u:p@h/v2/models/m"), 4, "credentials do not belong"),
        (("budget", "nowhere"), 4, "there is no nowhere"),
        (("budget", "nowhere", "--cap", "1,2"), 2, "--cap: '1,2' is not a privacy target"),
        (("bench", "sped"), 2, "unknown suite 'sped'"),
        (("bench", "speed", "--data", "mnits"), 2, "unknown data set 'mnits'"),
        (("bench", "speed", "--set", "queries"), 2, "write FIELD=VALUE"),
        (("audit", "--draws", "1"), 2, "--draws"),
        (("federate", "simulate", *STARTING), 2, "say who the clients are"),
        (("federate", "simulate", "nowhere", *STARTING), 4, "there is no nowhere"),
        (("federate", "simulate", "--data", "mnits", *STARTING), 2, "unknown data set 'mnits'"),
        (("federate", "simulate", "--resume", "empty"), 2, "is not of a federation"),
        (("federate", "server", "--out", "run"), 2, "--input-shape is required"),
        (
            (
                *("federate", "server", "--input-shape", "1,8,8", "--num-classes", "3"),
                *("--address", "hub", "--out", "run"),
            ),
            2,
            "--address is 'hub'",
        ),
        (("federate", "client", "teacher"), 2, "with --out"),
        (("federate", "client", "t", "--out", "run", "--invitation", "i"), 2, "there is no i"),
        (("federate", "status", "empty"), 5, "is not the directory of a federation"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_told_before_anything_slow_is_imported(
    arguments: tuple[str, ...], code: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "run-like").mkdir()
    (tmp_path / "run-like" / "config.toml").write_text(SETTINGS)
    done, imported = run(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert words in " ".join(done.stderr.split())
    assert done.stderr.startswith("error: ")
    assert not imported & SLOW
    assert not (tmp_path / "run").exists()


def test_light_names_are_those_that_are_built() -> None:
    assert names.model_names() == sorted(models._CLASSIFIERS)
    assert names.generator_names() == sorted(generators._GENERATORS)
    assert list(DRAWN) == list(SOURCES)
    assert Folder.name == FOLDER
    assert list(SUITE_NAMES) == list(SUITES)
    assert ARRAYS.keys() == registry._FIXED.keys()
    assert HOMES.keys() == (ARRAYS.keys() | LOOSE.keys()) - {"digits"}

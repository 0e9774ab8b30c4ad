"""The wheel works alone: it holds the package, nothing else, and plays the demo by itself.

It is built without a network from a copy of what is under version control, installed into an empty
folder, and run from there in a process that finds no other dpsd first.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import dpsd

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "dpsd"

#: What makes up the package, beside its modules; forgotten in a wheel, each is missed only later.
DATA = {"py.typed", "privacy/records/certificate.schema.json"} | {
    f"reporting/{name}.j2"
    for name in ("certificate.html", "report.html", "report.css", "report.js", "model-card.md")
}


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as ``pip`` does for a user, but with the setuptools that is here."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        PACKAGE, source / "src" / "dpsd", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel")
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir")
    run(*pip, *flags, "--wheel-dir", folder, source, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed") / "site"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install")
    run(*pip, "--no-deps", "--no-index", "--target", target, wheel, cwd=wheel.parent)
    return target


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    dist_info = f"dpsd-{dpsd.__version__}.dist-info"
    inside = {name.removeprefix("dpsd/") for name in names if name.startswith("dpsd/")}
    there = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert inside == there
    assert inside >= DATA
    others = {name for name in names if not name.startswith("dpsd/")}
    assert {name.split("/")[0] for name in others} == {dist_info}  # no tests, no benchmarks
    assert f"{dist_info}/licenses/LICENSE" in others


def test_its_description_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode("utf-8"))
    assert metadata["Name"] == "dpsd"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "dpsd: privacy-preserving model transcription" in str(metadata.get_payload())
    # Whoever installs the package needs nothing that only its developers use.
    always = [name for name in metadata.get_all("Requires-Dist", []) if "extra ==" not in str(name)]
    assert any(str(name).startswith("torch") for name in always)
    assert not [
        name for name in always if str(name).startswith(("pytest", "mkdocs", "ruff", "opacus"))
    ]


def test_it_runs_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    def python(*arguments: str) -> str:
        return run(sys.executable, *arguments, cwd=tmp_path, PYTHONPATH=str(installed))

    assert python("-c", "import dpsd; print(dpsd.__file__)").strip() == str(
        installed / "dpsd" / "__init__.py"
    )
    assert python("-m", "dpsd", "--version").strip() == f"dpsd {dpsd.__version__}"
    for command in ("transcribe", "certify", "demo"):
        assert command in python("-m", "dpsd", "--help")
        assert "--" in python("-m", "dpsd", command, "--help")


@pytest.mark.thorough
def test_it_plays_the_demo_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    said = run(
        *(sys.executable, "-m", "dpsd", "demo", "--quick", "--out", "demo"),
        cwd=tmp_path,
        PYTHONPATH=str(installed),
        XDG_DATA_HOME=str(tmp_path / "user-data"),
    )
    assert "protecting labels  protecting data  protecting records" in said
    for protects in ("labels", "data", "records"):
        files = {path.name for path in (tmp_path / "demo" / protects).iterdir()}
        assert {"certificate.json", "report.html", "student.safetensors"} <= files
    # What its page says to make again can be made again.
    again = re.search(
        r"dpsd (transcribe --config labels/\S+ --out \S+)",
        (tmp_path / "demo" / "report.html").read_text("utf-8"),
    )
    assert again is not None
    run(
        *(sys.executable, "-m", "dpsd", *again[1].split()),
        cwd=tmp_path / "demo",
        PYTHONPATH=str(installed),
    )
    assert (tmp_path / "demo" / "labels-again" / "certificate.json").is_file()
    # The templates and the schema are found where they were installed.
    page = run(
        *(sys.executable, "-m", "dpsd", "certify", "demo/records", "--format", "html"),
        cwd=tmp_path,
        PYTHONPATH=str(installed),
    )
    assert "record-level" in page

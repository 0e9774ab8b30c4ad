"""The documents list every exit code that the command line has, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from dpsd import errors
from dpsd.cli.errors import BUG, INTERRUPTED, NO_RESOURCES, USAGE
from dpsd.errors import DpsdError

ROOT = Path(__file__).parents[2]


def exit_codes() -> set[int]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    own = {kind.exit_code for kind in kinds if issubclass(kind, DpsdError)}
    return own | {USAGE, NO_RESOURCES, BUG, INTERRUPTED}


def test_the_reference_lists_them() -> None:
    text = ROOT.joinpath("docs/reference/command-line.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d+) \|", text, re.MULTILINE)
    assert sorted(map(int, listed)) == sorted({0} | exit_codes())


def test_the_readme_lists_them() -> None:
    text = ROOT.joinpath("README.md").read_text(encoding="utf-8")
    sentence = re.search(r"The exit code is (.*?)\. `DPSD_DEBUG", text, re.DOTALL)
    assert sentence is not None
    assert {int(number) for number in re.findall(r"\b\d+\b", sentence[1])} == exit_codes()

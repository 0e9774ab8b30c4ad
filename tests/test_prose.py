"""The prose of the package: descriptions are sentences about a thing, and help shows an example.

A description that begins with "of" says whose a thing is and not what it is, and "likewise" says
nothing away from its neighbour, which is how editors, ``help()`` and the reference show it.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

import dpsd
from dpsd.cli.app import INTRODUCTION, app
from dpsd.cli.inspecting import command as inspecting
from dpsd.cli.transcribe import command as transcribe

ROOT = Path(inspect.getfile(dpsd)).parent

_ARGUMENT = re.compile(r"^ {4,}[\w, *]+: (.*)$", re.MULTILINE)
_DESCRIBING = ("description", "help")


def descriptions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings, descriptions of arguments in them, and those given to fields and flags."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                line = getattr(node, "lineno", 1)
                yield line, text
                yield from ((line, found) for found in _ARGUMENT.findall(text))
        elif isinstance(node, ast.keyword) and node.arg in _DESCRIBING:
            value = getattr(node.value, "value", None)
            if isinstance(value, str):
                yield node.value.lineno, value


def says_nothing_alone(text: str) -> bool:
    return text.lower().startswith("of ") or re.match(r"likewise\b", text, re.I) is not None


@pytest.mark.parametrize(
    "text", ["Of a race alone.", "of the directory.", "likewise.", "Likewise, K."]
)
def test_fragments_are_found(text: str) -> None:
    assert says_nothing_alone(text)


def test_descriptions_say_what_a_thing_is() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in sorted(ROOT.rglob("*.py"))
        for line, text in descriptions(ast.parse(path.read_text(encoding="utf-8")))
        if says_nothing_alone(text)
    ]
    assert not wrong, "\n".join(wrong)


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group, with what is typed to call it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join([*path, name]), command


def test_the_help_of_every_command_shows_how_to_call_it() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    helps = {name: command.help or "" for name, command in commands(group)}
    # These stand in for themselves until they are used.
    helps["transcribe"] = transcribe().help or ""
    helps["inspect"] = inspecting().help or ""
    lacking = [name for name, text in helps.items() if f"Example: dpsd {name}" not in text]
    assert not lacking, f"no example in the help of {', '.join(lacking)}"
    assert "dpsd transcribe " in INTRODUCTION

"""What the documentation shows is true: its commands exist, and all of its Python is run.

``make docs`` builds the site, plays every page (``play.py``) and runs its doctests, which takes
minutes. What can be checked in seconds is checked here.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
import typer

import dpsd
from dpsd.cli import app

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SITE = sorted(ROOT.joinpath("docs").rglob("*.md"))
PAGES = [*SITE, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]


def _player() -> ModuleType:
    spec = importlib.util.spec_from_file_location("play", HERE / "play.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["play"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


play = _player()


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of every ``dpsd`` command that a page shows in a block."""
    for block in play.blocks(page.read_text(encoding="utf-8")):
        if block.language not in ("", "sh"):
            continue
        text = block.text.replace("\\\n", " ")
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["dpsd"]:
                # What follows belongs to the shell; an ellipsis stands for what was said before.
                ends = [at for at, word in enumerate(words) if word in ("&", "|", ">", ";", "…")]
                yield words[1 : min(ends, default=len(words))]


def understood(arguments: list[str]) -> None:
    """Have click read a command line, without running anything."""
    command: click.Command = typer.main.get_command(app)
    rest = list(arguments)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        if found is None:
            raise click.UsageError(f"no such command: {rest[0]}")
        command, rest = found, rest[1:]
    command.make_context("dpsd", rest)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_exists_with_its_flags(page: Path) -> None:
    for arguments in commands(page):
        try:
            understood(arguments)
        except click.exceptions.Exit:  # --version, --help
            pass
        except click.UsageError as error:
            pytest.fail(f"dpsd {shlex.join(arguments)}: {error.format_message()}")


def test_commands_are_found_and_wrong_ones_noticed() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 40
    for wrong in (["transcribe", "teacher", "--epsilons", "1"], ["transcript"], ["data", "lists"]):
        with pytest.raises(click.UsageError):
            understood(wrong)


@pytest.mark.parametrize("page", SITE, ids=named)
def test_all_python_on_the_site_is_run(page: Path) -> None:
    """By doctest, or as a file that a block of commands runs."""
    text = page.read_text(encoding="utf-8")
    played = [block for block in play.blocks(text) if block.language == "sh" and not block.how]
    for block in play.blocks(text):
        if block.language in ("python", "pycon") and block.title is None:
            assert block.text.startswith(">>> "), f"{page}, line {block.line}: who runs this?"
            # Doctest takes the closing fence for expected output unless a blank line is before it.
            assert block.text.endswith("\n\n"), f"{page}, line {block.line}: end with a blank line"
        elif block.title is not None:
            factory = f"{block.title.removesuffix('.py')}:"  # as dpsd imports it
            assert any(block.title in other.text or factory in other.text for other in played), (
                f"nobody runs {block.title}"
            )


def test_the_reference_has_every_public_name() -> None:
    text = "".join(
        page.read_text(encoding="utf-8") for page in ROOT.joinpath("docs/reference").glob("*.md")
    )
    shown = {line.removeprefix("::: dpsd.") for line in text.splitlines() if line[:4] == "::: "}
    assert set(dpsd.__all__) - shown == set()


def test_the_reference_has_every_command() -> None:
    text = ROOT.joinpath("docs/reference/command-line.md").read_text(encoding="utf-8")
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    for name in group.commands:
        assert f"| `dpsd {name}` |" in text


PAGE = """
```python title="say.py"
print("hello")
```

```sh
python say.py > said
```

<!-- {how}: because -->
```sh
{command}
```
"""


def test_a_page_is_played_in_its_folder(tmp_path: Path) -> None:
    page = PAGE.format(how="not run", command="exit 1")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    assert play.play(page, tmp_path, environment={"PATH": path}) == 1
    assert (tmp_path / "said").read_text() == "hello\n"
    refused = PAGE.format(how="refused", command="exit 2")
    assert play.play(refused, tmp_path, environment={"PATH": path}) == 2


@pytest.mark.parametrize(
    ("how", "command"),
    [
        ("refused", "true"),
        ("refused", "exit 70"),
        ("ignored", "exit 1"),
        ("ignored", "false | cat"),
    ],
)
def test_a_page_that_does_not_do_what_it_says_fails(how: str, command: str, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    with pytest.raises(play.UnplayableError, match="line 11: exit code"):
        play.play(PAGE.format(how=how, command=command), tmp_path, environment={"PATH": path})

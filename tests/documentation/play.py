"""Plays pages of the documentation as a reader would: ``make docs`` plays all that have commands.

Each page is played from top to bottom in an empty folder of its own. A block of ``sh`` is run by
bash and must succeed; a block of Python with a title is written to a file of that name. A comment
in front of a block of ``sh`` changes that::

    <!-- refused: why -->    its last command must fail, with dpsd's exit code for what is refused
    <!-- not run: why -->    it is not run

Python with ``>>>`` is not played here: doctest runs it.

    python tests/documentation/play.py docs/tutorial.md docs/how-to/*.md
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:^<!-- (?P<how>refused|not run): (?P<why>[^\n]+) -->\n)?"
    r'^```(?P<language>\w*)(?: title="(?P<title>[\w.-]+)")?[^\n]*\n'
    r"(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

#: Exit codes with which dpsd refuses: a wrong argument or budget, data, a teacher, a run.
REFUSED = (2, 3, 4, 5)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the line that it begins in."""

    line: int
    language: str
    text: str
    title: str | None
    how: str | None


class UnplayableError(Exception):
    """A page that does not do what it says; the message names the line."""


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order.

    >>> page = "<!-- not run: slow -->\\n```sh\\nls\\n```\\n"
    >>> [(block.line, block.language, block.how) for block in blocks(page)]
    [(2, 'sh', 'not run')]
    """
    for found in _BLOCK.finditer(page):
        fence = found.start("language")
        yield Block(
            line=page.count("\n", 0, fence) + 1,
            language=found["language"],
            text=found["text"],
            title=found["title"],
            how=found["how"],
        )


def play(page: str, folder: Path, *, environment: Mapping[str, str] = os.environ) -> int:
    """Play a page in a folder, and say how many blocks of commands were run.

    Raises:
        UnplayableError: a block fails, or one that must be refused is not.
    """
    played = 0
    for block in blocks(page):
        if block.title is not None:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        if block.language != "sh" or block.how == "not run":
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wanted = REFUSED if block.how == "refused" else (0,)
        if done.returncode not in wanted:
            expected = "a refusal" if block.how == "refused" else "success"
            raise UnplayableError(
                f"line {block.line}: exit code {done.returncode} instead of {expected}\n"
                f"{block.text}{done.stdout[-3000:]}"
            )
        played += 1
    return played


def main() -> int:
    """Play the pages that are named; exit code 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="+", type=Path)
    failed = 0
    for path in parser.parse_args().pages:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            # The commands of the environment that plays, and budgets that nobody else reads.
            environment = os.environ | {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "XDG_DATA_HOME": f"{folder}/.user-data",
            }
            try:
                played = play(
                    path.read_text(encoding="utf-8"), Path(folder), environment=environment
                )
            except UnplayableError as error:
                failed += 1
                print(f"{path}, {error}", flush=True)
            else:
                seconds = time.monotonic() - started
                print(f"{path}: {played} blocks played in {seconds:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

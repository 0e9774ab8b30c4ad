"""The output of the command line: results go to stdout, progress and problems to stderr.

Nothing is interpreted as markup, so a path with brackets is shown unchanged.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dpsd.cli.encoding import can_say_all, spelled
from dpsd.reporting.terminals import SteadyConsole


class _Spelling(Console):
    """A console that spells what its output's encoding lacks before it lays a text out."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Convert a string to a text, with signs that the output has."""
        return super().render_str(spelled(text, self.encoding), **how)


class _Status(_Spelling, SteadyConsole):
    """A console for progress, which is shown while a teacher answers."""


RESULTS = _Spelling(markup=False, emoji=False, highlight=False)
STATUS = _Status(stderr=True, markup=False, emoji=False, highlight=False)


def say(text: str = "", style: str | None = None) -> None:
    """Print a line of the result, unbroken, so that commands in it can be copied."""
    RESULTS.print(text, style=style, soft_wrap=True)


def complain(kind: str, message: str, style: str) -> None:
    """Print ``kind: message`` on stderr, on one line."""
    text = Text(f"{kind}: ", style=style)
    text.append(spelled(" ".join(message.split()), STATUS.encoding), style="default")
    STATUS.print(text, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    complain("warning", message, "bold yellow")


def hint(message: str) -> None:
    """Print what to do next on stderr."""
    complain("hint", message, "bold cyan")


def say_json(value: object) -> None:
    """Print a value as JSON, in which signs that the output's encoding lacks are escaped."""
    say(json.dumps(value, indent=2, ensure_ascii=not can_say_all(RESULTS.file)))


def say_toml(text: str) -> None:
    """Print TOML, which is read as UTF-8: other encodings get their signs as escapes.

    Args:
        text: TOML whose signs beyond ASCII are all in basic strings.
    """
    if not can_say_all(RESULTS.file):
        escaped = (sign if sign.isascii() else f"\\U{ord(sign):08X}" for sign in text)
        text = "".join(escaped)
    say(text.rstrip())


def put_page(html: str) -> None:
    """Print a page that says that it is UTF-8: other encodings get their signs as references."""
    if not can_say_all(RESULTS.file):
        html = html.encode("ascii", "xmlcharrefreplace").decode()
    RESULTS.file.write(html)


@contextmanager
def shown_warnings(show: Callable[[str], None] = warn) -> Iterator[None]:
    """Show the warnings that dpsd raises, once each and without the line of code."""
    with warnings.catch_warnings():
        warnings.simplefilter("once", UserWarning)

        def show_one(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            if category is UserWarning:
                show(str(message))

        warnings.showwarning = show_one
        yield


def grid(*headings: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table in dpsd's style; columns named in ``right`` are right-aligned."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left")
    return table


def show(table: Table) -> None:
    """Print a table of the result."""
    RESULTS.print(table)

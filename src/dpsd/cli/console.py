"""The output of the command line: results go to stdout, progress and problems to stderr.

Nothing is interpreted as markup, so a path with brackets is shown unchanged.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text


class _Status(Console):
    """A console that asks the terminal it writes to for the terminal's size.

    Rich asks the standard streams, which are redirected while a teacher answers, so a bar would be
    drawn as if the terminal had eighty columns.
    """

    @property  # type: ignore[misc]  # never set
    def size(self) -> ConsoleDimensions:
        if "COLUMNS" not in os.environ:
            with suppress(OSError, ValueError, AttributeError):
                return ConsoleDimensions(*os.get_terminal_size(self.file.fileno()))
        return super().size


RESULTS = Console(markup=False, highlight=False)
STATUS = _Status(stderr=True, markup=False, highlight=False)


def say(text: str = "", style: str | None = None) -> None:
    """Print a line of the result, unbroken, so that commands in it can be copied."""
    RESULTS.print(text, style=style, soft_wrap=True)


def complain(kind: str, message: str, style: str) -> None:
    """Print ``kind: message`` on stderr, on one line."""
    text = Text(f"{kind}: ", style=style)
    text.append(" ".join(message.split()), style="default")
    STATUS.print(text, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    complain("warning", message, "bold yellow")


def hint(message: str) -> None:
    """Print what to do next on stderr."""
    complain("hint", message, "bold cyan")


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

"""Figures: one drawing, as SVG in a web page and as SVG and PNG files for papers.

Drawings use the colours that are named here. In a page, each of them becomes a variable of the
page's style sheet, so that the same figure is readable on light and on dark paper.

>>> blank = Figure(name="blank", title="Nothing", finding="There is nothing.", drawn=canvas(2, 1))
>>> blank.svg.startswith('<svg aria-hidden="true"')
True
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dpsd.errors import RunError, unwritable
from dpsd.storage.files import replacing

#: The colours of drawings on white paper, by the names that the style sheets of pages give them.
INK, QUIET = "#1c2127", "#57606a"
SERIES = ("#1d5fbf", "#b04a00", "#0b7261", "#7a35c9")
_VARIABLES = {INK: "--ink", QUIET: "--quiet"} | {
    color: f"--series-{number}" for number, color in enumerate(SERIES, start=1)
}
#: The marks and lines of series, which are told apart without colours too.
MARKS, LINES = ("o", "s", "^", "D"), ("-", "--", "-.", ":")

_STYLE = {
    "svg.hashsalt": "dpsd",
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": QUIET,
    "grid.alpha": 0.25,
}
#: The resolution of PNG files.
_DPI = 300
#: Inches around drawings whose labels are known: for half a number at the right, for an axis with
#: its name below, and for a title above.
_MARGIN, _BELOW, _ABOVE = 0.3, 0.5, 0.3
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}

#: The most letters of a part of the name of a file.
_LONGEST = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
    """A drawing with what must stand beside it.

    Args:
        name: a short name, which is that of its files too.
        title: what is drawn, in a few words.
        finding: what can be seen, in full sentences: the alternative text.
        drawn: the figure of matplotlib.
        headings: the headings of the table with the numbers that are drawn.
        rows: the rows of that table.
    """

    name: str
    title: str
    finding: str
    drawn: Any
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    @cached_property
    def svg(self) -> str:
        """The drawing for a page, whose style sheet decides the colours."""
        with styled():
            text = io.StringIO()
            self.drawn.savefig(text, format="svg", metadata=_NO_METADATA, transparent=True)
        svg = text.getvalue()
        svg = svg[svg.index("<svg") :]
        # HTML needs no namespaces. Names are made unique, as a page may hold several drawings.
        svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{self.name}-", svg)
        for color, variable in _VARIABLES.items():
            svg = svg.replace(color, f"var({variable})")
        return svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)

    def save(self, folder: Path) -> list[Path]:
        """Write the drawing as SVG and PNG, and return the two paths.

        Raises:
            RunError: the folder cannot be created, or the disk is full.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(
                error, f"{folder} cannot be created", mend="give another place", kind=RunError
            ) from None
        paths = [folder / f"{self.name}.{format}" for format in ("svg", "png")]
        with styled():
            for path in paths:
                with replacing(path) as temporary:
                    self.drawn.savefig(
                        temporary, format=path.suffix[1:], dpi=_DPI, metadata=_metadata(path)
                    )
        return paths


def canvas(width: float, height: float, *, left: float | None = None) -> Any:
    """Return an empty figure of matplotlib, whose sides are in inches.

    Args:
        width: the width.
        height: the height.
        left: what is left for the numbers beside each drawing, if that is known. Else there is as
            much room as labels need, for which everything is drawn twice.
    """
    # The object interface is used, as pyplot would pick a window system and keep the figure alive.
    from matplotlib.figure import Figure as Drawing

    if left is None:
        return Drawing(figsize=(width, height), layout="constrained")
    drawn = Drawing(figsize=(width, height))
    drawn.subplots_adjust(
        left=left / width,
        right=1 - _MARGIN / width,
        bottom=_BELOW / height,
        top=1 - _ABOVE / height,
    )
    return drawn


def plain(name: str) -> str:
    """Return a name, such as a class's, as text that is not taken for a formula.

    >>> plain("A$ & B$")
    'A\\\\$ & B\\\\$'
    """
    return name.replace("$", r"\$")


def styled_axes(drawn: Any, rows: int, columns: int, index: int) -> Any:
    """Return new axes in dpsd's style: thin lines, and no frame at the top and the right."""
    with styled():
        axes = drawn.add_subplot(rows, columns, index)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def styled() -> Any:
    """Return a context in which what is drawn has dpsd's style."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)  # type: ignore[arg-type, unused-ignore]


def _metadata(path: Path) -> dict[str, None]:
    return _NO_METADATA if path.suffix == ".svg" else {"Software": None}


def in_file_name(text: str) -> str:
    """Return what of a text is fit for the name of a file everywhere, and for an address in a page.

    >>> in_file_name("runs/My run, ε = 1"), in_file_name("ε")
    ('runs-my-run-1', '')
    """
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:_LONGEST].strip("-")

"""Measured rows as figures: a dot a row, a panel for each thing that varies, or curves over time.

Colours are one for what is measured and one for what is only quoted, told apart by their shape too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from itertools import cycle, groupby
from pathlib import Path
from typing import Any

from dpsd.benchmarks.methods import Unit
from dpsd.benchmarks.racing import Race
from dpsd.benchmarks.tables import Summary

_BLUE, _GREY, _ORANGE = "#2457a8", "#555555", "#c2571a"
_QUOTED: dict[str, Any] = {"color": _ORANGE, "marker": "D", "fillstyle": "none", "linestyle": ""}
#: Colours and markers of a panel's curves.
_SERIES = ((_BLUE, "o"), (_ORANGE, "s"), (_GREY, "^"))
_PANELS_A_ROW = 4
#: The most characters in a line of a row's label.
_LABEL_WIDTH = 60


def draw(kind: str, title: str, summaries: Sequence[Summary], path: Path) -> None:
    """Save a figure as PNG; ``kind`` is ``dots``, ``panels`` or ``curves``."""
    import matplotlib

    with matplotlib.rc_context({"font.size": 8, "figure.dpi": 110}):
        figure = {"dots": _dots, "panels": _panels, "curves": _curves}[kind](summaries)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        figure.savefig(path, metadata={"Software": None})


def _dots(summaries: Sequence[Summary]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    # Names of changed settings may be longer than the figure is wide.
    labels = [textwrap.fill(_label(summary), _LABEL_WIDTH) for summary in summaries]
    lines = max(label.count("\n") + 1 for label in labels)
    figure = Figure(figsize=(8, 1.2 + 0.24 * lines * len(summaries)), layout="constrained")
    axes = figure.subplots()
    for place, summary in enumerate(summaries):
        if summary.mean is not None:
            spread = summary.spread or 0.0
            axes.errorbar(
                summary.mean, place, xerr=spread, color=_BLUE, marker="o", markersize=5, capsize=2
            )
        if summary.row.published is not None:
            axes.plot(summary.row.published, place, **_QUOTED)
    axes.plot([], [], color=_BLUE, marker="o", linestyle="", label="measured here")
    if any(summary.row.published is not None for summary in summaries):
        axes.plot([], [], **_QUOTED, label="as published")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    axes.set_yticks(range(len(summaries)), labels)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("accuracy")  # the title says so where it is not that on the test split
    axes.set_xlim(right=min(axes.get_xlim()[1], 1.01))  # no margin beyond all
    _plain(axes, grid="x")
    return figure


def _label(summary: Summary) -> str:
    row = summary.row
    about = "not private" if row.method.unit is Unit.NOTHING else row.method.unit.value
    if row.target is not None:
        about = f"ε = {row.target.epsilon:g}, {about}"
    return " · ".join(filter(None, (row.task.data, row.panel, row.name, about)))


def _panels(summaries: Sequence[Summary]) -> Any:
    from matplotlib.figure import Figure

    has_accuracy = any(summary.mean is not None for summary in summaries)
    drawn: list[tuple[str, list[Summary], Callable[[Axes, list[Summary]], None]]] = []
    for panel, group in groupby(summaries, key=lambda summary: summary.row.panel):
        parts = list(group)
        if has_accuracy:
            drawn.append((f"{panel}\n{_privacy(parts)}", parts, _accuracy_curves))
        else:
            drawn.append((f"{panel}: seconds", parts, _seconds_curve))
            drawn.append((f"{panel}: peak memory (MB)", parts, _memory_curve))
    columns = min(_PANELS_A_ROW, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(2.3 * columns, 0.5 + 1.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=has_accuracy)
    for axes, (name, parts, curve) in zip(grid.flat, drawn, strict=False):
        curve(axes, parts)
        axes.set_title(name, loc="left", fontsize=8)
        _plain(axes, grid="y")
    for axes in grid.flat[len(drawn) :]:
        axes.set_visible(False)
    return figure


Axes = Any


def _privacy(parts: list[Summary]) -> str:
    """What a panel's ε is, where it is one, and what it is about."""
    epsilons = {part.row.target.epsilon for part in parts if part.row.target}
    about = parts[0].row.method.unit.value
    return f"ε = {epsilons.pop():g}, {about}" if len(epsilons) == 1 else f"about {about}"


def _accuracy_curves(axes: Axes, parts: list[Summary]) -> None:
    from matplotlib.ticker import PercentFormatter

    known = [part for part in parts if part.mean is not None]
    values = list(dict.fromkeys(_value(part) for part in known))
    names = list(dict.fromkeys(part.row.series for part in known))
    for name, (color, marker) in zip(names, cycle(_SERIES), strict=False):
        curve = [part for part in known if part.row.series == name]
        axes.errorbar(
            [values.index(_value(part)) for part in curve],
            [part.mean for part in curve],
            yerr=[part.spread or 0.0 for part in curve],
            color=color,
            marker=marker,
            markersize=3,
            capsize=2,
            linewidth=1.2,
            label=name,
        )
    if len(names) > 1:
        axes.legend(frameon=False, fontsize=7)
    axes.set_xticks(range(len(values)), values)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _seconds_curve(axes: Axes, parts: list[Summary]) -> None:
    _bars(axes, [(_value(part), part.seconds) for part in parts if part.seconds is not None])


def _memory_curve(axes: Axes, parts: list[Summary]) -> None:
    known = [(_value(part), part.peak_memory) for part in parts]
    _bars(axes, [(value, peak / 1e6) for value, peak in known if peak is not None])


def _bars(axes: Axes, bars: list[tuple[str, float]]) -> None:
    axes.bar(range(len(bars)), [height for _, height in bars], color=_BLUE, width=0.6)
    axes.set_xticks(range(len(bars)), [name for name, _ in bars])


def _value(part: Summary) -> str:
    value = part.row.value
    return value if isinstance(value, str) else f"{value:,g}"


def _curves(summaries: Sequence[Summary]) -> Any:
    """Accuracy against seconds, of the first seed of each row."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for summary in summaries:
        for one in summary.runs[:1]:
            seconds, accuracy = zip(*one.outcome.details["curve"], strict=True)
            axes.plot(seconds, accuracy, marker="o", markersize=3, label=_label(summary))
    methods = [summary.row.method for summary in summaries]
    for reach in {method.reach for method in methods if isinstance(method, Race)}:
        axes.axhline(reach, color=_GREY, linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(frameon=False)
    _plain(axes, grid="both")
    return figure


def _plain(axes: Axes, *, grid: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_GREY)
    axes.grid(axis=grid, alpha=0.25)

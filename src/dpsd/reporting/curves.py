"""The curves of a run, as SVG for a web page.

>>> progress_curves([{"round": 1, "student_loss": 2.0, "agreement": None}])
''
>>> rounds = [{"round": n, "student_loss": 2.0 / n, "agreement": None} for n in (1, 2)]
>>> progress_curves(rounds).startswith("<svg")
True
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

_BLUE, _ORANGE, _GREY = "#2457a8", "#c05a00", "#555555"
#: The fewest points that make a curve.
_FEWEST = 2


def progress_curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Draw agreement (with twice its standard error) and the student's loss, by round.

    A curve of fewer than two points is left out.

    Args:
        metrics: the metrics of the rounds, in order.

    Returns:
        The SVG, which is empty if no curve has two points.
    """
    known = {
        "on the round's synthetic queries": _agreements(metrics, lambda line: line["agreement"]),
        "on the probe": _agreements(metrics, lambda line: line.get("probe", {}).get("agreement")),
    }
    known = {name: points for name, points in known.items() if _is_curve(points)}
    drawn: list[Callable[[Any], None]] = []
    if known:
        drawn.append(partial(_draw_agreement, curves=known))
    if _is_curve(metrics):
        drawn.append(partial(_draw_loss, lines=metrics))
    if not drawn:
        return ""
    # The object interface is used, as pyplot would pick a window system and keep the figure alive.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context({"svg.hashsalt": "dpsd", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(4 * len(drawn), 2.8), layout="constrained")
        for number, draw in enumerate(drawn, start=1):
            axes = figure.add_subplot(1, len(drawn), number)
            draw(axes)
            axes.set_xlabel("round")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(colors=_GREY)
            axes.grid(axis="y", alpha=0.25)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _is_curve(points: Sequence[Any]) -> bool:
    return len(points) >= _FEWEST


def _agreements(
    metrics: Sequence[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], Any]
) -> list[tuple[int, float, float]]:
    """The known agreements: round, mean, and twice the standard error."""
    found = ((line["round"], of(line)) for line in metrics)
    return [(number, at["mean"], 2 * at["standard_error"]) for number, at in found if at]


def _draw_agreement(axes: Any, curves: Mapping[str, Sequence[tuple[int, float, float]]]) -> None:
    from matplotlib.ticker import PercentFormatter

    for color, (name, points) in zip((_BLUE, _ORANGE), curves.items(), strict=False):
        rounds, means, errors = zip(*points, strict=True)
        axes.errorbar(
            rounds,
            means,
            yerr=errors,
            color=color,
            marker="o",
            markersize=3,
            capsize=2,
            linewidth=1.2,
            label=name,
        )
    axes.legend(frameon=False)
    axes.set_title("Agreement with the teacher, estimated (± 2 s.e.)", loc="left")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_loss(axes: Any, lines: Sequence[Mapping[str, Any]]) -> None:
    axes.plot(
        [line["round"] for line in lines],
        [line["student_loss"] for line in lines],
        color=_BLUE,
        marker="o",
        markersize=3,
        linewidth=1.2,
    )
    axes.set_title("Student's loss", loc="left")

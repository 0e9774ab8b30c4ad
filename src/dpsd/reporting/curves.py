"""The curves of a run, as SVG for a web page.

>>> svg = progress_curves([{"round": 1, "student_loss": 2.0, "agreement": None}])
>>> svg.startswith("<svg")
True
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

_BLUE, _GREY = "#2457a8", "#555555"


def progress_curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Draw agreement (with twice its standard error) and the student's loss, by round."""
    # The object interface is used, as pyplot would pick a window system and keep the figure alive.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with matplotlib.rc_context({"svg.hashsalt": "dpsd", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        known = [line for line in metrics if line["agreement"]]
        left.errorbar(
            [line["round"] for line in known],
            [line["agreement"]["mean"] for line in known],
            yerr=[2 * line["agreement"]["standard_error"] for line in known],
            color=_BLUE,
            marker="o",
            markersize=3,
            capsize=2,
            linewidth=1.2,
        )
        left.set_title("Agreement with the teacher, estimated (± 2 s.e.)", loc="left")
        left.yaxis.set_major_formatter(PercentFormatter(1.0))
        right.plot(
            [line["round"] for line in metrics],
            [line["student_loss"] for line in metrics],
            color=_BLUE,
            marker="o",
            markersize=3,
            linewidth=1.2,
        )
        right.set_title("Student's loss", loc="left")
        for axes in (left, right):
            axes.set_xlabel("round")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(colors=_GREY)
            axes.grid(axis="y", alpha=0.25)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]

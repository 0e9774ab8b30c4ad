"""The figures of runs: agreement and loss by round, ε under every adjacency, and confusion.

>>> rounds = [{"round": n, "student_loss": 2.0 / n, "agreement": None} for n in (1, 2)]
>>> progress_figure({"digits": rounds}).finding
'The loss of the student went from 2.00 in round 1 to 1.00 in round 2.'
>>> progress_figure({"digits": rounds[:1]}) is None
True
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from dpsd.privacy.accounting import format_epsilon
from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.targets import Adjacency
from dpsd.reporting.agreement import shown
from dpsd.reporting.figures import INK, LINES, MARKS, SERIES, Figure, canvas, plain, styled_axes

#: The fewest points that make a curve, and the most classes whose confusion is drawn.
_FEWEST, MOST_CLASSES = 2, 25
#: The most losses that are drawn apart.
_MOST_APART = 3
#: What is said of losses that are not to be compared.
_UNLIKE = (
    "These runs minimise unlike losses, so a smaller one does not mean a better student: compare "
    "accuracies, or agreement on the same images."
)
#: The ends of the axis of ε if none is outside.
_LEAST, _MOST = 0.1, 100.0

Metrics = Sequence[Mapping[str, Any]]
Points = list[tuple[int, float, float]]


def progress_figure(runs: Mapping[str, Metrics], *, is_one_loss: bool = True) -> Figure | None:
    """Draw agreement (with twice its standard error) and the student's loss, by round.

    Args:
        runs: the metrics of the rounds, in order, by the name of the run.
        is_one_loss: whether the losses of all runs are of one objective and mechanism. If not, each
            of a few is drawn apart, on an axis of its own, and the figure says that they are not to
            be compared.

    Returns:
        The figure; ``None`` if no curve has two points.
    """
    agreements = {
        (name, on): points
        for name, metrics in runs.items()
        for on, of in (("synthetic queries", _on_queries), ("the probe", _on_probe))
        if _is_curve(points := _agreements(metrics, of))
    }
    losses = {name: metrics for name, metrics in runs.items() if _is_curve(metrics)}
    drawn: list[Callable[[Any], None]] = []
    if agreements:
        drawn.append(partial(_draw_agreement, curves=agreements, are_many=len(runs) > 1))
    is_together = is_one_loss or len(losses) > _MOST_APART
    apart = [losses] if is_together else [{name: lines} for name, lines in losses.items()]
    for number, some in enumerate(apart if losses else ()):
        drawn.append(partial(_draw_loss, losses=some, are_many=len(runs) > 1, first=number))
    if not drawn:
        return None
    from matplotlib.ticker import MaxNLocator

    figure = canvas(4.2 * len(drawn), 3, left=0.6)
    for number, draw in enumerate(drawn, start=1):
        axes = styled_axes(figure, 1, len(drawn), number)
        draw(axes)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
    return Figure(
        name="rounds",
        title="Agreement and loss by round",
        finding=" ".join(
            [
                *_progress_found(agreements, losses, are_many=len(runs) > 1),
                *([] if is_one_loss or len(losses) < 2 else [_UNLIKE]),
            ]
        ),
        drawn=figure,
    )


def epsilon_figure(runs: Mapping[str, Certificate]) -> Figure:
    """Draw the ε of runs under the three adjacencies on a logarithmic axis.

    Args:
        runs: the certificate of each run by its name.
    """
    figure = canvas(8.4, 1.2 + 0.28 * (3 + len(runs)), left=0.75)
    axes = styled_axes(figure, 1, 1, 1)
    adjacencies = list(Adjacency)
    epsilons = {
        name: [stated.spent.under(kind) for kind in adjacencies] for name, stated in runs.items()
    }
    finite = [e for each in epsilons.values() for e in each if 0 < e < math.inf]
    ends = min([_LEAST, *finite]) / 2, max([_MOST, *finite]) * 4
    step = 0.7 / len(runs)
    for number, (name, values) in enumerate(epsilons.items()):
        for place, epsilon in enumerate(values):
            height = place + step * (number - (len(runs) - 1) / 2)
            at = min(max(epsilon, ends[0]), ends[1])
            label = name if place == 0 else None
            color = SERIES[number % len(SERIES)]
            axes.plot([ends[0], at], [height, height], color=color, linewidth=1, alpha=0.5)
            axes.plot(at, height, MARKS[number % len(MARKS)], color=color, markersize=5)
            counts = adjacencies[place] is runs[name].counting
            axes.annotate(
                f"{format_epsilon(epsilon)}{' (what was bought)' if counts else ''}"
                f"{f'  {label}' if label and len(runs) > 1 else ''}",
                (at, height),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontweight="bold" if counts else "normal",
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda at, _: f"{at:,.0f}" if at >= 1 else f"{at:g}")
    axes.set_xlim(*ends)
    axes.set_ylim(len(adjacencies) - 0.4, -0.6)
    axes.set_yticks(range(len(adjacencies)), [kind.value for kind in adjacencies])
    axes.set_xlabel("ε, on a logarithmic axis (less is more private)")
    axes.grid(axis="x")
    found = [
        f"{f'{name}: ' if len(runs) > 1 else ''}ε is "
        + ", ".join(
            f"{format_epsilon(epsilon)} under {kind.value}"
            for kind, epsilon in zip(adjacencies, values, strict=True)
        )
        + f"; {runs[name].counting.value} was bought."
        for name, values in epsilons.items()
    ]
    return Figure(
        name="epsilon",
        title="ε under the three adjacencies",
        finding=" ".join(found),
        drawn=figure,
    )


def confusion_figure(
    name: str,
    shares: Sequence[Sequence[float] | None],
    *,
    classes: Sequence[str],
    rows_are: str,
    title: str,
    run: str,
) -> Figure | None:
    """Draw how often each pair of classes is said.

    Args:
        name: the name of the figure.
        shares: the share of images of each row's class for which the student says each column's,
            ``(K, K)``, which may lie outside [0, 1]; ``None`` for a row that is not known.
        classes: the names of the classes.
        rows_are: what rows are, as ``"the teacher says"``.
        title: what is drawn.
        run: the name of the run, which the drawing states with the title.

    Returns:
        The figure; ``None`` if there are too many classes to be read.
    """
    count = len(classes)
    if count > MOST_CLASSES:
        return None
    from matplotlib.patches import Rectangle

    width = 1.6 + 0.36 * count
    figure = canvas(width, 2.0 + 0.32 * count)
    axes = styled_axes(figure, 1, 1, 1)
    known = {row: of_row for row, of_row in enumerate(shares) if of_row is not None}
    for row, of_row in known.items():
        for column, share in enumerate(of_row):
            # Pale enough for the number on it to be read.
            alpha = 0.45 * min(1.0, max(0.0, share))
            corner, color = (column - 0.5, row - 0.5), SERIES[row != column]
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=color, alpha=alpha, linewidth=0))
            if abs(share) >= 0.005:
                text = f"{100 * share:z.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=INK)
    short = [plain(f"{one[:11]}…" if len(one) > 12 else one) for one in classes]
    axes.set_xticks(range(count), short, rotation=0 if max(map(len, short)) < 4 else 90)
    axes.set_yticks(range(count), short)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlabel("the student says")
    axes.set_ylabel(rows_are)
    axes.tick_params(length=0)
    # A picture that is saved stands alone. A letter is about 0.065 inches wide.
    lines = textwrap.wrap(f"{run}: {title}. Shares of each row, in %", max(20, int(width / 0.065)))
    figure.suptitle(plain("\n".join(lines)), x=0.02, ha="left", fontsize=8)
    share, row, column = max(
        (share, row, column)
        for row, of_row in known.items()
        for column, share in enumerate(of_row)
        if row != column
    )
    right = sum(of_row[row] for row, of_row in known.items()) / len(known)
    over = "classes" if len(known) == count else f"{len(known)} of {count} classes that have a row"
    return Figure(
        name=name,
        title=title,
        finding=(
            f"On average over the {over}, the student says the row's class for {right:z.0%}. The "
            f"largest confusion: where {rows_are} {classes[row]}, the student says "
            f"{classes[column]} for {share:z.0%}."
        ),
        drawn=figure,
        headings=(f"{rows_are} \\ student", *classes),
        rows=[
            (name, *("-" * count if row is None else (f"{share:z.1%}" for share in row)))
            for name, row in zip(classes, shares, strict=True)
        ],
    )


def _is_curve(points: Sequence[Any]) -> bool:
    return len(points) >= _FEWEST


def _on_queries(line: Mapping[str, Any]) -> Any:
    return line["agreement"]


def _on_probe(line: Mapping[str, Any]) -> Any:
    return line.get("probe", {}).get("agreement")


def _agreements(metrics: Metrics, of: Callable[[Mapping[str, Any]], Any]) -> Points:
    """The known agreements: round, mean, and twice the standard error."""
    found = ((line["round"], of(line)) for line in metrics)
    return [(number, at["mean"], 2 * at["standard_error"]) for number, at in found if at]


def _draw_agreement(axes: Any, *, curves: Mapping[tuple[str, str], Points], are_many: bool) -> None:
    from matplotlib.ticker import PercentFormatter

    for number, ((name, on), points) in enumerate(curves.items()):
        rounds, means, errors = zip(*points, strict=True)
        axes.errorbar(
            rounds,
            means,
            yerr=errors,
            label=plain(f"{name}, on {on}") if are_many else f"on {on}",
            capsize=2,
            **_series(number),
        )
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("Agreement with the teacher, estimated (± 2 s.e.)", loc="left", fontsize=9)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_loss(axes: Any, *, losses: Mapping[str, Metrics], are_many: bool, first: int) -> None:
    for number, (name, lines) in enumerate(losses.items(), start=first):
        axes.plot(
            [line["round"] for line in lines],
            [line["student_loss"] for line in lines],
            label=plain(name),
            **_series(number),
        )
    if are_many:
        axes.legend(frameon=False, fontsize=8)
    axes.set_title("Student's loss", loc="left", fontsize=9)


def _series(number: int) -> dict[str, Any]:
    return {
        "color": SERIES[number % len(SERIES)],
        "marker": MARKS[number % len(MARKS)],
        "linestyle": LINES[number // len(SERIES) % len(LINES)],
        "markersize": 4,
        "linewidth": 1.2,
    }


def _progress_found(
    agreements: Mapping[tuple[str, str], Points],
    losses: Mapping[str, Metrics],
    *,
    are_many: bool,
) -> list[str]:
    """What the curves show, from their first to their last points."""
    found = []
    for (name, on), points in agreements.items():
        ends = [
            f"{shown({'mean': mean, 'standard_error': error / 2})} in round {number}"
            for number, mean, error in (points[0], points[-1])
        ]
        found.append(
            f"{f'{name}: agreement' if are_many else 'Agreement'} on {on} went from "
            f"{' to '.join(ends)}."
        )
    for name, lines in losses.items():
        ends = [
            f"{line['student_loss']:.2f} in round {line['round']}" for line in (lines[0], lines[-1])
        ]
        found.append(
            f"{f'{name}: the loss' if are_many else 'The loss'} of the student went from "
            f"{' to '.join(ends)}."
        )
    return found

"""The ROC curves of membership scores, on logarithmic axes, as SVG and PNG.

At few false positives, where a linear axis shows nothing, an attacker is surest. Scores differ in
the style of their lines as well as in colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dpsd.attacks.membership.rates import curve
from dpsd.attacks.membership.scores import Flags, Numbers
from dpsd.reporting.figures import plain, styled
from dpsd.storage.files import replacing

#: The name of the picture's files, without suffix.
NAME = "membership-roc"

_COLORS = ("#2457a8", "#c05a00", "#3a7d44", "#8a2be2", "#555555")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def draw(scores: Mapping[str, Mapping[str, Numbers]], is_in: Flags, folder: Path) -> None:
    """Draw a panel for each kind of model, with a curve for each score, into both files.

    Args:
        scores: the scores ``(M, N)``, by the kind of model and by the name of the score.
        is_in: which records each model was trained on, ``(M, N)``.
        folder: the folder of ``membership-roc.svg`` and ``membership-roc.png``.

    Raises:
        WriteError: the folder cannot be written to.
    """
    # The object interface is used, as pyplot would pick a window system and keep the figure alive.
    from matplotlib.figure import Figure

    least = 1 / is_in.size
    with styled():
        figure = Figure(figsize=(4 * len(scores), 4), layout="constrained")
        for panel, (kind, of_kind) in enumerate(scores.items(), start=1):
            axes = figure.add_subplot(1, len(scores), panel)
            for number, (name, found) in enumerate(of_kind.items()):
                false, true = curve(found, is_in)
                axes.plot(
                    false.clip(min=least),
                    true.clip(min=least),
                    color=_COLORS[number % len(_COLORS)],
                    linestyle=_STYLES[number % len(_STYLES)],
                    linewidth=1.2,
                    label=name,
                )
            axes.plot([least, 1], [least, 1], color="#999999", linewidth=0.8, label="guessing")
            axes.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1))
            axes.minorticks_off()
            axes.set_xlabel("false positives, share of non-members")
            axes.set_ylabel("true positives, share of members")
            axes.set_title(plain(kind), loc="left")
            axes.grid(alpha=0.25)
            axes.legend(frameon=False, fontsize=7, loc="lower right")
        for suffix, more in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 150})):
            with replacing(folder / f"{NAME}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, **more)

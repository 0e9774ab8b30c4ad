"""The grid of reconstructions: classes by targets and attacks.

No picture is made of a data set of people, whatever was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dpsd.attacks.inversion.reconstructions import Reconstructions
from dpsd.reporting.figures import plain, styled
from dpsd.storage.files import replacing

#: The most classes that are shown.
_MOST_CLASSES = 12
_GAP = 1
_PAPER = 228


def draw_grid(
    made: Mapping[str, Reconstructions],
    *,
    classes: Tensor,
    class_names: Sequence[str],
    folder: Path,
    name: str,
) -> None:
    """Draw the image of each class that the target picked and is surest of, as SVG and PNG.

    The cell of a class without an image is left empty.

    Args:
        made: the reconstructions, by the name of their row.
        classes: the classes that were attacked, int64 ``(K,)``.
        class_names: the names of all classes.
        folder: the folder of the figure.
        name: its file name without a suffix.

    Raises:
        WriteError: the figure cannot be written.
    """
    from matplotlib.figure import Figure

    shown = classes[:_MOST_CLASSES].tolist()
    rows = [torch.stack([_surest(one, label) for label in shown]) for one in made.values()]
    height, width = rows[0].shape[2:]
    with styled():
        # Room for the longest label, whose letters are at most 0.1 inches wide on average.
        size = (0.3 + 0.1 * max(map(len, made)) + 0.55 * len(shown), 0.4 + 0.55 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(_sheet(rows), interpolation="nearest")
        axes.set_xticks(
            [(width + _GAP) * (place + 0.5) - 0.5 for place in range(len(shown))],
            [plain(class_names[label]) for label in shown],
        )
        axes.set_yticks(
            [(height + _GAP) * (place + 0.5) - 0.5 for place in range(len(rows))],
            list(map(plain, made)),
        )
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.spines[:].set_visible(False)
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, extra in (("svg", {"Date": None}), ("png", {"Software": None})):
            with replacing(folder / f"{name}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, dpi=150, metadata=extra)


def _surest(made: Reconstructions, label: int) -> Tensor:
    """Return the image of a class with the least cost, uint8 ``(C, H, W)``, or an empty one."""
    rows = (made.classes == label).nonzero().flatten()
    if not len(rows):
        return made.images.new_full(made.images.shape[1:], _PAPER)
    return made.images[rows[made.cost[rows].argmin()]]


def _sheet(rows: list[Tensor]) -> NDArray[np.uint8]:
    """Lay out rows of images ``(K, C, H, W)`` with gaps, as colours ``(height, width, 3)``."""
    padded = F.pad(torch.stack(rows), (0, _GAP, 0, _GAP), value=_PAPER)
    if padded.shape[2] not in (1, 3):
        padded = padded.float().mean(2, keepdim=True).byte()
    high, deep = padded.shape[3], padded.shape[2]
    laid = padded.permute(0, 3, 1, 4, 2).reshape(len(rows) * high, -1, deep)
    return laid.expand(-1, -1, 3).numpy()

"""The spaces in which images are near each other: pixels, and features that nobody trained.

>>> images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
>>> found = nearest(pixels(images), pixels(images), neighbours=50)
>>> found.distances.tolist(), found.ratios.tolist()
([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.models.scattering import scattering

#: Numbers of a matrix of distances, and of differences, that are in memory at once.
_MOST_NUMBERS = 1 << 24
#: Candidates whose distances are computed exactly, at least: the search rounds.
_CANDIDATES = 8
#: Features that vary less than this share of the most varying one are not blown up.
_LEAST_SCALE = 0.01

Embedding = Callable[[Tensor], Tensor]

#: The spaces by name, as they are called in sentences.
SPACES = {"pixels": "pixels", "scattering": "scattering features"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """The nearest records of some images.

    Args:
        distances: the distance to the nearest record, float32 ``(N,)``.
        ratios: that distance over the mean distance to the nearest several, ``(N,)``; 0 at a
            distance of 0.
        rows: the row of the nearest record, int64 ``(N,)``.
    """

    distances: Tensor
    ratios: Tensor
    rows: Tensor


def pixels(images: Tensor) -> Tensor:
    """Return the pixels of uint8 images as vectors, float32 ``(N, D)`` in [0, 1]."""
    return images.flatten(1).float() / 255


def scattering_features(like: Tensor, execution: Execution) -> Embedding:
    """Return a function to wavelet features, which are fixed and so know no record.

    Args:
        like: images, uint8 ``(N, C, H, W)``, on which each feature has a standard deviation of 1.
        execution: the device on which features are computed, in single precision.
    """
    channels, height, width = like.shape[1:]
    whole = scattering(input_shape=(channels, height, width), num_classes=2)
    exact = Execution(execution.device, "float32")
    module = exact.place(nn.Sequential(*list(whole.children())[:-2]))  # without norm and head
    spread = exact.predict(module, like).cpu().std(0)
    scale = spread.clamp_min(max(1e-6, _LEAST_SCALE * float(spread.max())))
    return lambda images: exact.predict(module, images).cpu() / scale


def nearest(
    images: Tensor,
    records: Tensor,
    *,
    neighbours: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> Nearest:
    """Find the nearest records of images, by Euclidean distance.

    Equal vectors are at a distance of exactly 0.

    Args:
        images: the images as vectors, float32 ``(N, D)``.
        records: the records as vectors, float32 ``(M, D)``.
        neighbours: the number of records over which ratios are taken; all if there are fewer.
        advance: what is told of the images that are done.
    """
    neighbours = min(neighbours, len(records))
    candidates = min(len(records), max(neighbours, _CANDIDATES))
    lengths = records.square().sum(1)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    step = max(1, _MOST_NUMBERS // max(len(records), candidates * records.shape[1]))
    for some in torch.split(images, step):
        # The search is by inner products, which round; its candidates are measured exactly.
        about = torch.addmm(lengths, some, records.T, alpha=-2)
        rows = about.topk(candidates, largest=False, sorted=False).indices
        exact = (records[rows] - some.unsqueeze(1)).square().sum(2).sqrt()
        exact, order = exact.sort(1)
        first = exact[:, 0]
        ratios = first / exact[:, :neighbours].mean(1).clamp_min(torch.finfo(exact.dtype).tiny)
        parts.append((first, ratios, rows.gather(1, order[:, :1]).flatten()))
        advance(len(some))
    distances, ratios, rows = map(torch.cat, zip(*parts, strict=True))
    return Nearest(distances=distances, ratios=ratios, rows=rows)

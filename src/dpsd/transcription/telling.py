"""What is told of a round: its metrics, and what its releases warn of.

>>> import torch
>>> quality = RoundQuality(
...     agreement=None, label_shares=[1.0, 0.0], predicted_shares=[0.5, 0.5], surprise={},
...     spread={}, source_shares={},
... )
>>> flat = torch.full((2, 2), 0.5)
>>> zeros = torch.zeros(2)
>>> releases = RoundReleases(index=1, queries=torch.zeros(2, 1, 8, 8), prior=flat,
...                          predicted=zeros, source=zeros, release=zeros)
>>> round_metrics(releases, quality, {"student_loss": 0.5}, names=["noise"])["sources"]
{'noise': 2}
>>> list(round_warnings(releases, quality, names=["noise"], is_last=False))
["round 1: the teacher's released labels are 100% class 0. A run that sees one class learns ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dpsd.distillation.quality import (
    RoundQuality,
    collapse_warning,
    noise_warning,
    unlike_warning,
)
from dpsd.distillation.releases import RoundReleases


def round_metrics(
    releases: RoundReleases,
    quality: RoundQuality,
    losses: Mapping[str, float | None],
    *,
    names: Sequence[str],
) -> dict[str, Any]:
    """Return a round's line of metrics, without its time.

    Args:
        releases: the releases of the round.
        quality: what they reveal about the run.
        losses: the mean losses of the models, by name.
        names: the names of the sources, in the order of their numbers.
    """
    # In the first round, random guesses stood in for the untrained student.
    found = quality.agreement if releases.index > 1 else None
    return {
        "round": releases.index,
        "queries": len(releases),
        **losses,
        "agreement": asdict(found) if found else None,
        "label_shares": quality.label_shares,
        "predicted_shares": quality.predicted_shares,
        "sources": releases.by_source(names),
    }


def round_warnings(
    releases: RoundReleases, quality: RoundQuality, *, names: Sequence[str], is_last: bool
) -> Iterator[str]:
    """Yield what a round's releases warn of; arguments are those of :func:`round_metrics`."""
    round_index = releases.index
    warnings = [collapse_warning(quality, round_index=round_index)]
    if round_index == 1 and releases.probe is None:
        warnings.append(unlike_warning(quality, names=names))
    if is_last:
        warnings.append(noise_warning(quality, round_index=round_index))
    yield from filter(None, warnings)

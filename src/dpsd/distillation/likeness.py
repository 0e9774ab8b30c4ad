"""Which sources make images that look to the student as those of the probe do.

Only public images and the student are used, so this costs no privacy.

>>> student = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
>>> shades = torch.tensor([0, 10, 20, 200, 210, 220], dtype=torch.uint8).view(-1, 1, 1, 1)
>>> pixels = shades.expand(-1, 1, 2, 2).contiguous()
>>> def releases(rows, source):
...     return RoundReleases(index=1, queries=pixels[rows], prior=torch.empty(len(rows), 2),
...                          predicted=source, source=source, release=source)
>>> made = releases([0, 1, 3, 4], torch.tensor([0, 0, 1, 1]))
>>> probe = releases([2], torch.tensor([255]))
>>> likeness(student, made, probe, sources=2, execution=Execution.of("cpu"), neighbours=2)
[1.0, 0.0]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution, forward_batch
from dpsd.distillation.generator import PenultimateFeatures
from dpsd.distillation.releases import RoundReleases

#: The images of each source, and of the probe, that are compared.
_OF_EACH, _OF_PROBE = 300, 1_000


def likeness(
    student: nn.Module,
    releases: RoundReleases,
    probe: RoundReleases,
    *,
    sources: int,
    execution: Execution,
    neighbours: int = 10,
) -> list[float]:
    """Return the share of each source among the images that are nearest to the probe's.

    Images are near each other if the student's penultimate features of them are, each scaled to a
    standard deviation of 1. The same number of images is taken of each source, so a source does not
    gain from having made many.

    Args:
        student: the student, which is not changed.
        releases: the queries of a round, with the number of the source of each.
        probe: the probe.
        sources: the number of sources; queries of other numbers are not looked at.
        execution: the device and precision of the student.
        neighbours: how many of the nearest images are counted for each image of the probe.

    Returns:
        A share for each source, in order; they sum to 1. Those of sources without a query are 0.
    """
    places = [(releases.source == number).nonzero().flatten() for number in range(sources)]
    known = [place for place in places if len(place)]
    if not known:
        return [0.0] * sources
    each = min(_OF_EACH, *map(len, known))
    rows = torch.cat([place[:each] for place in known])
    made = _features(student, releases.images(rows), execution)
    wanted = _features(student, probe.images(torch.arange(len(probe))[:_OF_PROBE]), execution)
    scale = made.std(0).clamp_min(1e-6)
    count = min(neighbours, len(rows))
    nearest = torch.cdist(wanted / scale, made / scale).topk(count, largest=False).indices
    near = torch.bincount(releases.source[rows[nearest.flatten()]].long(), minlength=sources)
    return (near / near.sum()).tolist()


def _features(student: nn.Module, images: Tensor, execution: Execution) -> Tensor:
    """The student's penultimate features of images, float32 ``(N, F)`` on the CPU."""
    found = []
    with PenultimateFeatures(student) as features:
        for batch in torch.split(images, forward_batch(images.shape[1:], execution.device)):
            execution.predict(student, batch)
            found.append(features.last.flatten(1).float().cpu())
    return torch.cat(found)

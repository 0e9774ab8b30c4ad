"""What releases tell about a student and its generator, class by class.

Everything here is computed from releases, whose channel is known and can be inverted on average. It
is post-processing and costs no privacy. Where the noise drowns out the answers, nothing is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpsd.devices.execution import Execution
from dpsd.distillation.probe import Probe
from dpsd.distillation.quality import label_shares
from dpsd.distillation.releases import RoundReleases
from dpsd.errors import RunError
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.mechanisms.base import is_flat
from dpsd.reporting.curves import MOST_CLASSES
from dpsd.runs.directory import RunDirectory

#: The most queries of a round that are looked at.
_MOST_QUERIES = 20_000
#: Releases tell the shares of classes if two halves of them differ by at most this much.
_CLEAR = 0.1
#: Releases tell how a class is confused if the standard errors of its shares are at most this much.
_CLEAR_CELL = 0.1
#: A matrix is shown if releases tell this share of its rows, and about this many queries or more.
_ENOUGH, _FEWEST = 0.5, 2


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often the student says each class where the teacher says another, by releases alone.

    Args:
        shares: for each class of the teacher, a row, the share of its images for which the student
            says each class, which may lie outside [0, 1]; ``None`` for a class of which the
            releases do not tell.
        standard_error: the largest standard error of a share.
        about: the student and the images, in words.
    """

    shares: list[list[float] | None]
    standard_error: float
    about: str


@dataclass(frozen=True, kw_only=True)
class Said:
    """What teacher and student say of the generator's queries in a round, before learning.

    Args:
        student: the share of each class among the student's predictions.
        teacher: the estimated share among the teacher's answers; ``None`` if releases do not tell.
    """

    student: list[float]
    teacher: list[float] | None


def mechanism_of(run: RunDirectory) -> Mechanism | None:
    """Return the mechanism of a run; ``None`` if its settings do not describe it."""
    members = int(run.facts()["members"])
    try:
        mechanism = run.config().privacy.mechanism(members=members)
        return run.as_recorded(mechanism.for_members(members) if members > 1 else mechanism)
    except RunError:
        return None


def confusion(run: RunDirectory) -> Confusion | None:
    """Estimate the confusion of teacher and student.

    The final student and the images of the probe are taken if there is a probe. Otherwise it is the
    queries of the last round with a flat prior, and the student before it learned from them.

    Returns:
        The estimate; ``None`` if there is none, or if the releases are too noisy to tell.
    """
    metrics, mechanism = run.metrics(), mechanism_of(run)
    if not metrics or mechanism is None or run.facts()["num_classes"] > MOST_CLASSES:
        return None
    found = _final_on_probe(run, mechanism) or _before_learning(run, mechanism)
    if found is None:
        return None
    probe, predicted, about = found
    shares, errors = probe.confusion(predicted)
    is_told = (errors <= _CLEAR_CELL).all(-1)
    if is_told.double().mean() < _ENOUGH:
        return None
    rows = [of if told else None for of, told in zip(shares.tolist(), is_told, strict=True)]
    return Confusion(shares=rows, standard_error=float(errors[is_told].max()), about=about)


def _final_on_probe(run: RunDirectory, mechanism: Mechanism) -> tuple[Probe, Tensor, str] | None:
    """The probe with what the final student says of it; ``None`` if there is none."""
    releases = _round(run, 1).probe
    if releases is None or not run.is_finished():
        return None
    execution = Execution.of("cpu", run.recipe.precision)
    try:
        student = execution.place(run.student()).eval()
    except RunError:
        return None  # a module of the user's own
    probe = Probe(releases, mechanism)
    about = f"the final student on the {len(releases):,} public images of the probe"
    return probe, probe.predictions(student, execution), about


def _before_learning(run: RunDirectory, mechanism: Mechanism) -> tuple[Probe, Tensor, str] | None:
    """The last round's queries with a flat prior; ``None`` if the student was a guess then."""
    last = run.metrics()[-1]["round"]
    releases = _round(run, last)
    rows = is_flat(releases.prior.float()).nonzero().squeeze(-1)
    if last == 1 or len(rows) < _FEWEST:
        return None
    flat = _rows(releases, _spread(rows))
    about = (
        f"the student before it learned from round {last}, on {len(flat):,} of the round's "
        "synthetic queries"
    )
    return Probe(flat, mechanism), flat.predicted.long(), about


def said_of_generator(run: RunDirectory) -> dict[int, Said]:
    """Return what teacher and student say of the generator's queries, by round."""
    mechanism, found = mechanism_of(run), {}
    if mechanism is None:
        return {}
    for line in run.metrics():
        releases, names = _round(run, line["round"]), list(line["sources"])
        if "generator" not in names:
            continue
        rows = (releases.source == names.index("generator")).nonzero().squeeze(-1)
        if len(rows) >= _FEWEST:
            found[int(line["round"])] = _said(_rows(releases, _spread(rows)), mechanism)
    return found


def _said(releases: RoundReleases, mechanism: Mechanism) -> Said:
    classes, count = releases.prior.shape[-1], len(releases)
    informed = mechanism.informed(releases.release, releases.prior)
    halves = [label_shares(releases, torch.arange(part, count, 2), informed) for part in (0, 1)]
    apart = sum(abs(one - other) for one, other in zip(*halves, strict=True)) / 2
    teacher = [(one + other) / 2 for one, other in zip(*halves, strict=True)]
    student = torch.bincount(releases.predicted.long(), minlength=classes) / count
    return Said(student=student.tolist(), teacher=teacher if apart <= _CLEAR else None)


def _round(run: RunDirectory, index: int) -> RoundReleases:
    """A finished round's releases, which were checked when the run was certified."""
    return RoundReleases.load(run.releases_path(index), index=index)


def _spread(rows: Tensor) -> Tensor:
    """At most so many rows, spread evenly over all."""
    return rows[:: 1 + (len(rows) - 1) // _MOST_QUERIES]


def _rows(releases: RoundReleases, rows: Tensor) -> RoundReleases:
    """Some rows of a round, whose pixels are not used."""
    columns = ("prior", "predicted", "source", "release")
    chosen = {name: getattr(releases, name)[rows] for name in columns}
    pixels = releases.queries.new_empty((len(rows), 0))
    return replace(releases, queries=pixels, probe=None, **chosen)


def largest(shares: Sequence[float], names: Sequence[str], *, most: int = 3) -> str:
    """Return the largest shares with their classes.

    >>> largest([0.2, 0.7, 0.1], ["cat", "dog", "owl"], most=2)
    'dog 70%, cat 20%'
    """
    order = sorted(range(len(shares)), key=lambda number: -shares[number])[:most]
    return ", ".join(f"{names[number]} {shares[number]:.0%}" for number in order)

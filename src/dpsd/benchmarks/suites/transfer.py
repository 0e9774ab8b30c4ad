"""One recipe for every data set, so that it shows where nobody tuned it.

Each data set is transcribed with the defaults, under both protections, in runs that are short
enough for many data sets. At an ε where answers are nearly exact, other sources of queries show
what the defaults lose there: the regret against the best of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.suites.suite import EPSILONS, Settings, Suite, row_of, shortened
from dpsd.benchmarks.tables import (
    ABOUT,
    ACCURACY,
    DATA,
    EPSILON,
    METHOD,
    MISSING,
    SECONDS,
    SPREAD,
    Column,
    Summary,
    percent,
)
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.privacy.targets import Adjacency

DATA_SETS = (
    "digits",
    "mnist",
    "fashion-mnist",
    "cifar10-jpeg",
    "cifar100-jpeg",
    "celeba-gender",
    "celeba-hair",
    "covid-xray",
    "medmnist:retinamnist",
    "tiny-imagenet-10",
)

#: The sizes of the runs for images of up to 32x32 pixels; larger images are asked about less often.
_SIZES: Settings = {"rounds": 3, "queries": 12_000}
_LARGE = 32 * 32

_ADJACENCIES = {"labels": Adjacency.RESPONSE, "data": Adjacency.ROUND}

#: Other recipes, by name, that the defaults are compared with.
RECIPES: Mapping[str, Settings] = {
    "drawn": {"sources": ("noise", "strokes", "silhouettes")},
    "crops": {"sources": ("crops",)},
    "glyphs": {"sources": ("noise", "glyphs")},
    "leaves": {"sources": ("leaves", "fractals")},
}


def transfer(task: Task, share: float) -> list[Row]:
    """The defaults at every ε and under both protections, and other sources at the largest ε."""
    rows = []
    sizes = shortened(_SIZES, share * _share_of(task))
    for protect, adjacency in _ADJACENCIES.items():
        for epsilon in EPSILONS:
            recipes = {"default": {}}
            if protect == "labels" and epsilon == max(EPSILONS):
                recipes |= RECIPES
            for name, recipe in recipes.items():
                method = Transcribing(
                    name=f"{name}, {protect}",
                    protect=protect,
                    adjacency=adjacency,
                    recipe={**sizes, **recipe},
                )
                rows.append(row_of(task, epsilon, f"{protect}-{name}", method))
    return rows


def _share_of(task: Task) -> float:
    """The share of the queries that images of this size leave time for."""
    _, height, width = task.measured_on.input_shape
    return min(1.0, 1.5 * _LARGE / (height * width))


def regret(summary: Summary, among: Sequence[Summary]) -> float | None:
    """What a row's accuracy lacks to that of the best recipe for its data set, ε and protection."""
    means = [other.mean for other in among if _setting(other) == _setting(summary)]
    known = [mean for mean in means if mean is not None]
    return None if summary.mean is None or len(means) < 2 else max(known) - summary.mean


def _setting(summary: Summary) -> tuple[object, ...]:
    method = summary.row.method
    return summary.row.task.data, summary.row.target, getattr(method, "protect", None)


def _detail(name: str) -> Any:
    """A cell with the mean over seeds of one detail, a share, in percent."""

    def cell(summary: Summary, among: Sequence[Summary]) -> str:
        found = [one.outcome.details.get(name) for one in summary.runs]
        known = [value for value in found if value is not None]
        return percent(sum(known) / len(known)) if known else MISSING

    return cell


def _agreement(summary: Summary, among: Sequence[Summary]) -> str:
    """The last estimate of agreement on queries, of the first seed."""
    found = [one.outcome.details.get("agreement") for one in summary.runs]
    return found[0][-1] if found and found[0] else MISSING


def _regret(summary: Summary, among: Sequence[Summary]) -> str:
    return percent(regret(summary, among))


SUITE = Suite(
    title="Transfer: one recipe for every data set",
    data=DATA_SETS,
    figure="dots",
    rows=transfer,
    columns=(
        DATA,
        METHOD,
        EPSILON,
        ABOUT,
        Column(name="teacher (%)", cell=_detail("teacher"), is_number=True),
        ACCURACY,
        SPREAD,
        Column(name="balanced (%)", cell=_detail("balanced"), is_number=True),
        Column(name="largest class (%)", cell=_detail("largest_class"), in_terminal=False),
        Column(name="agreement on queries", cell=_agreement, in_terminal=False),
        Column(name="on images (%)", cell=_detail("agreement_on_images"), is_number=True),
        Column(name="regret (points)", cell=_regret, is_number=True),
        SECONDS,
    ),
    note="Balanced accuracy is the mean over classes of the share that is right; a student that "
    "predicts the largest class alone has the accuracy that stands beside it. Agreement on queries "
    "is estimated by the run from its releases, about the synthetic queries of its last round; "
    "agreement on images is that of student and teacher on the images that accuracy is measured "
    "on, which no run sees. Regret is what a row's accuracy lacks to the best row of the same data "
    "set, ε and protection.",
)

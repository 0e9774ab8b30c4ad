"""One recipe for every data set, so that it shows where nobody tuned it.

Each data set is transcribed with the defaults, under both protections, in runs that are short
enough for many data sets. At an ε where answers are nearly exact, other sources of queries show
what the defaults lose there: the regret against the best of them. With
``--set leave_one_out_steps=150``, recipes of enough sources leave each out once, which shows
whether a run can tell without data how its student will do; it doubles their time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.ranking import Estimate, rank_correlation, ranking, signed
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
from dpsd.synthesis.names import DRAWN

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
    "textures": {"sources": ("leaves", "fractals", "crops")},
    "all": {"sources": DRAWN},
}


def transfer(task: Task, share: float) -> list[Row]:
    """The defaults at every ε and under both protections, and other sources at the largest ε."""
    rows = []
    sizes = shortened(_SIZES, share * _share_of(task))
    for protect, adjacency in _ADJACENCIES.items():
        for epsilon in EPSILONS:
            recipes: dict[str, Settings] = {"default": {}}
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
    return min(1.0, 1.5 * _LARGE / math.prod(task.size))


def regret(summary: Summary, among: Sequence[Summary]) -> float | None:
    """What a row's accuracy lacks to that of the best recipe for its data set, ε and protection."""
    means = [other.mean for other in among if _setting(other) == _setting(summary)]
    known = [mean for mean in means if mean is not None]
    return None if summary.mean is None or len(means) < 2 else max(known) - summary.mean


def _setting(summary: Summary) -> tuple[object, ...]:
    method = summary.row.method
    return summary.row.task.data, summary.row.target, getattr(method, "protect", None)


def _over_seeds(value: Callable[[Mapping[str, Any]], float | None]) -> Estimate:
    """The mean over seeds of what a function finds in the details of a run."""

    def mean(summary: Summary) -> float | None:
        found = [value(one.outcome.details) for one in summary.runs]
        known = [one for one in found if one is not None]
        return sum(known) / len(known) if known else None

    return mean


def _detail(name: str) -> Estimate:
    """The mean over seeds of one detail, a share."""
    return _over_seeds(lambda details: details.get(name))


@_over_seeds
def _on_queries(details: Mapping[str, Any]) -> float | None:
    """The last estimate of agreement on queries."""
    said = details.get("agreement")
    return float(said[-1].partition("±")[0]) if said else None


@_over_seeds
def _on_left_out(details: Mapping[str, Any]) -> float | None:
    """The agreement on sources that students were not taught on, the mean over sources."""
    found = (details.get("left_out") or {}).get("agreement")
    return None if found is None else float(found["mean"])


def _shown(estimate: Estimate) -> Callable[[Summary, Sequence[Summary]], str]:
    """A cell with an estimate in percent."""
    return lambda summary, among: percent(estimate(summary))


def _agreement(summary: Summary, among: Sequence[Summary]) -> str:
    """The last estimate of agreement on queries, of the first seed."""
    found = [one.outcome.details.get("agreement") for one in summary.runs]
    return found[0][-1] if found and found[0] else MISSING


def _regret(summary: Summary, among: Sequence[Summary]) -> str:
    return percent(regret(summary, among))


def _by_source(summaries: Sequence[Summary]) -> str:
    """How well agreement on one source, left out, ranks the rows of a setting that left it out."""
    pairs: dict[Hashable, list[tuple[float, float]]] = {}
    for summary in summaries:
        for one in summary.runs:
            left_out, accuracy = one.outcome.details.get("left_out"), one.outcome.accuracy
            for source, found in (left_out or {"sources": {}})["sources"].items():
                if found is not None and accuracy is not None:
                    key = (_setting(summary), one.seed, source)
                    pairs.setdefault(key, []).append((found["mean"], accuracy))
    each = [rank for group in pairs.values() if (rank := rank_correlation(group)) is not None]
    mean = signed(sum(each) / len(each) if each else None)
    return f"left out, source by source {mean} in {len(each)} sources of settings"


def _ranks(summaries: Sequence[Summary]) -> str:
    """How well the estimates of agreement rank the rows by accuracy."""
    within = {"data sets": lambda one: one.row.task.data, "settings": _setting}
    estimates: Mapping[str, Estimate] = {
        "agreement on queries": _on_queries,
        "left out": _on_left_out,
        "agreement on queries of the same rows": lambda one: (
            None if _on_left_out(one) is None else _on_queries(one)
        ),
        "agreement on images": _detail("agreement_on_images"),
    }
    found = [ranking(what, of, summaries, within=within) for what, of in estimates.items()]
    return (
        f"Spearman's rank correlation with accuracy: {'; '.join([*found, _by_source(summaries)])}. "
        "Rows without a value are left out. Numbers in data sets, in settings (a data set, ε and "
        "protection), and in one source that rows of a setting left out, are means over those of "
        "three rows or more."
    )


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
        Column(name="teacher (%)", cell=_shown(_detail("teacher")), is_number=True),
        ACCURACY,
        SPREAD,
        Column(name="balanced (%)", cell=_shown(_detail("balanced")), is_number=True),
        Column(name="largest class (%)", cell=_shown(_detail("largest_class")), in_terminal=False),
        Column(name="agreement on queries", cell=_agreement, in_terminal=False),
        Column(name="left out (%)", cell=_shown(_on_left_out), in_terminal=False),
        Column(name="on images (%)", cell=_shown(_detail("agreement_on_images")), is_number=True),
        Column(name="regret (points)", cell=_regret, is_number=True),
        SECONDS,
    ),
    note="Balanced accuracy is the mean over classes of the share that is right; a student that "
    "predicts the largest class alone has the accuracy that stands beside it. Agreement on queries "
    "is estimated by the run from its releases, about the synthetic queries of its last round; "
    "left out is the agreement with students that were taught on all sources but "
    "one, if they were trained, about the queries from that one, the mean over sources; "
    "agreement on images is that of student and teacher on the images that accuracy is measured "
    "on, which no run sees. Regret is what a row's accuracy lacks to the best row of the same data "
    "set, ε and protection.",
    finding=_ranks,
)

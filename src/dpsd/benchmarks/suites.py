"""The suites of ``dpsd bench``: what each table measures.

>>> from pathlib import Path
>>> rows = SUITES["label-sensitive"].rows(Task(data="mnist", teachers=Path("teachers")), 1.0)
>>> [row.method.name for row in rows if row.key.startswith("mnist/1/dpsd")]
['dpsd, many rounds', 'dpsd, one round']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dpsd.benchmarks.baselines import (
    DataFreeLearning,
    Distillation,
    Pate,
    PriorLabels,
    PrivateSGD,
    RandomizedLabels,
)
from dpsd.benchmarks.methods import Task, Unit
from dpsd.benchmarks.racing import Race
from dpsd.benchmarks.rows import Quoted, Row
from dpsd.benchmarks.scaling import Untrained
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.datasets.published import MEDMNIST_NAMES
from dpsd.privacy.targets import Adjacency, Budget

Settings = Mapping[str, Any]

DELTA = 1e-5
EPSILONS = (1.0, 10.0)

#: What the field's tables are about: those that are small, and those that have to be brought.
FIELD = ("mnist", "fashion-mnist", "cifar10-jpeg")
FIELD_BESIDES = (
    "cifar10",
    "cifar100",
    "celeba-hair",
    "celeba-gender",
    *(f"medmnist:{name}" for name in MEDMNIST_NAMES),
    "covidx",
    "imagenet",
)

#: Sources of queries that suit what is in a data set's images; others get :data:`PUBLIC`.
SOURCES = {
    "mnist": ("noise", "strokes"),
    "fashion-mnist": ("silhouettes",),
    "digits": ("noise", "strokes"),
}
PUBLIC = {1: ("noise", "silhouettes"), 3: ("crops", "silhouettes")}

#: What learning from queries about natural images takes besides: they mean the same mirrored.
NATURAL: Settings = {"augment": "shift-flip", "generator_steps": 0}

#: What papers report, by data set, ε and method; accuracy in [0, 1].
PUBLISHED: Mapping[tuple[str, float, str], tuple[float, str]] = {
    ("mnist", 1.0, "DPSD"): (0.9603, "arXiv 2601.19090"),
    ("mnist", 1.0, "DPDFD"): (0.9512, "arXiv 2601.19090"),
    ("mnist", 1.0, "DataLens"): (0.7123, "arXiv 2601.19090"),
}

#: What published methods have not: a public source, exploration, balance, replay; answers are taken
#: at face value, where the student itself is the prior. How many rounds, queries and steps of the
#: generator they take is not published with them, so :func:`_published_methods` says.
_PUBLISHED: Settings = {
    "sources": ("none",),
    "exploration": 0.0,
    "prior_temperature": 1.0,
    "balance": False,
    "replay": 0.0,
    "consolidate": False,
}
#: By name and protection: DPDFD learns from noisy normalised gradients of soft answers as they are;
#: DPSD keeps the most important part of them (half of ten classes), or lies with some probability,
#: and learns by DKD towards the noisy label.
METHODS: Mapping[tuple[str, str], tuple[Settings, Settings]] = {
    ("DPSD", "data"): (
        {**_PUBLISHED, "objective": "noisy-dkd"},
        {"widen": False, "harden": False, "top_k": 5},
    ),
    ("DPDFD", "data"): (
        {**_PUBLISHED, "objective": "noisy"},
        {"widen": False, "harden": False},
    ),
    ("DPSD", "labels"): ({**_PUBLISHED, "objective": "noisy-dkd"}, {"candidates": "all"}),
}


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A table and its figure.

    Args:
        title: of both.
        data: data sets that it is about, if none are named.
        besides: more of them, where they are there; nobody misses them where they are not.
        figure: ``dots`` (a row each), ``panels`` (one for each thing that varies) or ``curves``
            (accuracy against seconds).
        rows: of the given task, with that share of the queries.
    """

    title: str
    data: Sequence[str]
    besides: Sequence[str] = ()
    figure: str
    rows: Callable[[Task, float], Iterable[Row]]


def data_sensitive(task: Task, share: float) -> list[Row]:
    """Gaussian noise on gradients, against ε, beside what else makes a private model."""
    rows = _references(task)
    for epsilon in EPSILONS:
        own = Transcribing(
            name="dpsd",
            protect="data",
            adjacency=Adjacency.ROUND,
            recipe=_one_round(task, epsilon, share),
        )
        rows += _published_methods(task, "data", epsilon, share)
        rows.append(_row(task, epsilon, "dpsd", own))
        if (shards := _shards(task, epsilon)) > 1:
            many = _many_teachers(task, shards)
            votes = _votes_on_real_images(task, shards, epsilon)
            rows.append(_row(task, epsilon, "dpsd-many", many))
            rows.append(_row(task, epsilon, "pate", votes))
        rows.append(_row(task, epsilon, "dp-sgd", PrivateSGD()))
        if quoted := PUBLISHED.get((task.data, epsilon, "DataLens")):
            data_lens = Quoted(name="DataLens", unit=Unit.RECORD, given="the training data")
            rows.append(_row(task, epsilon, "datalens", data_lens, *quoted))
    return rows


def label_sensitive(task: Task, share: float) -> list[Row]:
    """Randomised response, against ε, beside label privacy on the original images."""
    rows = _references(task)
    for epsilon in EPSILONS:
        rows += _published_methods(task, "labels", epsilon, share)
        many = Transcribing(
            name="dpsd, many rounds",
            protect="labels",
            adjacency=Adjacency.RESPONSE,
            recipe=_many_rounds(task, epsilon, share),
        )
        one = Transcribing(
            name="dpsd, one round",
            protect="labels",
            adjacency=Adjacency.ROUND,
            recipe=_one_round_of_labels(task, epsilon, share),
        )
        rows += [
            _row(task, epsilon, "dpsd-many-rounds", many),
            _row(task, epsilon, "dpsd-one-round", one),
            _row(task, epsilon, "randomized-labels", RandomizedLabels()),
            _row(task, epsilon, "prior-labels", PriorLabels()),
        ]
    return rows


#: What short runs share: long enough to tell good from bad, short enough to be run by the dozen.
SHORT: Settings = {
    "rounds": 3,
    "queries": 12_000,
    "first_queries": 24_000,
    "first_epochs": 4.0,
    "generator_steps": 40,
}


#: Their ε: at 1 they differ more from seed to seed than from one another; at 3, all are at 97 %.
TELLING = 2.0


def sensitivity(task: Task, share: float) -> Iterator[Row]:
    """One setting varied at a time in short runs: the paper's parameter study."""
    short = _shortened({**SHORT, "sources": sources_for(task)}, share)

    def row(
        panel: str,
        value: float | str,
        *,
        series: str = "",
        protect: str = "labels",
        epsilon: float = TELLING,
        recipe: Settings | None = None,
        mechanism: Settings | None = None,
    ) -> Row:
        what = f"{panel}, {series}" if series else panel
        method = Transcribing(
            name=f"{what} {value}",
            protect=protect,
            adjacency=Adjacency.RESPONSE,
            recipe={**short, **(recipe or {})},
            mechanism=mechanism or {},
        )
        found = _row(task, epsilon, f"{what}/{value}", method, panel=panel, value=value)
        return replace(found, series=series)

    for scaling in ("normalize", "clip", "none"):
        for epsilon in (1.0, 3.0, 10.0, 30.0):
            yield row(
                "ε",
                epsilon,
                series=scaling,
                protect="data",
                epsilon=epsilon,
                mechanism={"scaling": scaling},
            )
    whole = short["first_queries"] + 2 * short["queries"]
    for count in (1, 2, 5, 10, 25, 50):  # the same answers, in so many rounds
        shared = {"rounds": count, "queries": max(1, whole // count), "first_queries": None}
        steps = {"generator_steps": max(1, 120 // count)}
        yield row("rounds", count, recipe=shared | steps)
    for count in (3_000, 6_000, 12_000, 24_000):
        queries = round(count * share)
        yield row(
            "queries a round", queries, recipe={"queries": queries, "first_queries": 2 * queries}
        )
    for kept in (2, 3, 5, 10):
        yield row("top k", kept, protect="data", epsilon=10.0, mechanism={"top_k": kept})
    for bound in (0.1, 1.0, 10.0):
        yield row("bound C", bound, protect="data", epsilon=10.0, mechanism={"bound": bound})
    for name, label, values in (
        ("alpha", "DKD α", (0.5, 1.0, 2.0)),
        ("beta", "DKD β", (1.0, 2.0, 8.0)),
        ("temperature", "DKD temperature", (1.0, 2.0, 4.0)),
    ):
        for value in values:
            yield row(label, value, recipe={"objective": "dkd", name: value})


#: Each part of the method, taken out: what differs in the recipe and in the mechanism.
ABLATIONS: Mapping[str, tuple[Settings, Settings]] = {
    "as it is": ({}, {}),
    "no public source": ({"sources": ("none",)}, {}),
    "no generator": ({"generator_share": 0.0, "generator_steps": 0}, {}),
    "no exploration": ({"exploration": 0.0}, {}),
    "no class balance": ({"balance": False}, {}),
    "no replay": ({"replay": 0.0, "consolidate": False}, {}),
    "no last look at all": ({"consolidate": False}, {}),
    "no prior": ({"exploration": 1.0}, {}),
    "no choice of candidates": ({}, {"candidates": "all"}),
    "no likelihood: DKD to the posterior": ({"objective": "dkd"}, {}),
    "no likelihood: the noisy label": ({"objective": "noisy", "balance": False}, {}),
}


def ablation(task: Task, share: float) -> list[Row]:
    """One part taken out at a time, in runs long enough for each to matter."""
    rows = []
    whole = _shortened(
        {**SHORT, "rounds": 5, "generator_steps": 80, "sources": sources_for(task)}, share
    )
    for name, (recipe, mechanism) in ABLATIONS.items():
        method = Transcribing(
            name=name,
            protect="labels",
            adjacency=Adjacency.RESPONSE,
            recipe={**whole, **recipe},
            mechanism=mechanism,
        )
        rows.append(_row(task, TELLING, name.replace(" ", "-"), method))
    return rows


#: What a race is to.
REACH = 0.95


def speed(task: Task, share: float) -> list[Row]:
    """Seconds to an accuracy of 95 %, beside DP-SGD's, who has the data.

    Both are calibrated to the same ε at the end of all steps; who stops before has spent less.
    """
    rows = []
    sizes: dict[float, dict[str, Any]] = {
        1.0: {"rounds": 14},
        10.0: {"rounds": 4, "queries": 20_000, "first_queries": None},  # clean, so few will do
    }
    for epsilon in EPSILONS:
        labels = Transcribing(
            name="dpsd, labels",
            protect="labels",
            adjacency=Adjacency.RESPONSE,
            recipe=_shortened(_many_rounds(task, epsilon) | sizes[epsilon], share),
        )
        rows.append(_row(task, epsilon, "dpsd", Race(labels, reach=REACH)))
        rows.append(_row(task, epsilon, "dp-sgd", Race(PrivateSGD(stop_at=REACH), reach=REACH)))
    # At ε = 1 it takes a single round of an hour, and there is nothing before its end.
    short = {"rounds": 1, "queries": 60_000, "first_epochs": 4.0, "generator_steps": 0}
    data = Transcribing(
        name="dpsd, data",
        protect="data",
        adjacency=Adjacency.ROUND,
        recipe=_shortened(short, share) | {"sources": sources_for(task)},
    )
    rows.append(_row(task, 10.0, "dpsd-data", Race(data, reach=REACH)))
    return rows


def scale(task: Task, share: float) -> list[Row]:
    """Seconds and memory as one size grows; untrained teachers are as slow as trained ones."""

    def row(panel: str, value: float | str, **sizes: Any) -> Row:
        method = Untrained(name=f"{panel} {value}", **{"queries": round(8_000 * share), **sizes})
        return _row(task, 1.0, f"{panel}/{value}", method, panel=panel, value=value)

    rows = [
        row("queries", round(count * share), queries=round(count * share))
        for count in (8_000, 32_000, 128_000, 512_000)
    ]
    rows += [row("classes", count, num_classes=count) for count in (10, 100, 1_000)]
    rows += [
        row("pixels a side", side, input_shape=(3, side, side), queries=round(1_000 * share))
        for side in (32, 64, 128, 224)
    ]
    rows += [row("student", name, student=name) for name in ("lenet5", "cnn", "resnet8")]
    longer = round(128_000 * share)  # than processes take to start
    rows += [row("processes", count, devices=count, queries=longer) for count in (1, 2)]
    return rows


SUITES: Mapping[str, Suite] = {
    "data-sensitive": Suite(
        title="Data-sensitive protection: Gaussian noise on gradients",
        data=FIELD,
        besides=FIELD_BESIDES,
        figure="dots",
        rows=data_sensitive,
    ),
    "label-sensitive": Suite(
        title="Label-sensitive protection: randomised response",
        data=FIELD,
        besides=FIELD_BESIDES,
        figure="dots",
        rows=label_sensitive,
    ),
    "sensitivity": Suite(
        title="One setting at a time", data=("mnist",), figure="panels", rows=sensitivity
    ),
    "ablation": Suite(
        title="One part taken out at a time", data=("mnist",), figure="dots", rows=ablation
    ),
    "speed": Suite(
        title="Seconds to 95 %, beside DP-SGD, which is given the data",
        data=("mnist",),
        figure="curves",
        rows=speed,
    ),
    "scale": Suite(title="Time and memory", data=("digits",), figure="panels", rows=scale),
}


def sources_for(task: Task) -> tuple[str, ...]:
    """Public sources that suit a task's images."""
    return SOURCES.get(task.data) or PUBLIC[task.channels]


def _many_rounds(task: Task, epsilon: float, share: float = 1.0) -> dict[str, Any]:
    """Under ``response`` rounds cost nothing, so there are many; fewer where answers are clean."""
    clean = epsilon >= 3
    if task.data == "mnist":
        sizes = {"rounds": 14 if clean else 24, "queries": 30_000, "first_queries": 60_000}
        learning: dict[str, Any] = {"first_epochs": 4.0}
    else:
        sizes = {"rounds": 6 if clean else 14, "queries": 60_000, "first_queries": 150_000}
        learning = {"first_epochs": 4.0, "replay": 0.5, "generator_share": 0.3}
    return _shortened(sizes | learning | {"sources": sources_for(task)}, share)


def _one_round(task: Task, epsilon: float, share: float) -> dict[str, Any]:
    """Under ``round`` they cost, so there is one, in which queries are free."""
    if epsilon < 3:
        # So noisy are single answers that large batches pay.
        noisy = {"first_epochs": 1.0, "batch_size": 1024, "learning_rate": 0.01}
        sizes: dict[str, Any] = {"rounds": 1, "queries": 8_000_000} | noisy
    else:
        sizes = {"rounds": 1, "queries": 480_000, "first_epochs": 5.0}
    return _shortened(sizes | _suited(task), share)


def _one_round_of_labels(task: Task, epsilon: float, share: float) -> dict[str, Any]:
    if epsilon < 3:
        sizes: dict[str, Any] = {"rounds": 1, "queries": 1_200_000, "first_epochs": 2.5}
    else:
        sizes = {"rounds": 1, "queries": 240_000, "first_epochs": 5.0}
    return _shortened(sizes | _suited(task), share)


def _suited(task: Task) -> dict[str, Any]:
    sources = sources_for(task)
    return {"sources": sources, **(NATURAL if "crops" in sources else {})}


def _shortened(recipe: Settings, share: float) -> dict[str, Any]:
    sizes = {
        name: max(1, round(recipe[name] * share))
        for name in ("queries", "first_queries")
        if recipe.get(name)
    }
    return {**recipe, **sizes}


def _many_teachers(task: Task, shards: int) -> Transcribing:
    return Transcribing(
        name="dpsd, many teachers",
        protect="labels",
        adjacency=Adjacency.TEACHER,
        recipe={"sources": sources_for(task)},
        shards=shards,
    )


def _votes_on_real_images(task: Task, shards: int, epsilon: float) -> Pate:
    return Pate(
        shards=shards,
        queries=min(1_000 if epsilon < 3 else 4_000, Pate.most_queries(task.test_records)),
    )


def _shards(task: Task, epsilon: float) -> int:
    # Of few records, a teacher gets seven at least.
    return min(3_000 if epsilon < 3 else 500, task.records // 7)


def _published_methods(task: Task, protect: str, epsilon: float, share: float) -> Iterator[Row]:
    sizes = _shortened({"rounds": 6, "queries": 20_000, "generator_steps": 60}, share)
    for (name, protected), (recipe, mechanism) in METHODS.items():
        if protected != protect:
            continue
        method = Transcribing(
            name=f"{name}, to the letter",
            protect=protect,
            adjacency=Adjacency.ROUND,
            recipe={**sizes, **recipe},
            mechanism=mechanism,
        )
        key = (task.data, epsilon, name)
        quoted = PUBLISHED.get(key, (None, "")) if protect == "data" else (None, "")
        yield _row(task, epsilon, f"paper-{name.lower()}", method, *quoted)


def _references(task: Task) -> list[Row]:
    """What there is without privacy: with the data, and with the teacher's gradients."""
    return [
        Row(key=f"{task.data}/{key}", task=task, method=method)
        for key, method in (("distillation", Distillation()), ("dafl", DataFreeLearning()))
    ]


def _row(
    task: Task,
    epsilon: float,
    key: str,
    method: Any,
    published: float | None = None,
    source: str = "",
    panel: str = "",
    value: float | str = "",
) -> Row:
    # Others have relations of their own, which their unit names.
    adjacency = getattr(method, "adjacency", None) or Adjacency.TEACHER
    return Row(
        key=f"{task.data}/{epsilon:g}/{key}",
        task=task,
        method=method,
        target=Budget(epsilon=epsilon, delta=DELTA, adjacency=adjacency),
        published=published,
        source=source,
        panel=panel,
        value=value,
    )

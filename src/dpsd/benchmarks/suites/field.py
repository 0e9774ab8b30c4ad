"""What the field's two tables share: data sets, references without privacy, published methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from dpsd.benchmarks.baselines.data_free import DataFreeLearning
from dpsd.benchmarks.baselines.distillation import Distillation
from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.suites.suite import Settings, row_of, shortened
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.datasets.published import MEDMNIST_NAMES
from dpsd.privacy.targets import Adjacency

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


#: What papers report, by data set, ε and method; accuracy in [0, 1].
PUBLISHED: Mapping[tuple[str, float, str], tuple[float, str]] = {
    ("mnist", 1.0, "DPSD"): (0.9603, "arXiv 2601.19090"),
    ("mnist", 1.0, "DPDFD"): (0.9512, "arXiv 2601.19090"),
    ("mnist", 1.0, "DataLens"): (0.7123, "arXiv 2601.19090"),
}

#: What published methods have not: a public source, exploration, balance, replay; answers are taken
#: at face value, where the student itself is the prior. How many rounds, queries and steps of the
#: generator they take is not published with them, so :func:`published_methods` says.
_PUBLISHED: Settings = {
    "sources": ("none",),
    "cold_start": False,
    "exploration": 0.0,
    "prior_temperature": 1.0,
    "balance": False,
    "replay": 0.0,
    "consolidate": False,
}
#: What lets them start, which is ours: generators with random weights make queries too, and the
#: student learns from all releases again.
_START: Settings = {"cold_start": True, "replay": 1.0, "consolidate": True}
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


def published_methods(task: Task, protect: str, epsilon: float, share: float) -> Iterator[Row]:
    """Published methods of a protection, to the letter and with a start of ours.

    How many rounds and queries they take is ours to choose, and is the same for all.
    """
    sizes = shortened({"rounds": 6, "queries": 20_000, "generator_steps": 60}, share)
    for (name, protected), (recipe, mechanism) in METHODS.items():
        if protected != protect:
            continue
        quoted = PUBLISHED.get((task.data, epsilon, name)) if protect == "data" else None
        for key, said, start in (
            ("paper", "to the letter", {}),
            ("started", "with a start of ours", _START),
        ):
            method = Transcribing(
                name=f"{name}, {said}",
                protect=protect,
                adjacency=Adjacency.ROUND,
                recipe={**sizes, **recipe, **start},
                mechanism=mechanism,
            )
            yield row_of(task, epsilon, f"{key}-{name.lower()}", method, *(quoted or ()))


def generator_alone(task: Task, like: Transcribing, epsilon: float) -> Row:
    """A transcription of ours whose only source of queries is the generator."""
    alone = replace(
        like,
        name=f"{like.name}, generator alone",
        recipe={**like.recipe, "sources": ("none",)},
    )
    return row_of(task, epsilon, "generator-alone", alone)


def references(task: Task) -> list[Row]:
    """What there is without privacy: with the data, and with the teacher's gradients."""
    return [
        Row(key=f"{task.data}/{key}", task=task, method=method)
        for key, method in (("distillation", Distillation()), ("dafl", DataFreeLearning()))
    ]

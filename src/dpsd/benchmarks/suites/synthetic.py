"""Synthetic records of private generators, each scored by what a classifier learns from them.

Every generator makes as many records, the same classifier is trained on them, and it is measured on
real images. What was published stands in a column of its own: it was measured by others, with
other classifiers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dpsd.benchmarks.baselines.embedding_generators import DpHp, DpMerf
from dpsd.benchmarks.baselines.private_gan import PrivateGan
from dpsd.benchmarks.methods import Method, Task, Unit
from dpsd.benchmarks.rows import Quoted, Row
from dpsd.benchmarks.sampling import SyntheticTranscribing
from dpsd.benchmarks.scoring import EPOCHS, IMAGES, RealRecords
from dpsd.benchmarks.suites.data_sensitive import one_round, shards_for
from dpsd.benchmarks.suites.label_sensitive import many_rounds
from dpsd.benchmarks.suites.queries import sources_for
from dpsd.benchmarks.suites.suite import EPSILONS, Settings, Suite, row_of
from dpsd.privacy.targets import Adjacency

#: Where the published figures are from: one protocol for all methods.
_SOURCE = "arXiv 2503.14681"

#: Published accuracies in [0, 1], by data set and row, at each of :data:`EPSILONS`.
_PUBLISHED: Mapping[tuple[str, str], Sequence[float]] = {
    ("mnist", "dp-merf"): (0.803, 0.813),
    ("mnist", "dp-kernel"): (0.940, 0.936),
    ("mnist", "dp-ntk"): (0.500, 0.913),
    ("mnist", "gs-wgan"): (0.724, 0.753),
    ("mnist", "dp-gan"): (0.924, 0.927),
    ("mnist", "dpdm"): (0.892, 0.977),
    ("mnist", "dp-feta"): (0.956, 0.981),
    ("fashion-mnist", "dp-merf"): (0.622, 0.622),
    ("fashion-mnist", "dp-kernel"): (0.684, 0.700),
    ("fashion-mnist", "dp-ntk"): (0.644, 0.763),
    ("fashion-mnist", "gs-wgan"): (0.527, 0.567),
    ("fashion-mnist", "dp-gan"): (0.718, 0.703),
    ("fashion-mnist", "dpdm"): (0.764, 0.856),
    ("fashion-mnist", "dp-feta"): (0.817, 0.873),
}

#: Published methods that are not measured here, with what the accounting of the figures is about.
_QUOTED = {
    "dp-kernel": ("DP-Kernel", Unit.RECORD_ADDED),
    "dp-ntk": ("DP-NTK", Unit.RECORD),
    "gs-wgan": ("GS-WGAN", Unit.RECORD_ADDED),
    "dpdm": ("DPDM", Unit.RECORD_ADDED),
    "dp-feta": ("DP-FETA", Unit.RECORD_ADDED),
}

#: A run of one round trains its generator once, so it does so for longer than by default.
_GENERATOR: Settings = {"generator_steps": 600}

_BASELINES: Mapping[str, Method] = {
    "dp-merf": DpMerf(),
    "dp-hp": DpHp(),
    "dp-gan": PrivateGan(),
}


def synthetic(task: Task, share: float) -> Iterator[Row]:
    """The real records, and at every ε our synthetic records, the baselines and what is quoted."""
    yield Row(key=f"{task.data}/real", task=task, method=RealRecords())
    for epsilon in EPSILONS:
        for method in _transcriptions(task, epsilon, share):
            yield _row(task, epsilon, f"dpsd-{method.adjacency.value}", method)
        for key, baseline in _BASELINES.items():
            yield _row(task, epsilon, key, baseline)
        for key, (name, unit) in _QUOTED.items():
            if (task.data, key) in _PUBLISHED:
                quoted = Quoted(name=name, unit=unit, given="the training data")
                yield _row(task, epsilon, key, quoted)


def _row(task: Task, epsilon: float, key: str, method: Method | Quoted) -> Row:
    """A row with what was published of its method at that ε."""
    figures = _PUBLISHED.get((task.data, key))
    if figures is None:
        return row_of(task, epsilon, key, method)
    return row_of(task, epsilon, key, method, figures[EPSILONS.index(epsilon)], _SOURCE)


def _transcriptions(task: Task, epsilon: float, share: float) -> Iterator[SyntheticTranscribing]:
    """Ours, under each adjacency, with the recipes of the field's tables."""
    yield SyntheticTranscribing(
        name="dpsd, labels",
        protect="labels",
        adjacency=Adjacency.RESPONSE,
        recipe=many_rounds(task, epsilon, share),
    )
    yield SyntheticTranscribing(
        name="dpsd, data",
        protect="data",
        adjacency=Adjacency.ROUND,
        recipe={**one_round(task, epsilon, share), **_GENERATOR},
    )
    if (shards := shards_for(task, epsilon)) > 1:
        yield SyntheticTranscribing(
            name="dpsd, many teachers",
            protect="labels",
            adjacency=Adjacency.TEACHER,
            recipe={"sources": sources_for(task), **_GENERATOR},
            shards=shards,
        )


SUITE = Suite(
    title="Synthetic records of private generators, by what a classifier learns from them",
    data=("mnist", "fashion-mnist"),
    figure="dots",
    rows=synthetic,
    note=f"Each generator makes {IMAGES:,} labelled images, as many of each class but for those of "
    "dpsd, whose student labels them. Accuracy is that of a small network without BatchNorm after "
    f"{EPOCHS} epochs on these alone; no real image trains it or chooses it. Published figures are "
    "DPImageBench's, with other classifiers; what their ε is about is what the code that measured "
    "them accounts for.",
)

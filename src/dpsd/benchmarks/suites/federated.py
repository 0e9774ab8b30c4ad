"""Clients that hold parts of the data: a federated transcription beside federated learning.

Each partition, by a Dirichlet distribution's parameter over so many clients, has the same rows.
Methods that transcribe or distil start from the same teachers, one a client; those that average
train the clients' models themselves. What was published stands in a column of its own, and was
measured by others, on other partitions and larger models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from dpsd.benchmarks.federated.alone import Alone, Centralised, Together
from dpsd.benchmarks.federated.averaging import Averaging
from dpsd.benchmarks.federated.dense import Dense
from dpsd.benchmarks.federated.distilling import FedDF
from dpsd.benchmarks.federated.private_averaging import LocalPrivateSGD, PrivateAveraging
from dpsd.benchmarks.federated.transcribing import FederatedTranscribing
from dpsd.benchmarks.methods import Task, Unit
from dpsd.benchmarks.rows import Quoted, Row
from dpsd.benchmarks.suites.label_sensitive import many_rounds
from dpsd.benchmarks.suites.queries import sources_for, suited
from dpsd.benchmarks.suites.suite import DELTA, EPSILONS, Suite, shortened
from dpsd.benchmarks.tables import (
    ABOUT,
    ACCURACY,
    DATA,
    EPSILON,
    GIVEN,
    METHOD,
    MISSING,
    PEAK,
    PUBLISHED,
    SECONDS,
    SPREAD,
    Column,
    Summary,
)
from dpsd.privacy.targets import Adjacency, Budget

CLIENTS = (5, 10, 20)
ALPHAS = (0.1, 0.3, 0.5)

#: Accuracies in one round with five clients, by data set and method, for each of :data:`ALPHAS`:
#: DENSE's table, as arXiv 2410.20380 quotes it, and its own.
_FIVE_CLIENTS: Mapping[tuple[str, str], Sequence[float]] = {
    ("mnist", "fedavg"): (0.482, 0.729, 0.906),
    ("mnist", "feddf"): (0.602, 0.740, 0.922),
    ("mnist", "fed-dafl"): (0.644, 0.742, 0.930),
    ("mnist", "dense"): (0.666, 0.765, 0.958),
    ("mnist", "fusefl"): (0.970, 0.984, 0.985),
    ("fashion-mnist", "fedavg"): (0.417, 0.830, 0.837),
    ("fashion-mnist", "feddf"): (0.436, 0.807, 0.847),
    ("fashion-mnist", "fed-dafl"): (0.471, 0.806, 0.840),
    ("fashion-mnist", "dense"): (0.503, 0.840, 0.859),
    ("fashion-mnist", "fusefl"): (0.832, 0.899, 0.895),
    ("cifar10", "fedavg"): (0.239, 0.277, 0.437),
    ("cifar10", "feddf"): (0.406, 0.468, 0.536),
    ("cifar10", "fed-dafl"): (0.473, 0.539, 0.586),
    ("cifar10", "dense"): (0.503, 0.598, 0.622),
    ("cifar10", "fusefl"): (0.709, 0.814, 0.843),
}

#: What was published, by data set, clients, alpha and method: accuracy in [0, 1], and where.
PUBLISHED_FIGURES: Mapping[tuple[str, int, float, str], tuple[float, str]] = {
    **{
        (data, 5, alpha, method): (accuracy, "arXiv 2410.20380")
        for (data, method), accuracies in _FIVE_CLIENTS.items()
        for alpha, accuracy in zip(ALPHAS, accuracies, strict=True)
    },
    ("cifar10", 10, 0.5, "dense"): (0.614, "arXiv 2112.12371"),
    ("cifar10", 20, 0.5, "dense"): (0.527, "arXiv 2112.12371"),
    ("cifar10", 5, 0.5, "feddpsd"): (0.7112, "arXiv 2601.19090"),
}

#: The data set whose published figures stand beside a data set's rows, if not its own.
_PUBLISHED_ON = {"cifar10-jpeg": "cifar10"}

#: Published methods that are not measured here.
_QUOTED = {
    "fed-dafl": Quoted(name="Fed-DAFL", unit=Unit.NOTHING, given="the models of all clients"),
    "fusefl": Quoted(
        name="FuseFL, K = 2",
        unit=Unit.NOTHING,
        given="the training data, each part at its client",
    ),
    "feddpsd": Quoted(
        name="FedDPSD (its ε is not quoted)", unit=Unit.ANSWERS, given="the models of all clients"
    ),
}


def federated(task: Task, share: float) -> Iterator[Row]:
    """Each partition's rows: without privacy, then with it, at every ε."""
    yield Row(key=f"{task.data}/centralised", task=task, method=Centralised())
    for clients, alpha in product(CLIENTS, ALPHAS):
        yield from _partition(task, share, {"clients": clients, "alpha": alpha})


def _partition(task: Task, share: float, parts: Mapping[str, Any]) -> Iterator[Row]:
    clients, alpha = parts["clients"], parts["alpha"]
    own, sources = f"{task.data}/{clients}-{alpha:g}", sources_for(task)

    def row(key: str, method: Any, epsilon: float | None = None) -> Row:
        target = None
        if epsilon is not None:
            adjacency = getattr(method, "adjacency", None) or Adjacency.TEACHER
            target = Budget(epsilon=epsilon, delta=DELTA, adjacency=adjacency)
        place = own if epsilon is None else f"{own}/{epsilon:g}"
        published, source = _published(task, clients, alpha, key) or (None, "")
        return Row(
            key=f"{place}/{key}",
            task=task,
            method=method,
            target=target,
            published=published,
            source=source,
            panel=f"{clients} clients, Dirichlet {alpha:g}",
        )

    yield row("alone-mean", Alone(choice="mean", **parts))
    yield row("alone-best", Alone(choice="best", **parts))
    yield row("ensemble", Together(**parts))
    yield row("fedavg", Averaging(**parts))
    yield row("fedavg-10", Averaging(rounds=10, epochs=2, **parts))
    yield row("fedprox", Averaging(proximal=0.01, **parts))
    yield row("fedprox-10", Averaging(rounds=10, epochs=2, proximal=0.01, **parts))
    yield row("feddf", FedDF(sources=sources, **parts))
    yield row("dense", Dense(**parts))
    for key, quoted in _QUOTED.items():
        if _published(task, clients, alpha, key):
            yield row(key, quoted)
    for epsilon in EPSILONS:
        for protect, adjacency, recipe in (
            ("labels", Adjacency.RESPONSE, many_rounds(task, epsilon, share)),
            ("data", Adjacency.ROUND, _one_round(task, epsilon, share)),
        ):
            method = FederatedTranscribing(
                name=f"dpsd, {protect}",
                protect=protect,
                adjacency=adjacency,
                recipe=recipe,
                **parts,
            )
            yield row(f"dpsd-{protect}", method, epsilon)
            if protect == "labels":
                summed = replace(method, name="dpsd, labels, a trusted server adds up", sums=True)
                yield row("dpsd-labels-summed", summed, epsilon)
        yield row("dp-fedavg-client", PrivateAveraging(**parts), epsilon)
        yield row("dp-fedavg-record", LocalPrivateSGD(**parts), epsilon)


def _one_round(task: Task, epsilon: float, share: float) -> dict[str, Any]:
    """Under ``round`` rounds cost, so there is one; noisier answers take larger batches."""
    sizes: dict[str, Any] = {"rounds": 1, "queries": 300_000, "first_epochs": 5.0}
    if epsilon < 3:
        sizes |= {"batch_size": 1024, "learning_rate": 0.01}
    return shortened(sizes | suited(task), share)


def _published(task: Task, clients: int, alpha: float, method: str) -> tuple[float, str] | None:
    """What was published for a row, and where; the data set is named if it is not the row's."""
    data = _PUBLISHED_ON.get(task.data, task.data)
    found = PUBLISHED_FIGURES.get((data, clients, alpha, method))
    if found is None or data == task.data:
        return found
    return found[0], f"{found[1]}, on {data}"


def _bytes(name: str) -> Any:
    def cell(summary: Summary, among: Sequence[Summary]) -> str:
        found = [one.outcome.details.get(name) for one in summary.runs]
        return f"{found[0] / 1e3:,.0f}" if found and found[0] is not None else MISSING

    return cell


SUITE = Suite(
    title="Federated: clients that hold parts of the data",
    data=("mnist",),
    besides=("fashion-mnist", "cifar10-jpeg", "cifar10"),
    figure="dots",
    rows=federated,
    columns=(
        DATA,
        Column(name="partition", cell=lambda one, _: one.row.panel or "all data in one place"),
        METHOD,
        GIVEN,
        EPSILON,
        ABOUT,
        ACCURACY,
        SPREAD,
        PUBLISHED,
        Column(name="down (kB)", cell=_bytes("bytes_down"), is_number=True),
        Column(name="up (kB)", cell=_bytes("bytes_up"), is_number=True),
        SECONDS,
        PEAK,
    ),
    note="Down and up are what one client receives and sends in all, on average over clients. The "
    "training of the clients' teachers is not part of the seconds. The best client is chosen by "
    "the images that it is measured on. The ε of DP-FedAvg by client is about all records of a "
    "client, and the server is trusted; that by record holds against the server too. Where "
    "a trusted server adds up, ε is against everybody else; against that server, it is 2.2 with "
    "five clients and 3.5 with ten where it is 1 against all others.",
)

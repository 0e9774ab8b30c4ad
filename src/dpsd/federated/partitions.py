"""Partitions of a data set over clients, some of whom have hardly seen some classes.

The records of each class are divided in proportions that are drawn from a Dirichlet distribution,
class by class. The smaller its parameter alpha, the fewer classes a client has; for a large one,
all clients have nearly equal parts of each class.

>>> labels = torch.arange(10).repeat(100)
>>> partition = dirichlet_partition(labels, num_classes=10, clients=4, alpha=0.3)
>>> partition.counts.shape, int(partition.counts.sum())
(torch.Size([4, 10]), 1000)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpsd.errors import ConfigError, Setting
from dpsd.reporting.figures import SERIES, Figure, canvas, plain, styled_axes

#: How often proportions are drawn until each client has enough records.
_MOST_DRAWS = 1_000

#: The most ticks on an axis, the most inches of a side, and the area of the largest dot, in points.
_MOST_TICKS, _LONGEST, _LARGEST_DOT = 40, 10.0, 180.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Partition:
    """The client that each record of a data set belongs to.

    Args:
        client: the number of the client that has each record, int64 ``(N,)``, from 0.
        labels: the class of each record, int64 ``(N,)``.
        clients: the number of clients, M.
        num_classes: the number of classes, K.
    """

    client: Tensor
    labels: Tensor
    clients: int
    num_classes: int

    def rows(self, client: int) -> Tensor:
        """The rows of the data set that a client has, in order, int64 ``(n,)``."""
        return (self.client == client).nonzero().flatten()

    @property
    def counts(self) -> Tensor:
        """How many records of each class each client has, int64 ``(M, K)``."""
        cells = self.client * self.num_classes + self.labels
        counts = torch.bincount(cells, minlength=self.clients * self.num_classes)
        return counts.view(self.clients, self.num_classes)

    @property
    def digest(self) -> str:
        """A hash of who has which record, by which the same partition is found again."""
        return hashlib.sha256(self.client.numpy().astype("<i8").tobytes()).hexdigest()

    def picture(self, class_names: Sequence[str] = ()) -> Figure:
        """Draw how many records of each class each client has, and return that as a table too.

        Args:
            class_names: the names of the classes; their numbers if there are none.
        """
        names = list(class_names) or [str(number) for number in range(self.num_classes)]
        counts = self.counts
        figure = canvas(
            min(_LONGEST, 1.6 + 0.32 * self.clients), min(_LONGEST, 1.0 + 0.24 * self.num_classes)
        )
        axes = styled_axes(figure, 1, 1, 1)
        client, label = counts.nonzero(as_tuple=True)
        shares = counts[client, label] / counts.max()
        axes.scatter(client + 1, label, s=_LARGEST_DOT * shares, color=SERIES[0], linewidths=0)
        axes.set_xlabel("client")
        axes.set_ylabel("class")
        axes.set_xlim(0.4, self.clients + 0.6)
        axes.set_ylim(self.num_classes - 0.4, -0.6)
        if self.clients <= _MOST_TICKS:
            axes.set_xticks(range(1, self.clients + 1))
        if self.num_classes <= _MOST_TICKS:
            axes.set_yticks(range(self.num_classes), [plain(name) for name in names])
        return Figure(
            name="partition",
            title="Records of each class by client",
            finding=self._found(),
            drawn=figure,
            headings=("client", *names, "all"),
            rows=[
                (str(number), *(f"{count:,}" for count in row), f"{sum(row):,}")
                for number, row in enumerate(counts.tolist(), start=1)
            ],
        )

    def _found(self) -> str:
        counts = self.counts
        records, classes = counts.sum(1).tolist(), (counts > 0).sum(1).tolist()
        return (
            f"The smallest of {self.clients} clients has {min(records):,} records, and the largest "
            f"{max(records):,}. A client has records of {min(classes)} to {max(classes)} of the "
            f"{self.num_classes} classes. The area of a dot is in proportion to the records of a "
            "class that a client has."
        )


def dirichlet_partition(
    labels: Tensor, *, num_classes: int, clients: int, alpha: float, seed: int = 0, least: int = 10
) -> Partition:
    """Divide the records of each class over clients, in proportions drawn from a Dirichlet.

    Proportions are drawn again, for all classes, until each client has enough records in all. The
    same arguments give the same partition.

    Args:
        labels: the class of each record, int64 ``(N,)``.
        num_classes: the number of classes, K.
        clients: the number of clients, at least 2.
        alpha: the parameter of the symmetric Dirichlet distribution, > 0.
        seed: the seed of proportions, and of which records of a class a client gets.
        least: the least number of records of a client, at least 1.

    Raises:
        ConfigError: a number is out of range, or no draw gave each client enough records.

    Source: Hsu, Qi & Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated
    Visual Classification", 2019, with the proportions drawn for each class (Li et al., "Federated
    Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022, section 4.1).
    """
    _check(len(labels), clients=clients, alpha=alpha, least=least)
    generator = np.random.Generator(np.random.Philox(seed))
    classes = labels.numpy()
    # The records of each class, one class after the other, each in random order.
    order = generator.permutation(len(classes))
    order = order[classes[order].argsort(kind="stable")]
    sizes = np.bincount(classes, minlength=num_classes)
    for _ in range(_MOST_DRAWS):
        proportions = generator.dirichlet(np.full(clients, alpha), size=num_classes)
        counts = _counts(proportions, sizes)
        if counts.sum(0).min() >= least:
            client = np.empty(len(classes), dtype=np.int64)
            client[order] = np.tile(np.arange(clients), num_classes).repeat(counts.ravel())
            return Partition(
                client=torch.from_numpy(client),
                labels=labels,
                clients=clients,
                num_classes=num_classes,
            )
    raise ConfigError(
        f"{_MOST_DRAWS:,} draws with alpha {alpha:g} left one of {clients} clients with fewer than "
        f"{least} of {len(labels):,} records: use fewer clients or a larger alpha"
    )


def _counts(proportions: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers in these proportions, ``(K, M)``, that add up to the size of each class."""
    ends = np.rint(proportions.cumsum(1) * sizes[:, None]).astype(np.int64)
    ends[:, -1] = sizes
    return np.diff(ends, axis=1, prepend=0)


def _check(records: int, *, clients: int, alpha: float, least: int) -> None:
    if clients < 2:
        raise ConfigError(Setting("clients"), f" must be at least 2, not {clients}")
    if not 0 < alpha < math.inf:
        raise ConfigError(f"alpha must be positive and finite, not {alpha}")
    if least < 1 or least * clients > records:
        raise ConfigError(
            f"least is {least}, but {records:,} records over {clients} clients allow 1 to "
            f"{records // clients:,}"
        )

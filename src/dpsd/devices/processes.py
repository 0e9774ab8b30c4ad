"""Several processes on one run, each with a device of its own: what one has to ask of the others.

Process 0 leads: it alone synthesises, writes, and owns the ledger. The others answer their part of
every batch of queries, and take their rows of every training batch. What travels between them is
public: queries, priors, releases, gradients, weights. A raw answer never leaves the process that
asked for it.

One process is the rule, and :data:`ALONE` is that: it has nobody to talk to, so each of its methods
gives back what it was given. Several are a :class:`~dpsd.devices.group.Group`.

>>> ALONE.leads, ALONE.share(256)
(True, Share(rows=slice(0, 256, None), weight=1.0))
>>> ALONE.gather(torch.tensor([1, 2])).tolist()
[1, 2]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn

from dpsd.errors import RunError


class StoppedError(RunError):
    """Another process ended the run; that one, or process 0, says why."""


@dataclass(frozen=True)
class Share:
    """A process's part of a training batch.

    Args:
        rows: which of the batch.
        weight: their part of the batch; of all processes together 1.
    """

    rows: slice
    weight: float


class Processes:
    """One process, and what several would have to agree on."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is process 0, which owns the run."""
        return self.rank == 0

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def deal(self, *columns: Tensor) -> tuple[Tensor, ...]:
        """Give every process its rows of a batch of queries, each row to exactly one (process 0).

        Args:
            columns: on the CPU, all of the same length, at least 1.

        Returns:
            This process's rows of each.
        """
        return columns

    def dealt(self) -> Iterator[tuple[Tensor, ...] | None]:
        """Yield this process's rows of each batch, ``None`` if there are too few (the others)."""
        return iter(())

    def end_deal(self) -> None:
        """Tell the others that there is no more to deal (process 0)."""

    def gather(self, rows: Tensor | None) -> Tensor:
        """All processes' rows, in the order in which they were dealt; of use to process 0 alone.

        Args:
            rows: this process's, on the CPU, ``(n, …)``; ``None`` if it was dealt none.
        """
        assert rows is not None
        return rows

    def share(self, total: int) -> Share:
        """The part of a training batch of so many rows that is this process's."""
        return Share(slice(0, total), 1.0)

    @contextmanager
    def training(self, module: nn.Module) -> Iterator[nn.Module]:
        """Train a module in all processes, as if in one; afterwards all have the same.

        Args:
            module: trained in place; all processes begin with process 0's.

        Yields:
            What to call instead of the module in every training step.
        """
        yield module

    def backward(self, loss: Tensor, share: Share) -> None:
        """Compute gradients: those of the mean over the whole batch, in every process.

        Args:
            loss: the mean over the rows of this process's share.
            share: this process's part of the batch.
        """
        torch.autograd.backward(loss)

    def combine(self, value: Tensor) -> Tensor:
        """The sum of every process's value."""
        return value

    def copy(self, module: nn.Module) -> None:
        """Make a module in every process what it is in process 0."""

    def barrier(self) -> None:
        """Wait until all processes are here."""

    def agree(self, name: str, value: str) -> None:
        """Refuse to go on where a process has another value than process 0.

        Raises:
            ConfigError: this one has.
        """


#: The one process of an ordinary run.
ALONE = Processes()

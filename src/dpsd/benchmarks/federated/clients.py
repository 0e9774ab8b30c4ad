"""The clients that all methods of the federated suite share, and what is sent to and from them.

>>> Clients(clients=1)
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: clients must be at least 2, not 1
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.processes import in_a_process
from dpsd.benchmarks.teachers import open_module
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.federated.partitions import Partition, dirichlet_partition
from dpsd.federated.parts import ClientTeachers


@dataclass(frozen=True, kw_only=True)
class Clients:
    """The clients of a federation, and how the training data are divided over them.

    Args:
        clients: the number of clients, at least 2.
        alpha: the parameter of the Dirichlet distribution, > 0.
        drawn: the seed of the partition, which is the same for all seeds of a method.
        teacher_epochs: passes over a client's data that make its teacher, at least 1; as many as
            teachers get here, 8 to 40, if not given.
    """

    clients: int = 5
    alpha: float = 0.5
    drawn: int = 0
    teacher_epochs: int | None = None

    def __post_init__(self) -> None:
        if self.clients < 2:
            raise ConfigError(f"clients must be at least 2, not {self.clients}")
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"alpha must be positive and finite, not {self.alpha}")

    def partition(self, task: Task) -> Partition:
        """Return the partition of the task's training data over the clients."""
        return dirichlet_partition(
            task.train.labels,
            num_classes=task.train.num_classes,
            clients=self.clients,
            alpha=self.alpha,
            seed=self.drawn,
        )

    def parts(self, task: Task) -> list[LabelledImages]:
        """Return the training data of each client."""
        partition = self.partition(task)
        return [task.train.subset(partition.rows(number)) for number in range(self.clients)]

    def teacher_paths(self, task: Task) -> list[Path]:
        """Return the directories of the clients' teachers, which are trained if not there yet."""
        teachers = ClientTeachers(
            data=task.data,
            folder=task.teachers,
            model=task.model,
            clients=self.clients,
            alpha=self.alpha,
            seed=self.drawn,
            epochs=self.teacher_epochs,
            validation_share=task.validation_share,
        )
        if not teachers.are_kept():
            # Their memory and time are no method's that comes first.
            in_a_process(teachers.train, _tell)
        return teachers.paths

    def white_boxes(self, task: Task) -> list[nn.Module]:
        """Return the clients' modules themselves: for what promises no privacy."""
        execution = Execution.of()
        return [execution.place(open_module(path)) for path in self.teacher_paths(task)]


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


class Ensemble(nn.Module):
    """Clients' classifiers together: the mean of their logits.

    >>> two = Ensemble([nn.Flatten(), nn.Flatten()])
    >>> two(torch.ones(1, 3, 1, 1))
    tensor([[1., 1., 1.]])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, ``(N, K)``, of images in ``[0, 1]``, ``(N, C, H, W)``."""
        return torch.stack([member(images) for member in self.members]).mean(0)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return what clients and server exchange of a model: weights and statistics, by name.

    Counters of batches are left out, as nothing reads them.
    """
    return {
        name: part.detach().cpu().contiguous()
        for name, part in module.state_dict().items()
        if part.is_floating_point()
    }


def size_of(weights: Mapping[str, Tensor]) -> int:
    """Return the bytes that weights take on the wire.

    >>> size_of({"weight": torch.zeros(2, 3)})
    24
    """
    return sum(part.nbytes for part in weights.values())


def sent(*, down: float, up: float) -> dict[str, int]:
    """Return the bytes that one client receives and sends, as details of an outcome."""
    return {"bytes_down": round(down), "bytes_up": round(up)}

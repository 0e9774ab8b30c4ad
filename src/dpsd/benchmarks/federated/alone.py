"""What clients can do alone, what their models can do together, and what their data can.

>>> Alone(choice="best").name, Together().given
('best client alone', 'the models of all clients')
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import mean
from typing import Literal

from dpsd.benchmarks.baselines.checks import refuse_target
from dpsd.benchmarks.federated.clients import Clients, Ensemble, sent, size_of, weights_of
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Budget


@dataclass(frozen=True, kw_only=True)
class Alone(Clients):
    """Each client's own teacher.

    Args:
        choice: ``"mean"`` is the mean accuracy of the clients; ``"best"`` is that of the best one,
            which is chosen by the very images that it is measured on, so nobody could choose it.
    """

    choice: Literal["mean", "best"] = "mean"

    unit: Unit = field(default=Unit.NOTHING, init=False)
    given: str = field(default="the training data of one client", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.choice not in ("mean", "best"):
            raise ConfigError(f"choice must be mean or best, not {self.choice!r}")

    @property
    def name(self) -> str:
        """The method's name in tables."""
        return "best client alone" if self.choice == "best" else "a client alone, on average"

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Measure the clients' teachers.

        Raises:
            ConfigError: a privacy target, which this cannot meet.
        """
        refuse_target(self.name, target)
        accuracies = [task.accuracy(module) for module in self.white_boxes(task)]
        chosen = max(accuracies) if self.choice == "best" else mean(accuracies)
        return Outcome(
            accuracy=chosen, seconds=0.0, details={"clients": accuracies, **sent(down=0, up=0)}
        )


@dataclass(frozen=True, kw_only=True)
class Together(Clients):
    """All clients' models, whose logits are averaged: a model as large as all of them."""

    name: str = field(default="ensemble of the clients", init=False)
    unit: Unit = field(default=Unit.NOTHING, init=False)
    given: str = field(default="the models of all clients", init=False)

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Measure the ensemble.

        Raises:
            ConfigError: a privacy target, which this cannot meet.
        """
        refuse_target(self.name, target)
        modules = self.white_boxes(task)
        start = time.perf_counter()
        ensemble = Ensemble(modules)
        seconds = time.perf_counter() - start
        return Outcome(
            accuracy=task.accuracy(ensemble),
            seconds=seconds,
            details=sent(down=0, up=size_of(weights_of(modules[0]))),
        )


@dataclass(frozen=True, kw_only=True)
class Centralised(Clients):
    """A model that is trained on the data of all clients in one place: the ceiling."""

    name: str = field(default="centralised", init=False)
    unit: Unit = field(default=Unit.NOTHING, init=False)
    given: str = field(default="the training data of all clients", init=False)

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Measure the task's own teacher, which is trained on all data.

        Raises:
            ConfigError: a privacy target, which this cannot meet.
        """
        refuse_target(self.name, target)
        pixels = len(task.train) * task.train.images[0].nbytes
        return Outcome(
            accuracy=task.accuracy(task.white_box()),
            seconds=0.0,
            details=sent(down=0, up=pixels / self.clients),
        )

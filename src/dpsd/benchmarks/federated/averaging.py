"""Averaging of clients' weights by Flower's own strategies: FedAvg and FedProx.

>>> Averaging(rounds=1).name, Averaging(rounds=10, proximal=0.01).name
('FedAvg, 1 round', 'FedProx, 10 rounds')
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

from dpsd.benchmarks.baselines.checks import refuse_target, require_positive
from dpsd.benchmarks.federated.clients import Clients, sent, size_of, weights_of
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.extras import how_to_install
from dpsd.models import build_classifier
from dpsd.privacy.targets import Budget
from dpsd.training.classifier import train_teacher

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

#: Trains a module on the data of a client, in place; the last argument is FedProx's μ.
Local: TypeAlias = Callable[[nn.Module, LabelledImages, float], None]


@dataclass(frozen=True, kw_only=True)
class Averaging(Clients):
    """FedAvg, or FedProx if there is a proximal term: clients train, and the server averages.

    All clients take part in every round. A client trains as teachers are trained here (AdamW, one
    cycle a round, light augmentation), and weights and BatchNorm statistics are averaged in
    proportion to its records.

    Args:
        rounds: rounds of training and averaging, at least 1.
        epochs: a client's passes over its data in a round, at least 1.
        proximal: FedProx's μ, which pulls a client's weights to those it was sent; 0 is FedAvg.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017, Algorithm 1; Li et al., "Federated Optimization in Heterogeneous Networks",
    MLSys 2020, Algorithm 2.
    """

    rounds: int = 1
    epochs: int = 10
    proximal: float = 0.0

    unit: Unit = field(default=Unit.NOTHING, init=False)
    given: str = field(default="the training data, each part at its client", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "rounds", "epochs")
        if not 0 <= self.proximal < float("inf"):
            raise ConfigError(f"proximal must be at least 0 and finite, not {self.proximal}")

    @property
    def name(self) -> str:
        """The method's name in tables."""
        kind = "FedProx" if self.proximal else "FedAvg"
        return f"{kind}, {self.rounds} round{'s' * (self.rounds > 1)}"

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Train and average, and measure the average after every round, for the table only.

        Raises:
            ConfigError: a privacy target, which this cannot meet, or Flower is not installed.
        """
        refuse_target(self.name, target)
        strategies = flower_strategies()

        def strategy() -> Any:
            if self.proximal:
                return strategies.FedProx(proximal_mu=self.proximal, fraction_evaluate=0.0)
            return strategies.FedAvg(fraction_evaluate=0.0)

        module = fresh(task.model, task, seed=seed)

        def local(module: nn.Module, part: LabelledImages, proximal: float) -> None:
            # Where it trains, so that what it is pulled to lies there too.
            pull_back(Execution.of().place(module), proximal)
            train_on(part, module, epochs=self.epochs, seed=seed)

        return federated(
            task, self.parts(task), module, strategy=strategy, local=local, rounds=self.rounds
        )


def train_on(part: LabelledImages, module: nn.Module, *, epochs: int, seed: int) -> None:
    """Train a module in place on a client's data, as teachers are trained here."""
    execution = Execution.of()
    train_teacher(
        part,
        model=module,
        epochs=epochs,
        seed=seed,
        device=str(execution.device),
        precision=execution.precision,
    )


def fresh(model: str | Callable[..., nn.Module], task: Task, *, seed: int) -> nn.Module:
    """Return an untrained classifier for a task."""
    data = task.train
    return build_classifier(
        model, input_shape=data.input_shape, num_classes=data.num_classes, seed=seed
    )


def pull_back(module: nn.Module, proximal: float) -> None:
    """Add the gradient of ``μ/2 ‖w - w₀‖²``, with the weights as they are, to every later one.

    Args:
        module: the module whose weights are pulled to where they are now.
        proximal: μ, at least 0; nothing is done if it is 0.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> pull_back(layer, 0.5)
    >>> _ = layer.weight.data.add_(2.0)
    >>> (0.0 * layer.weight).sum().backward()
    >>> round(float(layer.weight.grad), 4)
    1.0
    """
    if not proximal:
        return

    def towards(parameter: nn.Parameter) -> Callable[[Tensor], Tensor]:
        start = parameter.detach().clone()
        return lambda gradient: gradient + proximal * (parameter.detach() - start)

    for parameter in module.parameters():
        parameter.register_hook(towards(parameter))  # type: ignore[no-untyped-call]


def federated(
    task: Task,
    parts: Sequence[LabelledImages],
    module: nn.Module,
    *,
    strategy: Callable[[], Strategy],
    local: Local,
    rounds: int,
    weighted: bool = True,
    whole: nn.Module | None = None,
) -> Outcome:
    """Run a strategy of Flower's to its end, and return what came of it.

    Args:
        task: what the average is measured on, after every round.
        parts: the data of each client.
        module: the model as all clients are sent it first; in the end, the last average.
        strategy: makes the strategy that decides who trains and how replies are aggregated.
        local: how a client trains.
        rounds: the number of rounds, at least 1.
        weighted: whether a client counts in proportion to its records, or as one.
        whole: what is measured, if the model is only a part of it.
    """
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    from dpsd.federated.flower.in_process import simulated

    client = ClientApp()
    failures: list[Exception] = []
    curve: list[tuple[float, float]] = []
    measuring, start = 0.0, time.perf_counter()
    weights = weights_of(module)

    @client.train()
    def train(message: Message, context: Context) -> Message:
        part = parts[int(context.node_config["partition-id"])]
        own = deepcopy(module)
        content: Any = message.content  # Flower's strategies say what is in it
        own.load_state_dict(content["arrays"].to_torch_state_dict(), strict=False)
        try:
            local(own, part, float(content["config"].get("proximal-mu", 0.0)))
        except Exception as error:
            failures.append(error)  # Flower would go on with the other clients
            raise
        reply = RecordDict()
        reply["arrays"] = ArrayRecord(weights_of(own))
        reply["metrics"] = MetricRecord({"num-examples": len(part) if weighted else 1})
        return Message(reply, reply_to=message)

    def measured(number: int, arrays: ArrayRecord) -> None:
        nonlocal measuring
        if failures:
            raise failures[0]
        if number:
            began = time.perf_counter()
            module.load_state_dict(arrays.to_torch_state_dict(), strict=False)
            curve.append((round(began - start - measuring, 1), task.accuracy(whole or module)))
            measuring += time.perf_counter() - began

    with simulated(client, len(parts)) as grid:
        strategy().start(grid, ArrayRecord(weights), num_rounds=rounds, evaluate_fn=measured)
    size = rounds * size_of(weights)
    return Outcome(
        accuracy=curve[-1][1],
        seconds=time.perf_counter() - start - measuring,
        details={"curve": curve, **sent(down=size, up=size)},
    )


def flower_strategies() -> Any:
    """Return Flower's module of strategies.

    Raises:
        ConfigError: Flower is not installed.
    """
    try:
        import flwr.serverapp.strategy
    except ImportError:
        raise ConfigError(f"averaging needs Flower: {how_to_install('federated')}") from None
    return flwr.serverapp.strategy

"""Averaging with differential privacy: for a whole client, or for each of its records.

>>> PrivateAveraging().unit.value, LocalPrivateSGD().unit.value
('a client: all of its records', 'a training record, added or removed')
"""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import dp_accounting
import numpy as np
from torch import nn

from dpsd.benchmarks.baselines.checks import require_positive, required_target
from dpsd.benchmarks.baselines.private_sgd import PrivateSGD, Sampling
from dpsd.benchmarks.baselines.tempered import tempered_network
from dpsd.benchmarks.federated.averaging import federated, flower_strategies, fresh, train_on
from dpsd.benchmarks.federated.clients import Clients
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Budget


@dataclass(frozen=True, kw_only=True)
class PrivateAveraging(Clients):
    """DP-FedAvg by Flower's own wrapper: the server clips clients' updates and adds noise.

    ε is about a client: two worlds differ in all that one client has and does. The server is
    trusted, as it sees each update as it is. All clients take part in every round and count the
    same, so a client that is replaced moves the mean of updates by up to twice the bound over the
    number of clients; Flower's noise multiplier is that of a client that is removed, and is doubled
    here. The network has no BatchNorm, whose statistics are no weights to be clipped.

    Args:
        rounds: rounds of training and averaging, at least 1.
        epochs: a client's passes over its data in a round, at least 1.
        clipping_norm: the bound that each client's update is clipped to, > 0.

    Source: McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018,
    Algorithm 1 with every client in every round.
    """

    rounds: int = 1
    epochs: int = 10
    clipping_norm: float = 1.0

    name: str = field(default="DP-FedAvg, central", init=False)
    unit: Unit = field(default=Unit.CLIENT, init=False)
    given: str = field(
        default="the training data, each part at its client, and a trusted server", init=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "rounds", "epochs", "clipping_norm")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Train and average, and measure the average after every round, for the table only.

        Raises:
            ConfigError: no target or one without δ, or Flower is not installed.
        """
        target = required_target(self.name, target, needs_delta=True)
        strategies = flower_strategies()
        noise_multiplier = self.noise_multiplier(target)

        def strategy() -> Any:
            return strategies.DifferentialPrivacyServerSideFixedClipping(
                strategies.FedAvg(fraction_evaluate=0.0),
                noise_multiplier=noise_multiplier,
                clipping_norm=self.clipping_norm,
                num_sampled_clients=self.clients,
            )

        def local(module: nn.Module, part: LabelledImages, _: float) -> None:
            train_on(part, module, epochs=self.epochs, seed=seed)

        np.random.seed(seed)  # from which Flower draws the noise
        outcome = federated(
            task,
            self.parts(task),
            fresh(tempered_network, task, seed=seed),
            strategy=strategy,
            local=local,
            rounds=self.rounds,
            weighted=False,
        )
        return replace(
            outcome,
            epsilon={
                "add-or-remove": self._epsilon(noise_multiplier, target.delta),
                "replace-one": self._epsilon(noise_multiplier / 2, target.delta),
            },
            details={
                **outcome.details,
                "delta": target.delta,
                "noise_multiplier": noise_multiplier,
                "relation": "replace one client; the server is trusted",
            },
        )

    def noise_multiplier(self, target: Budget) -> float:
        """Return Flower's noise multiplier that meets a target in all rounds, under replace-one.

        >>> round(PrivateAveraging().noise_multiplier(Budget(epsilon=1.0, delta=1e-5)), 2)
        7.46
        """
        # Rounds of Gaussian noise compose into one of a smaller multiplier.
        alone = dp_accounting.get_sigma_gaussian(target.epsilon, target.delta)
        return float(2 * math.sqrt(self.rounds) * alone)

    def _epsilon(self, noise_multiplier: float, delta: float) -> float:
        alone = noise_multiplier / math.sqrt(self.rounds)
        return float(dp_accounting.get_epsilon_gaussian(alone, delta))


@dataclass(frozen=True, kw_only=True)
class LocalPrivateSGD(Clients):
    """DP-FedAvg by DP-SGD at each client, whose models are then averaged once by Flower's FedAvg.

    ε is about a training record, which one client has, and holds against the server as well: what
    leaves a client meets it. A client trains the linear layer of
    :class:`~dpsd.benchmarks.baselines.private_sgd.PrivateSGD` on fixed wavelet features, with its
    own noise. How many records a client has, by which it counts, is taken to be public.

    Args:
        epochs: expected passes over a client's data, at least 1.
        rate: the share of a client's records that is expected in a step, in (0, 1].
        learning_rate: for SGD on the mean of clipped gradients, > 0.
    """

    epochs: int = 20
    rate: float = 0.25
    learning_rate: float = 16.0

    name: str = field(default="DP-FedAvg, local", init=False)
    unit: Unit = field(default=Unit.RECORD_ADDED, init=False)
    given: str = field(default="the training data, each part at its client", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "rate", "learning_rate")
        if self.rate > 1:
            raise ConfigError(f"rate must be at most 1, not {self.rate}")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Train and average, and measure the average.

        Raises:
            ConfigError: no target or one without δ, or Flower or Opacus is not installed.
        """
        target = required_target(self.name, target, needs_delta=True)
        strategies = flower_strategies()
        training = PrivateSGD(epochs=self.epochs, learning_rate=self.learning_rate)
        sampling = Sampling(rate=self.rate, epochs=self.epochs)
        body, head = training.network_for(task.train, seed=seed)
        seeds = itertools.count(seed * self.clients)  # two clients' noise must not be the same
        with warnings.catch_warnings():
            # Opacus warns of the hooks that it sets itself, and of what its accountant tries first.
            warnings.simplefilter("ignore")
            noise = sampling.noise_multiplier(target)

            def local(module: nn.Module, part: LabelledImages, _: float) -> None:
                models = training.models(
                    part, noise_multiplier=noise, rate=self.rate, seed=next(seeds)
                )
                trained = next(itertools.islice(models, sampling.steps - 1, None))
                module.load_state_dict(trained.get_submodule("1").state_dict())

            outcome = federated(
                task,
                self.parts(task),
                head,
                strategy=lambda: strategies.FedAvg(fraction_evaluate=0.0),
                local=local,
                rounds=1,
                whole=nn.Sequential(body, head),
            )
            steps, delta = sampling.steps, target.delta
            epsilon = {
                "add-or-remove": sampling.add_or_remove(noise, steps=steps, delta=delta),
                "replace-one": sampling.replace_one(noise, steps=steps, delta=delta),
            }
        return replace(
            outcome,
            epsilon=epsilon,
            details={
                **outcome.details,
                "delta": target.delta,
                "noise_multiplier": noise,
                "relation": "add or remove one training record; the server is not trusted",
            },
        )

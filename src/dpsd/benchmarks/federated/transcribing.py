"""Federated transcriptions as a benchmark's methods: our own, on the clients of all others.

>>> method = FederatedTranscribing(name="dpsd", protect="labels", adjacency="response", clients=5)
>>> method.unit.value, method.given
('an answer', 'the noisy answers of all clients')
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsd.benchmarks.federated.clients import Clients, sent
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.config.ensembles import ENSEMBLE_STUDENT
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.federated.exchange import Member
from dpsd.federated.requests import Greeting, Hello, Reply, Request
from dpsd.privacy.accounting import Spending, spent_under
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.mechanisms import NoisyVotes, SharedNoiseVotes
from dpsd.privacy.mechanisms.shares import ALIKE
from dpsd.privacy.targets import Adjacency, Budget, Exposure
from dpsd.runs.observing import Observer
from dpsd.teachers import load_teacher

if TYPE_CHECKING:
    from dpsd.federated.client.respondent import Respondent
    from dpsd.federated.server.federation import FederatedRun


@dataclass(frozen=True, kw_only=True)
class FederatedTranscribing(Transcribing, Clients):
    """The clients' teachers, transcribed together; each client adds its own noise.

    ε is about the answers of one client, and each client meets the target for itself: a record,
    which one client has, has no part in the answers of others. Clients are asked in this process.

    Args:
        sums: whether the server is trusted to add up what all clients release. The target is then
            about everybody else, and ε against the server is in the outcome's details.
    """

    sums: bool = False

    def __post_init__(self) -> None:
        Transcribing.__post_init__(self)
        Clients.__post_init__(self)

    @property
    def given(self) -> str:
        """What it is given."""
        return "sums of noisy answers" if self.sums else "the noisy answers of all clients"

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Transcribe, and measure the student at the end.

        Raises:
            ConfigError: there is no target, or it cannot be met.
        """
        # Late, as naming rows needs nothing of the federation.
        from dpsd.config.federation import FederationConfig
        from dpsd.federated.client.plan import AnswerPlan
        from dpsd.federated.client.respondent import Respondent
        from dpsd.federated.server.starting import federate

        if target is None:
            raise ConfigError(f"{self.name} needs a privacy target")
        paths = self.teacher_paths(task)
        start = time.perf_counter()
        config = FederationConfig(
            input_shape=task.measured_on.input_shape,
            num_classes=task.measured_on.num_classes,
            clients=self.clients,
            at_least=self.clients,
            trusted_aggregator=self.clients if self.sums else None,
            patience=0.0,
            deadline=24 * 3600.0,
            student=ENSEMBLE_STUDENT if self.features else self.student or task.model,
            features=self.features,
            **{**self.recipe, "seed": seed},
        )
        rounds, queries = config.recipe.rounds, config.recipe.queries
        asked = (config.recipe.first_queries or queries) + (rounds - 1) * queries
        plan = AnswerPlan(rounds=rounds, queries=-(-asked // rounds))
        sharing = self.clients if self.sums else None
        mechanism = self.configuration(target).privacy.mechanism(members=1, sharing=sharing)
        if sharing is not None:
            target = against_server(target, clients=sharing, exposure=plan.exposure)
        with tempfile.TemporaryDirectory() as folder:
            device = str(Execution.of().device)
            teachers = [load_teacher(path, device=device) for path in paths]
            # The teachers are made of public data, and their records are thrown away with the run.
            clients = [
                Respondent(
                    teacher,
                    mechanism=mechanism,
                    target=target,
                    plan=plan,
                    directory=Path(folder) / path.name,
                )
                for path, teacher in zip(paths, teachers, strict=True)
            ]
            exchange = Directly(clients)
            run: FederatedRun = federate(
                config,
                exchange=exchange,
                out=Path(folder) / "server",
                simulated=True,
                teachers=teachers,
                observer=Observer(),
            )
            seconds = time.perf_counter() - start
            stated = [client.certificate() for client in clients]
            spent = [one.against_others or one.spent for one in stated]
            server = max(one.spent.under(self.adjacency) for one in stated)
        return Outcome(
            accuracy=task.accuracy(run.student),
            seconds=seconds,
            epsilon={kind.value: max(one.under(kind) for one in spent) for kind in Adjacency},
            details={
                "queries": asked,
                "student_loss": [metrics["student_loss"] for metrics in run.metrics],
                **({"against_server": server} if self.sums else {}),
                **sent(down=exchange.down / len(clients), up=exchange.up / len(clients)),
            },
        )


def against_server(target: Budget, *, clients: int, exposure: Exposure) -> Budget:
    """Return the target against a server that is trusted to add up, given that against all others.

    >>> target = Budget(epsilon=1.0, delta=1e-5, adjacency=Adjacency.RESPONSE)
    >>> round(against_server(target, clients=5, exposure=Exposure.of_rounds([100])).epsilon, 2)
    2.15
    """
    # As much noise as all clients but one add together.
    whole = calibrate(NoisyVotes(teachers=2), target, exposure).parameters()["noise_multiplier"]
    noise = float(str(whole)) / math.sqrt(clients - 1) / (1 - ALIKE)
    event = SharedNoiseVotes(noise_multiplier=noise, teachers=1, clients=clients).event()
    own = Spending(event=event, mean_event=event, exposure=exposure)
    epsilon = spent_under([own], target.adjacency, delta=target.delta)
    return replace(target, epsilon=epsilon)


class Directly:
    """An exchange that calls clients in this process, and counts the bytes that Flower would send.

    Args:
        clients: the clients, whose keys are their numbers from 1.
    """

    def __init__(self, clients: Sequence[Respondent]) -> None:
        self._clients = {str(number): client for number, client in enumerate(clients, start=1)}
        self.down = self.up = 0

    def members(self) -> Sequence[Member]:
        """Return all clients."""
        return [Member(key=key, name=f"client {key}") for key in self._clients]

    def greet(
        self, hello: Hello, members: Sequence[Member], *, deadline: float
    ) -> dict[str, Greeting]:
        """Return the greetings of these clients."""
        return {member.key: self._clients[member.key].greet(hello) for member in members}

    def ask(self, requests: Mapping[str, Request], *, deadline: float) -> dict[str, Reply]:
        """Return the replies of all clients that are asked."""
        from dpsd.federated.flower.records import reply_record, request_record

        replies = {key: self._clients[key].answer(asked) for key, asked in requests.items()}
        self.down += sum(_size(request_record(asked)) for asked in requests.values())
        self.up += sum(_size(reply_record(reply)) for reply in replies.values())
        return replies


def _size(record: Any) -> int:
    """Return the bytes of a record's values, as Flower counts them."""
    return sum(values.count_bytes() for values in record.config_records.values())

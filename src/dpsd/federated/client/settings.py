"""What a client of a federation takes part with, as its directory records it.

>>> ClientSettings.model_fields["rounds"].description
'The most requests that are answered anew.'
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from pydantic import Field

from dpsd.config.base import Settings
from dpsd.federated.client.plan import AnswerPlan
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.teachers import Teacher


class ClientSettings(Settings):
    """What a client takes part with; final from its first answer on."""

    run: str = Field(description="The client's identity in its ledger and its teacher's budget.")
    teacher: str = Field(description="The teacher's location, or its description.")
    fingerprint: str = Field(description="The teacher's content hash.")
    members: int = Field(ge=1, description="Number of teachers that answer together.")
    rounds: int = Field(ge=1, description="The most requests that are answered anew.")
    queries: int = Field(ge=1, description="The most images in a request, on average.")
    epsilon: float = Field(description="Privacy target ε, under the adjacency and at delta.")
    delta: float = Field(description="Privacy target δ.")
    adjacency: Adjacency = Field(description="What ε protects.")
    mechanism: dict[str, Any] = Field(description="Parameters of the calibrated mechanism.")
    budget_file: str | None = Field(
        default=None, description="The budget file that the client's owner named, absolute."
    )

    def target(self) -> Budget:
        """The privacy target."""
        return Budget(epsilon=self.epsilon, delta=self.delta, adjacency=self.adjacency)


def new_settings(
    teacher: Teacher,
    *,
    mechanism: Mechanism,
    target: Budget,
    plan: AnswerPlan,
    budget_file: str | Path | None,
) -> ClientSettings:
    """Return the settings of a client that is about to take part, with an identity of its own."""
    return ClientSettings(
        # Drawn here, as a server that named two federations alike would mix them up in the budget.
        run=secrets.token_hex(8),
        teacher=teacher.location or teacher.description,
        fingerprint=teacher.fingerprint,
        members=teacher.members,
        rounds=plan.rounds,
        queries=plan.queries,
        **target.to_dict(),
        mechanism=stated(mechanism),
        budget_file=None if budget_file is None else str(Path(budget_file).absolute()),
    )


def stated(mechanism: Mechanism) -> dict[str, Any]:
    """Return a mechanism's parameters without those that are unset, which TOML cannot express."""
    return {name: value for name, value in mechanism.parameters().items() if value is not None}

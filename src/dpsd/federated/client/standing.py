"""How a client of a federation stands: what it answered and spent, and what it may still spend.

>>> cap = Budget(epsilon=2.0, adjacency="response")
>>> standing = Standing(rounds=7, latest="2026-11-26T14:02:11+00:00", spent=1.5, target=cap,
...                     limit=cap, limit_left=0.4999, images_left=300)
>>> standing.describe().partition("; ")[2]
"ε = 1.5 spent under 'response' at δ = 1e-05; of the limit ε = 2 under 'response', 0.499 is ..."
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from dpsd.federated.client.respondent import Respondent
from dpsd.privacy.accounting import format_epsilon
from dpsd.privacy.targets import Adjacency, Budget

#: The part of a limit below which what it leaves is not worth stating, while images are left.
_NEARLY_NOTHING = 0.01


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a client stands.

    Args:
        rounds: the number of rounds whose releases are stored.
        latest: when the last of them was, in UTC, ISO 8601; empty before the first.
        spent: the ε that the client spent in this federation, under the target's adjacency and δ.
        target: the privacy target.
        limit: the limit that leaves least, among the target, the given cap and the caps on record
            in the teacher's budgets.
        limit_left: the ε that it leaves, under its adjacency and δ, from 0.
        images_left: the number of images that may still be answered.
    """

    rounds: int
    latest: str
    spent: float
    target: Budget
    limit: Budget
    limit_left: float
    images_left: int

    @classmethod
    def of(cls, client: Respondent) -> Standing:
        """Read how a client stands from its records.

        Raises:
            RunError: the records cannot be read.
        """
        allowance, ledger = client.allowance, client.folder.ledger
        target = allowance.target
        limit, left = allowance.least_left(client.folder.reservations())
        entries = ledger.entries() if ledger.is_begun() else []
        stored = [entry for entry in entries if entry["entry"] == "commit"]
        return cls(
            rounds=len(stored),
            latest=stored[-1]["time"] if stored else "",
            spent=client.spent()[target.adjacency.value],
            target=target,
            limit=limit,
            limit_left=left,
            images_left=client.answers_left(),
        )

    @property
    def is_done(self) -> bool:
        """Whether it answers nothing new any more, as its plan or a limit leaves nothing."""
        return self.rounds > 0 and self.images_left == 0

    def describe(self) -> str:
        """Say it in one line, with the local time."""
        rounds = f"{self.rounds:,} round{'s' * (self.rounds != 1)} answered"
        if self.latest:
            rounds += f", the last at {datetime.fromisoformat(self.latest).astimezone():%H:%M:%S}"
        return (
            f"{rounds}; ε = {format_epsilon(self.spent)} spent under "
            f"{self.target.adjacency.value!r} at δ = {self.target.delta:g}; {self._allowed()}; "
            f"{self.images_left:,} images left"
        )

    def _allowed(self) -> str:
        at = f" at δ = {self.limit.delta:g}" * (self.limit.delta != self.target.delta)
        limit = f"the limit ε = {self.limit.epsilon:g} under {self.limit.adjacency.value!r}{at}"
        adds_up = self.limit.adjacency is Adjacency.TEACHER
        is_reached = self.limit_left < _NEARLY_NOTHING * self.limit.epsilon
        if is_reached and self.images_left and not adds_up:
            # It is about one image or one round, so another costs what was spent already.
            return f"further images stay within {limit}"
        left = math.floor(1000 * self.limit_left) / 1000  # never more than there is
        return f"of {limit}, {left:g} is left"

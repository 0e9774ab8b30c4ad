"""What a client answers at most, and whether a request is within it.

>>> AnswerPlan(rounds=4, queries=100).answers
400
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpsd.errors import BudgetError, ConfigError, Setting
from dpsd.privacy.accounting import (
    PrivacySpent,
    Spending,
    format_epsilon,
    spent_together,
    spent_under,
)
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.records.clients import against_others
from dpsd.privacy.targets import Budget, Exposure


@dataclass(frozen=True, kw_only=True)
class AnswerPlan:
    """The most that a client answers, which its noise is calibrated to.

    Args:
        rounds: the most requests with images that it was not asked about before, at least 1.
        queries: the most images in a request, on average, at least 1: at most ``rounds * queries``
            images are answered in all.

    Raises:
        ConfigError: one of them is below 1.
    """

    rounds: int
    queries: int

    def __post_init__(self) -> None:
        for name in ("rounds", "queries"):
            if getattr(self, name) < 1:
                raise ConfigError(Setting(name), f" must be at least 1, not {getattr(self, name)}")

    @property
    def answers(self) -> int:
        """The most images that are answered in all."""
        return self.rounds * self.queries

    @property
    def all_rounds(self) -> list[tuple[int, int]]:
        """The number of each round, from 1, with the number of its images."""
        return [(index, self.queries) for index in range(1, self.rounds + 1)]

    @property
    def exposure(self) -> Exposure:
        """The exposure of the whole plan."""
        return Exposure.of_asked(self.all_rounds)

    def left(self, asked: Sequence[tuple[int, int]], *, stored: int) -> int:
        """Return the number of images that may still be answered.

        Args:
            asked: the rounds that were reserved, by number, with the images of each.
            stored: the number of those whose releases are stored. Others were lost: their images
                stay counted, but they do not use up a round.

        >>> AnswerPlan(rounds=2, queries=100).left([(1, 150), (2, 10)], stored=1)
        40
        """
        answered = sum(answers for _, answers in asked)
        return max(0, self.answers - answered) if stored < self.rounds else 0


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What a client may spend.

    Args:
        mechanism: the calibrated mechanism.
        target: the privacy target of the whole plan.
        cap: the most that the teacher may spend in all, in this federation and elsewhere; by
            default, the target.
        account: the accounts that the teacher is charged to; ``None`` if nothing identifies it.
    """

    mechanism: Mechanism
    target: Budget
    cap: Budget | None
    account: Accounts | None

    @property
    def limits(self) -> list[Budget]:
        """What the client may spend at most in this federation: the target, and the cap.

        A cap at the target's δ and adjacency that is higher takes the target's place: it is for
        those whose answers were lost. Any other cap leaves the target as it is.
        """
        target, cap = self.target, self.cap
        if cap is None:
            return [target]
        is_alike = (cap.adjacency, cap.delta) == (target.adjacency, target.delta)
        return [cap] if is_alike and cap.epsilon > target.epsilon else [target, cap]

    def require(
        self, run: str, *, asked: Sequence[tuple[int, int]], planned: Sequence[tuple[int, int]]
    ) -> None:
        """Refuse what would exceed a limit, or a cap of an account.

        Args:
            run: the client's identity in its account.
            asked: the rounds that were reserved, by number, with the images of each.
            planned: the rounds that are to be asked.

        Raises:
            BudgetError: it would exceed one of them.
        """
        whole = self._spending([*asked, *planned])
        for limit in self.limits:
            needed = spent_under([whole], limit.adjacency, delta=limit.delta)
            if limit.is_exceeded_by(needed):
                mend = (
                    "Raise the cap, or give a lower epsilon"
                    if limit is self.cap
                    else "Give a higher epsilon, or allow fewer rounds and queries"
                )
                raise BudgetError(
                    f"the client would have spent ε = {format_epsilon(needed)} under "
                    f"{limit.adjacency.value!r} at δ = {limit.delta:g}, and may spend "
                    f"{limit.epsilon:g}. {mend}"
                )
        if self.account is not None:
            self.account.admit(
                run=run,
                mechanism=self.mechanism,
                planned=planned,
                delta=self.target.delta,
                cap=self.cap or self.target,
            )

    def spent_on(self, rounds: Sequence[tuple[int, int]]) -> PrivacySpent:
        """Return what rounds cost, under all adjacencies at the target's δ.

        Args:
            rounds: the number of each round, with the number of its images.
        """
        return spent_together([self._spending(rounds)], delta=self.target.delta)

    def against_others(self, rounds: Sequence[tuple[int, int]]) -> PrivacySpent | None:
        """Return what rounds cost against all but a server that is trusted to add up, if one is.

        Args:
            rounds: the number of each round, with the number of its images.
        """
        stated = self.mechanism.parameters()
        return against_others(stated, self._spending(rounds), delta=self.target.delta)

    def least_left(self, own: Sequence[Mapping[str, Any]]) -> tuple[Budget, float]:
        """Return the limit that leaves least, and the ε that it leaves, under its adjacency and δ.

        The target limits what is spent in this federation. A cap, given or on record in a budget,
        limits what a teacher spends here and elsewhere; without a given one, the target does too.

        Args:
            own: the reservations of this client.
        """
        asked = [(entry["round"], entry["answers"]) for entry in own]
        here = [self._spending(asked)] if asked else []
        spent = [(limit, spent_together(here, delta=limit.delta)) for limit in self.limits]
        for account in self.account.accounts if self.account is not None else ():
            caps = [self.cap or self.target, *(cap for cap, _ in account.caps())]
            spent += [(cap, account.spent(delta=cap.delta)) for cap in caps]
        left = [(limit, limit.epsilon - of.under(limit.adjacency)) for limit, of in spent]
        limit, least = min(left, key=lambda pair: pair[1])
        return limit, max(0.0, least)

    def _spending(self, rounds: Sequence[tuple[int, int]]) -> Spending:
        return Spending(
            event=self.mechanism.event(),
            mean_event=self.mechanism.mean_event(),
            exposure=Exposure.of_asked(rounds),
        )

"""What a client answers at most, and whether a request is within it.

>>> AnswerPlan(rounds=4, queries=100).answers
400
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpsd.errors import BudgetError, ConfigError, Setting
from dpsd.privacy.accounting import Spending, format_epsilon, spent_under
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.accounts import Accounts
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
        limit: the most that the teacher may spend in all, in this federation and elsewhere.
        account: the accounts that the teacher is charged to; ``None`` if nothing identifies it.
    """

    mechanism: Mechanism
    target: Budget
    limit: Budget
    account: Accounts | None

    def require(
        self, run: str, *, asked: Sequence[tuple[int, int]], planned: Sequence[tuple[int, int]]
    ) -> None:
        """Refuse what would exceed the limit, or a cap of an account.

        Args:
            run: the client's identity in its account.
            asked: the rounds that were reserved, by number, with the images of each.
            planned: the rounds that are to be asked.

        Raises:
            BudgetError: it would exceed one of them.
        """
        mechanism, limit = self.mechanism, self.limit
        whole = Spending(
            event=mechanism.event(),
            mean_event=mechanism.mean_event(),
            exposure=Exposure.of_asked([*asked, *planned]),
        )
        needed = spent_under([whole], limit.adjacency, delta=limit.delta)
        if limit.is_exceeded_by(needed):
            raise BudgetError(
                f"the client would have spent ε = {format_epsilon(needed)} under "
                f"{limit.adjacency.value!r} at δ = {limit.delta:g}, and may spend {limit.epsilon:g}"
            )
        if self.account is not None:
            self.account.admit(
                run=run,
                mechanism=mechanism,
                planned=planned,
                delta=self.target.delta,
                cap=limit,
            )

"""Privacy targets (an ε at a δ, under an adjacency), and the events that runs expose.

Targets are validated before anything is computed, so this module imports nothing that is slow to
import. :mod:`dpsd.privacy.accounting` explains the adjacencies, and computes what a run costs under
each.

>>> Budget.parse("3,1e-6,teacher").adjacency.value
'teacher'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from dpsd.errors import BudgetError, Setting


class Adjacency(StrEnum):
    """Which two worlds must look alike; each adjacency is stronger than the one before."""

    RESPONSE = "response"
    ROUND = "round"
    TEACHER = "teacher"


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """The number of events in which two neighbouring worlds can differ, under each adjacency.

    Args:
        response: the largest number of answers that can have been given about any one image.
        round: the number of times that a round of queries was answered.
        teacher: the number of answers in all.

    >>> Exposure.of_rounds([40_000, 40_000])
    Exposure(response=1, round=2, teacher=80000)
    """

    response: int
    round: int
    teacher: int

    @classmethod
    def of_rounds(cls, answers: Sequence[int]) -> Exposure:
        """The exposure of rounds that were each answered once, with these numbers of answers."""
        return cls.of_asked([(number, count) for number, count in enumerate(answers) if count])

    @classmethod
    def of_asked(cls, asked: Sequence[tuple[int, int]]) -> Exposure:
        """The exposure of attempts at rounds, each with the round's number and the answers given.

        An image is asked only once in all rounds that were stored. What a lost attempt asked is not
        known, so an image may also have been asked in each lost attempt, at whichever round.

        >>> Exposure.of_asked([(1, 40), (2, 40), (2, 40)])  # the second was lost, and asked again
        Exposure(response=2, round=3, teacher=120)
        """
        rounds = {number for number, _ in asked}
        return cls(
            response=min(1, len(rounds)) + len(asked) - len(rounds),
            round=len(asked),
            teacher=sum(answers for _, answers in asked),
        )

    def under(self, adjacency: Adjacency) -> int:
        """The number of events under one adjacency."""
        return int(getattr(self, adjacency.value))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A privacy target: ε at δ, under an adjacency.

    Args:
        epsilon: the ε, > 0.
        delta: the δ, in [0, 1); 0 asks for pure ε-DP, which the Gaussian mechanism cannot give.
        adjacency: the adjacency that ε refers to, or its name.

    Raises:
        BudgetError: the target is meaningless.

    >>> Budget(epsilon=-1.0)
    Traceback (most recent call last):
        ...
    dpsd.errors.BudgetError: epsilon must be positive and finite, not -1.0
    """

    epsilon: float
    delta: float = 1e-5
    adjacency: Adjacency = Adjacency.ROUND

    if TYPE_CHECKING:  # an adjacency may be given by its name

        def __init__(
            self,
            *,
            epsilon: float,
            delta: float = 1e-5,
            adjacency: Adjacency | Literal["response", "round", "teacher"] = Adjacency.ROUND,
        ) -> None: ...

    def __post_init__(self) -> None:
        if not (0 < self.epsilon < math.inf):
            raise BudgetError(
                Setting("epsilon"), f" must be positive and finite, not {self.epsilon}"
            )
        if not (0 <= self.delta < 1):
            raise BudgetError(
                Setting("delta"),
                f" must be at least 0 and below 1 (at 1 nothing is promised), not {self.delta}",
            )
        try:
            object.__setattr__(self, "adjacency", Adjacency(self.adjacency))
        except ValueError:
            known = ", ".join(adjacency.value for adjacency in Adjacency)
            raise BudgetError(
                Setting("adjacency"), f" must be one of {known}, not {self.adjacency!r}"
            ) from None

    def is_exceeded_by(self, epsilon: float) -> bool:
        """Whether an ε at this δ exceeds the budget by more than rounding errors."""
        return epsilon > self.epsilon * (1 + 1e-6)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse a budget from ``EPSILON[,DELTA[,ADJACENCY]]``, as ``cap`` is given.

        Raises:
            BudgetError: the text has another form, or the target is meaningless.

        >>> Budget.parse("3,1e-6,teacher")
        Budget(epsilon=3.0, delta=1e-06, adjacency=<Adjacency.TEACHER: 'teacher'>)
        """
        parts = [part.strip() for part in text.split(",")]
        try:
            numbers = dict(zip(("epsilon", "delta"), map(float, parts[:2]), strict=False))
        except ValueError:
            numbers = {}
        if not numbers or len(parts) > 3:
            raise BudgetError(
                f"{text!r} is not a privacy target; write EPSILON,DELTA,ADJACENCY, as in "
                "8,1e-5,round"
            )
        try:
            return cls(**numbers, **dict(zip(("adjacency",), parts[2:], strict=False)))  # type: ignore[arg-type]
        except BudgetError as error:  # names in it are parts of the text here, not settings
            raise BudgetError(f"{text!r} is not a privacy target: {error}") from None

    @classmethod
    def of_cap(cls, cap: str | None) -> Budget | None:
        """Parse the setting ``cap``, which errors name; return ``None`` if it is not given.

        Raises:
            BudgetError: as for :meth:`parse`.
        """
        try:
            return None if cap is None else cls.parse(cap)
        except BudgetError as error:
            raise BudgetError(Setting("cap"), f": {error}") from None

    def to_dict(self) -> dict[str, object]:
        """Return the target in JSON types, as keywords that make it again."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "adjacency": self.adjacency.value,
        }

    def __str__(self) -> str:
        # Written in full, as a rounded cap would be a different cap.
        return f"{self.epsilon!r},{self.delta!r},{self.adjacency.value}"

"""What a run costs, under each adjacency, by ``dp_accounting``'s accountants.

An ε means nothing without its adjacency, which says which two worlds must look alike:

- ``response``: they differ in one of the teacher's answers, in the whole run. Answers to different
  queries are separate data, so by parallel composition a run costs one event.
- ``round``: they differ in one answer in every round: as many events as rounds.
- ``teacher``: they differ in the whole teacher, in all its answers: an event for every query.

With one teacher, the first two bound what an observer learns about an answer, not about a person in
the training data. The relation is always replace-one.

>>> from dpsd.privacy.mechanisms import RandomizedResponse
>>> asked = Exposure.of_rounds([40_000] * 8)
>>> cost = spent(RandomizedResponse(epsilon=1.0).event(), asked, delta=1e-5)
>>> round(cost.response, 3), round(cost.round, 3), round(cost.teacher, -3)
(1.0, 8.0, 150000.0)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from typing import TypeVar

import dp_accounting
from dp_accounting import NeighboringRelation
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq

from dpsd.errors import BudgetError
from dpsd.privacy.mechanisms import Mechanism

#: Randomised responses whose losses are composed on a grid; it has twice as many points.
_MOST_COMPOSED = 20_000_000
#: Below it, what the Fourier transform leaves of rounding is as large as δ.
_LEAST_DELTA = 1e-8

MechanismT = TypeVar("MechanismT", bound=Mechanism)


class Adjacency(str, Enum):
    """Which two worlds must look alike; each is stronger than the one before."""

    RESPONSE = "response"
    ROUND = "round"
    TEACHER = "teacher"


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """How many events two neighbouring worlds can differ in, under each adjacency.

    Args:
        response: the most often that any one image can have been answered about.
        round: how many times a round of queries was answered.
        teacher: answers in all.

    >>> Exposure.of_rounds([40_000, 40_000])
    Exposure(response=1, round=2, teacher=80000)
    """

    response: int
    round: int
    teacher: int

    @classmethod
    def of_rounds(cls, answers: Sequence[int]) -> Exposure:
        """Rounds that were each answered once, with so many answers."""
        return cls.of_asked([(number, count) for number, count in enumerate(answers) if count])

    @classmethod
    def of_asked(cls, asked: Sequence[tuple[int, int]]) -> Exposure:
        """Rounds, by number, with so many answers each time that they were asked.

        An image is asked once in all rounds that were stored. What a lost attempt asked is not
        known, so an image may have been asked in each of them besides, of whichever round.

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
        """Events under one adjacency."""
        return int(getattr(self, adjacency.value))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A privacy target: ε at δ, under an adjacency.

    Args:
        epsilon: > 0.
        delta: in [0, 1); 0 asks for pure ε-DP, which the Gaussian mechanism cannot give.
        adjacency: what the ε is about.

    Raises:
        BudgetError: a target that means nothing.

    >>> Budget(epsilon=-1.0)
    Traceback (most recent call last):
        ...
    dpsd.errors.BudgetError: epsilon must be positive and finite, not -1.0
    """

    epsilon: float
    delta: float = 1e-5
    adjacency: Adjacency = Adjacency.ROUND

    def __post_init__(self) -> None:
        if not (0 < self.epsilon < math.inf):
            raise BudgetError(f"epsilon must be positive and finite, not {self.epsilon}")
        if not (0 <= self.delta < 1):
            raise BudgetError(
                f"delta must be at least 0 and below 1 (at 1 nothing is promised), not {self.delta}"
            )
        try:
            object.__setattr__(self, "adjacency", Adjacency(self.adjacency))
        except ValueError:
            known = ", ".join(adjacency.value for adjacency in Adjacency)
            raise BudgetError(f"adjacency must be one of {known}, not {self.adjacency!r}") from None

    def is_exceeded_by(self, epsilon: float) -> bool:
        """Whether that much at δ is more than ε, rounding apart."""
        return epsilon > self.epsilon * (1 + 1e-6)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """A budget from ``EPSILON[,DELTA[,ADJACENCY]]``, as the command line takes it.

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
                f"{text!r} is no privacy target; write EPSILON,DELTA,ADJACENCY, as in 8,1e-5,round"
            )
        return cls(**numbers, **dict(zip(("adjacency",), parts[2:], strict=False)))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """The target as JSON types; its keywords make it again."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "adjacency": self.adjacency.value,
        }

    def __str__(self) -> str:
        # In full: a cap that is rounded up is another cap.
        return f"{self.epsilon!r},{self.delta!r},{self.adjacency.value}"


@dataclass(frozen=True, kw_only=True)
class PrivacySpent:
    """ε of a run at ``delta`` under each adjacency, with the cross-check.

    Args:
        delta: at which each ε holds.
        response, round, teacher: ε by the PLD accountant.
        rdp: the same three by the RDP accountant, a looser bound by other arithmetic.
        accountant: name and version.
    """

    delta: float
    response: float
    round: float
    teacher: float
    rdp: dict[str, float]
    accountant: str

    def under(self, adjacency: Adjacency) -> float:
        """ε under one adjacency."""
        return float(getattr(self, adjacency.value))


def pld_epsilon(event: dp_accounting.DpEvent, *, count: int, delta: float) -> float:
    """ε at ``delta`` of ``count`` adaptive uses of one event, by privacy loss distributions.

    ``event`` states its noise against the sensitivity under replacement, so the accountant must not
    double it again; and dp_accounting 0.6's ``PLDAccountant`` composes randomised response once
    whatever the count. Hence its distributions are composed here directly.

    Raises:
        TypeError: an event that is neither randomised response nor Gaussian.
    """
    if count == 0:
        return 0.0
    if isinstance(event, dp_accounting.RandomizedResponseDpEvent):
        # Its losses are ±ε and 0: a grid of exactly ε holds them without rounding, however often
        # they are composed.
        per_answer = _response_epsilon(event)
        if delta == 0:
            return per_answer * count
        if count > _MOST_COMPOSED or delta < _LEAST_DELTA:
            return min(rdp_epsilon(event, count=count, delta=delta), per_answer * count)
        composed = privacy_loss_distribution.from_randomized_response(
            event.noise_parameter,
            event.num_buckets,
            value_discretization_interval=per_answer,
            neighboring_relation=NeighboringRelation.REPLACE_ONE,
        ).self_compose(count)
        return min(float(composed.get_epsilon_for_delta(delta)), per_answer * count)
    if isinstance(event, dp_accounting.GaussianDpEvent):
        if delta == 0:
            return math.inf
        # Gaussians compose into one Gaussian, whose δ(ε) is known in closed form (Balle & Wang,
        # ICML 2018, theorem 8).
        loss = GaussianPrivacyLoss(event.noise_multiplier / math.sqrt(count))
        if loss.get_delta_for_epsilon(0.0) <= delta:
            return 0.0
        above = 1.0
        while loss.get_delta_for_epsilon(above) > delta:
            above *= 2
        root = brentq(lambda at: loss.get_delta_for_epsilon(at) - delta, 0, above, xtol=1e-10)
        return float(root * (1 + 1e-9))
    raise TypeError(f"no privacy loss distribution is known for {event}")


def rdp_epsilon(event: dp_accounting.DpEvent, *, count: int, delta: float) -> float:
    """The same ε by Rényi differential privacy: looser, by different arithmetic."""
    return _composed_by_rdp([(event, count)], delta=delta)


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a run asked, and at which cost.

    Args:
        event: of one answer.
        mean_event: of an answer on average, under ``teacher``, where all may differ.
        exposure: how many answers two neighbours can differ in.
    """

    event: dp_accounting.DpEvent
    mean_event: dp_accounting.DpEvent
    exposure: Exposure

    def under(self, adjacency: Adjacency) -> tuple[dp_accounting.DpEvent, int]:
        """The event, and how many of it, under one adjacency."""
        is_mean = adjacency is Adjacency.TEACHER
        return (self.mean_event if is_mean else self.event), self.exposure.under(adjacency)


def spent_together(runs: Sequence[Spending], *, delta: float) -> PrivacySpent:
    """What runs against one teacher cost together, under every adjacency.

    Two runs may ask the same query, so even under ``response`` their costs add up.

    >>> from dpsd.privacy.mechanisms import Gaussian, RandomizedResponse
    >>> def run(mechanism):
    ...     return Spending(event=mechanism.event(), mean_event=mechanism.event(),
    ...                     exposure=Exposure.of_rounds([1_000]))
    >>> both = [run(RandomizedResponse(epsilon=1.0)), run(Gaussian(noise_multiplier=10.0))]
    >>> round(spent_together(both, delta=1e-5).round, 3)
    1.726
    """
    both = {
        account: {
            kind.value: account([run.under(kind) for run in runs], delta=delta)
            for kind in Adjacency
        }
        for account in (_composed, _composed_by_rdp)
    }
    return PrivacySpent(
        delta=delta,
        rdp=both[_composed_by_rdp],
        accountant=f"PLD, dp_accounting {version('dp-accounting')}",
        **both[_composed],
    )


def _composed(events: Sequence[tuple[dp_accounting.DpEvent, int]], *, delta: float) -> float:
    """ε of events of several kinds: the least of the bounds that hold."""
    kinds = _merged(events)
    if len(kinds) <= 1:
        return sum((pld_epsilon(event, count=count, delta=delta) for event, count in kinds), 0.0)
    # Between kinds ε adds up, and so does δ: here a pure ε-DP event needs none of it, or each kind
    # takes an equal share.
    pure = [pld_epsilon(event, count=count, delta=0) for event, count in kinds]
    impure = max(1, sum(map(math.isinf, pure)))
    without = sum(
        pld_epsilon(event, count=count, delta=delta / impure) if math.isinf(own) else own
        for own, (event, count) in zip(pure, kinds, strict=True)
    )
    shared = sum(
        pld_epsilon(event, count=count, delta=delta / len(kinds)) for event, count in kinds
    )
    return min(without, shared, _composed_by_rdp(events, delta=delta))


def _merged(
    events: Sequence[tuple[dp_accounting.DpEvent, int]],
) -> list[tuple[dp_accounting.DpEvent, int]]:
    """One entry for each kind: Gaussians compose into one, whose squared signals add up."""
    responses: dict[dp_accounting.DpEvent, int] = {}
    signals: dict[float, int] = {}
    for event, count in events:
        if isinstance(event, dp_accounting.GaussianDpEvent):
            signals[event.noise_multiplier] = signals.get(event.noise_multiplier, 0) + count
        else:
            responses[event] = responses.get(event, 0) + count
    merged = [(event, count) for event, count in responses.items() if count]
    if len(signals) == 1:
        (noise, count), *_ = signals.items()
        return [*merged, (dp_accounting.GaussianDpEvent(noise), count)]
    if total := sum(count / noise**2 for noise, count in signals.items()):
        merged.append((dp_accounting.GaussianDpEvent(1 / math.sqrt(total)), 1))
    return merged


def _composed_by_rdp(events: Sequence[tuple[dp_accounting.DpEvent, int]], *, delta: float) -> float:
    asked = [(event, count) for event, count in events if count]
    if not asked:
        return 0.0
    if delta == 0:
        return sum(
            _response_epsilon(event) * count
            if isinstance(event, dp_accounting.RandomizedResponseDpEvent)
            else math.inf
            for event, count in asked
        )
    # Orders near 1 are what a large composition needs.
    orders = [1 + 2.0**power for power in range(-20, 4)]
    orders += [1 + ten / 10 for ten in range(1, 100)] + list(range(11, 513))
    accountant = RdpAccountant(orders, NeighboringRelation.REPLACE_ONE)
    for event, count in asked:
        accountant.compose(event, count)
    return float(accountant.get_epsilon(delta))


def spent(
    event: dp_accounting.DpEvent,
    exposure: Exposure,
    *,
    delta: float,
    mean_event: dp_accounting.DpEvent | None = None,
) -> PrivacySpent:
    """What so many answers cost under every adjacency; ``mean_event`` is ``event`` by default."""
    spending = Spending(event=event, mean_event=mean_event or event, exposure=exposure)
    return spent_together([spending], delta=delta)


def calibrate(mechanism: MechanismT, budget: Budget, exposure: Exposure) -> MechanismT:
    """The mechanism with the least noise that meets the budget, found on the accountant itself.

    Args:
        mechanism: its noise level is replaced.
        budget: the target.
        exposure: what will be asked.

    Raises:
        BudgetError: no noise level meets the target.

    >>> from dpsd.privacy.mechanisms import Gaussian
    >>> budget = Budget(epsilon=10.0, delta=1e-5, adjacency="round")
    >>> asked = Exposure.of_rounds([60_000] * 3)
    >>> round(calibrate(Gaussian(), budget, asked).noise_multiplier, 2)
    1.73
    """
    count = exposure.under(budget.adjacency)

    def excess(strength: float) -> float:
        noisy = mechanism.with_strength(strength)
        event = noisy.mean_event() if budget.adjacency is Adjacency.TEACHER else noisy.event()
        return pld_epsilon(event, count=count, delta=budget.delta) - budget.epsilon

    strength = _strongest(excess, *mechanism.strengths)
    if strength is None:
        raise BudgetError(
            f"no noise level of {type(mechanism).__name__} gives epsilon {budget.epsilon:g} at "
            f"delta {budget.delta:g} under {budget.adjacency.value!r} over {count} events; raise "
            "epsilon or delta, or ask for fewer rounds or queries"
        )
    if budget.epsilon <= strength <= budget.epsilon * (1 + 1e-3):
        # One randomised response: what δ adds to its own ε is not worth an odd number.
        strength = budget.epsilon
    calibrated = mechanism.with_strength(strength)
    is_pure = math.isfinite(pld_epsilon(calibrated.event(), count=1, delta=0))
    if not is_pure and budget.delta > 1 / exposure.teacher:
        warnings.warn(
            f"delta {budget.delta:g} is above one over the {exposure.teacher} answers: at that "
            "delta a mechanism may publish some answers outright; lower delta",
            stacklevel=2,
        )
    return calibrated  # type: ignore[return-value]


def _response_epsilon(event: dp_accounting.RandomizedResponseDpEvent) -> float:
    # To the last bit what dp_accounting computes, so that losses fall on the grid and not beside.
    lie = event.noise_parameter / event.num_buckets
    truth = 1 - event.noise_parameter * (event.num_buckets - 1) / event.num_buckets
    return math.log(truth) - math.log(lie)


def _strongest(excess: Callable[[float], float], least: float, most: float) -> float | None:
    """The largest strength in that range whose excess ε (rising with strength) is not positive.

    Exact to a relative 1e-6, from the side that keeps the promise.
    """
    if excess(least) > 0:
        return None
    if excess(most) <= 0:
        return most

    def strength(logarithm: float) -> float:
        return min(math.exp(logarithm), most)

    start, end = math.log(least), math.log(least) + 2.0
    while excess(strength(end)) <= 0:
        start, end = end, end + 2.0
    root = brentq(lambda at: excess(strength(at)), start, end, xtol=1e-7, rtol=1e-9, maxiter=60)
    while excess(strength(root)) > 0:
        root -= 1e-6
    return strength(root)


def format_epsilon(epsilon: float) -> str:
    """ε for people, rounded up: a rounded-down ε would be a false claim.

    >>> format_epsilon(0.99999999), format_epsilon(1.00001), format_epsilon(150018.05)
    ('1', '1.001', '150,019')
    """
    if epsilon == float("inf"):
        return "∞"
    steps = 1 if epsilon >= 1000 else 1000
    shown = math.ceil(round(epsilon * steps, 6)) / steps
    return f"{shown:,.0f}" if steps == 1 else f"{shown:,.3f}".rstrip("0").rstrip(".")

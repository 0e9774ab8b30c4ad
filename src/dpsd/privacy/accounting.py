"""What a run costs under each adjacency.

An ε means nothing without its adjacency, which says which two worlds must look alike:

- ``response``: the worlds differ in the teacher's answer about one image, in the whole run. A run
  asks about an image once, and answers about different images are separate data, so by parallel
  composition the difference costs one event.
- ``round``: the worlds differ in the answer about one image in every round, which costs as many
  events as there are rounds.
- ``teacher``: the worlds differ in the whole teacher, that is, in all its answers, which costs one
  event for every query.

With one teacher, the first two bound what an observer learns about an answer, not about a person in
the training data. The relation is always replace-one.

Three bounds are computed, each of which is proved to hold, and the smallest of them is stated: the
privacy loss distribution of :mod:`dpsd.privacy.losses` (for Gaussians, their δ(ε) in closed form);
the Rényi divergences of ``dp_accounting``, plus what rounding may have taken from them; and, for
several mechanisms, the sum of what each costs alone at a part of δ. The bound by Rényi divergences
is also stated beside the result, as a second opinion. Wherever costs are added up, two results that
no correct accountant can give are refused: a sum below one of its parts, and a negative divergence.

>>> from dpsd.privacy.mechanisms import RandomizedResponse
>>> asked = Exposure.of_rounds([40_000] * 8)
>>> cost = spent(RandomizedResponse(epsilon=1.0).event(), asked, delta=1e-5)
>>> round(cost.response, 3), round(cost.round, 3), round(cost.teacher, -3)
(1.0, 8.0, 150000.0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TypeAlias

import dp_accounting
import numpy as np
from dp_accounting import NeighboringRelation
from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss
from dp_accounting.rdp import RdpAccountant
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import brentq

from dpsd.privacy.losses import Losses, added_up, of_gaussian, of_responses, response_epsilon
from dpsd.privacy.randomness import EXACT_REACH
from dpsd.privacy.targets import Adjacency, Exposure

#: A δ below this is treated as zero, as such probabilities are near the smallest representable one.
_LEAST_DELTA = 1e-250
#: The relative amount by which bounds that are compared may exceed the true ε.
_LOOSENESS = 2e-3
#: The orders of Rényi divergences; a large composition needs orders near 1, a weak mechanism large
#: ones.
_ORDERS = [1 + 2.0 ** (power / 4) for power in range(-80, 120)]

#: Events of several kinds, each with its number.
Events: TypeAlias = tuple[tuple[dp_accounting.DpEvent, int], ...]


@dataclass(frozen=True, kw_only=True)
class PrivacySpent:
    """The ε of a run at ``delta`` under each adjacency, with a cross-check.

    Args:
        delta: the δ at which each ε holds.
        response, round, teacher: the ε under that adjacency, by the PLD accountant.
        rdp: the three ε by the RDP accountant, a looser bound computed by different arithmetic.
        accountant: the name and version of the accountant.
    """

    delta: float
    response: float
    round: float
    teacher: float
    rdp: dict[str, float]
    accountant: str

    def under(self, adjacency: Adjacency) -> float:
        """The ε under one adjacency."""
        return float(getattr(self, adjacency.value))


def pld_epsilon(event: dp_accounting.DpEvent, *, count: int, delta: float) -> float:
    """Return ε at ``delta`` of ``count`` adaptive uses of an event, by privacy loss distributions.

    ``event`` states its noise relative to the sensitivity under replacement, so nothing is doubled.

    Raises:
        TypeError: the event is neither randomised response nor Gaussian.
    """
    return _bounded(((event, count),), delta=delta, single=None, by_rdp=False)


def rdp_epsilon(event: dp_accounting.DpEvent, *, count: int, delta: float) -> float:
    """Return the same ε by Rényi differential privacy, a looser bound by different arithmetic."""
    return _bounded(((event, count),), delta=delta, single=None, by_rdp=True)


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a run asked, and what each answer cost.

    Args:
        event: the event of one answer.
        mean_event: the event of an average answer, used under ``teacher``, where all may differ.
        exposure: the number of answers in which two neighbouring worlds can differ.
    """

    event: dp_accounting.DpEvent
    mean_event: dp_accounting.DpEvent
    exposure: Exposure

    def under(self, adjacency: Adjacency) -> tuple[dp_accounting.DpEvent, int]:
        """The event under one adjacency, with the number of such events."""
        is_mean = adjacency is Adjacency.TEACHER
        return (self.mean_event if is_mean else self.event), self.exposure.under(adjacency)

    def single(self, adjacency: Adjacency) -> tuple[dp_accounting.DpEvent, int]:
        """The event of a single answer, with the number of such events under one adjacency."""
        return self.event, self.exposure.under(adjacency)


def spent_together(runs: Sequence[Spending], *, delta: float) -> PrivacySpent:
    """Return what runs against one teacher cost together, under every adjacency.

    Two runs may ask the same query, so their costs add up even under ``response``.

    >>> from dpsd.privacy.mechanisms import Gaussian, RandomizedResponse
    >>> def run(mechanism):
    ...     return Spending(event=mechanism.event(), mean_event=mechanism.event(),
    ...                     exposure=Exposure.of_rounds([1_000]))
    >>> both = [run(RandomizedResponse(epsilon=1.0)), run(Gaussian(noise_multiplier=10.0))]
    >>> round(spent_together(both, delta=1e-5).round, 3)
    1.71
    """
    found, second = (
        {kind.value: _under(runs, kind, delta=delta, by_rdp=by_rdp) for kind in Adjacency}
        for by_rdp in (False, True)
    )
    for name, opinion in second.items():
        at_least([found[name]], opinion)
    if all(run.event == run.mean_event for run in runs):
        # The events are the same under all three adjacencies, and each has more than the last.
        at_least([found["response"]], found["round"])
        at_least([found["round"]], found["teacher"])
    return PrivacySpent(
        delta=delta,
        rdp=second,
        accountant=f"PLD (exact binomials; dp_accounting {version('dp-accounting')} for Gaussians)",
        **found,
    )


def spent_under(runs: Sequence[Spending], adjacency: Adjacency, *, delta: float) -> float:
    """Return the joint ε at ``delta`` of runs against one teacher, under one adjacency."""
    return _under(runs, adjacency, delta=delta, by_rdp=False)


def _under(runs: Sequence[Spending], adjacency: Adjacency, *, delta: float, by_rdp: bool) -> float:
    return _bounded(
        tuple(run.under(adjacency) for run in runs),
        delta=delta,
        single=tuple(run.single(adjacency) for run in runs),
        by_rdp=by_rdp,
    )


@lru_cache(maxsize=1024)
def _bounded(events: Events, *, delta: float, single: Events | None, by_rdp: bool) -> float:
    """Return the ε of events of several kinds.

    Args:
        events: the events, of several kinds, which may be averages over answers.
        delta: the δ at which ε holds.
        single: the events of single answers, if they differ from ``events``.
        by_rdp: whether to use Rényi divergences alone, instead of the smallest of all bounds.
    """
    kinds = _merged(events)
    if not kinds:
        return 0.0
    if delta < _LEAST_DELTA:
        return sum(_pure(event, count) for event, count in kinds)
    delta -= beyond_reach(events if single is None else single)
    if delta <= 0:
        return math.inf
    return _renyi(kinds, delta=delta) if by_rdp else _least(kinds, delta=delta)


def _least(kinds: Events, *, delta: float) -> float:
    """Return the smallest bound on ε, for a δ above :data:`_LEAST_DELTA` and at least one kind."""
    if len(kinds) == 1:
        return _alone(*kinds[0], delta=delta)
    # Over kinds, both ε and δ add up. Either pure ε-DP events take no share of δ and the others
    # take equal shares, or all kinds take equal shares.
    pure = [_pure(event, count) for event, count in kinds]
    impure = max(1, sum(map(math.isinf, pure)))
    without = sum(
        _alone(event, count, delta=delta / impure) if math.isinf(own) else own
        for own, (event, count) in zip(pure, kinds, strict=True)
    )
    parts = [_alone(event, count, delta=delta) for event, count in kinds]
    shared = [_alone(event, count, delta=delta / len(kinds)) for event, count in kinds]
    for part, at_less in zip(parts, shared, strict=True):
        at_least([part], at_less)
    together = added_up([_losses(event, count) for event, count in kinds], delta=delta)
    bounds = (without, sum(shared), together.epsilon(delta), _renyi(kinds, delta=delta))
    return at_least(parts, min(bounds))


def _alone(event: dp_accounting.DpEvent, count: int, *, delta: float) -> float:
    """Return the ε of events of one kind, at a δ above :data:`_LEAST_DELTA`."""
    if delta < _LEAST_DELTA:
        return _pure(event, count)
    if isinstance(event, dp_accounting.RandomizedResponseDpEvent):
        return min(of_responses(event, count=count).epsilon(delta), _pure(event, count))
    # Gaussians compose into one Gaussian, whose δ(ε) is known in closed form (Balle & Wang, ICML
    # 2018, theorem 8).
    loss = GaussianPrivacyLoss(event.noise_multiplier / math.sqrt(count))
    if loss.get_delta_for_epsilon(0.0) <= delta:
        return 0.0
    above = 1.0
    while loss.get_delta_for_epsilon(above) > delta:
        above *= 2
    root = brentq(lambda at: loss.get_delta_for_epsilon(at) - delta, 0, above, xtol=1e-14)
    return float(root * (1 + 1e-9))


def _pure(event: dp_accounting.DpEvent, count: int) -> float:
    """Return ε at δ = 0, which is infinite for a Gaussian."""
    is_pure = isinstance(event, dp_accounting.RandomizedResponseDpEvent)
    return response_epsilon(event) * count if is_pure else math.inf


def _losses(event: dp_accounting.DpEvent, count: int) -> Losses:
    if isinstance(event, dp_accounting.RandomizedResponseDpEvent):
        return of_responses(event, count=count)
    return of_gaussian(dp_accounting.GaussianDpEvent(event.noise_multiplier / math.sqrt(count)))


def beyond_reach(events: Events) -> float:
    """Bound the chance of a release that is not as likely in the other world as a Gaussian's.

    Noise is drawn from a finite table, so a release near its end is impossible, or less likely than
    it should be, in a world where the noise is added to another value. Within :data:`EXACT_REACH`
    deviations in both worlds, all probabilities are right to a relative 2^-64, so this is the
    chance that the noise is within one shift of that bound. Among shifts of a given Euclidean
    length, the chance is largest if one coordinate takes all of it; for shifts so small that this
    does not hold, the chance is below 1e-60.
    """
    gaussian = (
        (event.noise_multiplier, count)
        for event, count in events
        if isinstance(event, dp_accounting.GaussianDpEvent)
    )
    return sum(
        2 * count * float(special.ndtr(1 / noise - EXACT_REACH)) for noise, count in gaussian
    )


def at_least(parts: Sequence[float], whole: float) -> float:
    """Return ``whole``, raised to its largest part if it is slightly below that.

    The whole (a sum, more answers, or a smaller δ) costs no less than any of its parts. But bounds
    are compared here, and each may be above the truth by :data:`_LOOSENESS`, so the bound on the
    whole may be a little below that on a part. The bound on the part then serves for both.

    Raises:
        ArithmeticError: ``whole`` is lower by more than bounds are loose, so one of the bounds is
            wrong, and no false ε may be printed.
    """
    largest = max(parts)
    if not whole >= largest * (1 - _LOOSENESS):
        raise ArithmeticError(
            f"the accountant found ε = {whole!r} where a part of it costs {largest!r}; this is an "
            "error of dpsd, and no ε is stated"
        )
    return max(whole, largest)


def _merged(events: Events) -> Events:
    """Merge events into one entry per kind; Gaussians become one, as their squared signals add up.

    Raises:
        TypeError: an event is neither randomised response nor Gaussian.
    """
    responses: dict[dp_accounting.DpEvent, int] = {}
    signals: dict[float, int] = {}
    for event, count in events:
        if isinstance(event, dp_accounting.GaussianDpEvent):
            signals[event.noise_multiplier] = signals.get(event.noise_multiplier, 0) + count
        elif isinstance(event, dp_accounting.RandomizedResponseDpEvent):
            responses[event] = responses.get(event, 0) + count
        else:
            raise TypeError(f"no privacy loss distribution is known for {event}")
    merged = [(event, count) for event, count in responses.items() if count]
    if len(signals) == 1:
        (noise, count), *_ = signals.items()
        merged += [(dp_accounting.GaussianDpEvent(noise), count)] if count else []
    elif total := sum(count / noise**2 for noise, count in signals.items()):
        merged.append((dp_accounting.GaussianDpEvent(1 / math.sqrt(total)), 1))
    return tuple(merged)


def _renyi(events: Events, *, delta: float) -> float:
    """Return ε by Rényi divergences, after adding what rounding may have taken from them.

    Raises:
        ArithmeticError: a divergence is still negative or not a number.
    """
    divergences = np.zeros(len(_ORDERS))
    for event, count in events:
        divergences = divergences + count * _divergences(event)
    if not (divergences >= 0).all():
        raise ArithmeticError(
            "the accountant found a Rényi divergence that is negative or not a number; this is an "
            "error of dpsd, and no ε is stated"
        )
    epsilon = float(compute_epsilon(_ORDERS, divergences, delta)[0])
    # At order infinity, the divergence is the ε of pure ε-DP.
    return min(epsilon, sum(_pure(event, count) for event, count in events))


@lru_cache(maxsize=64)
def _divergences(event: dp_accounting.DpEvent) -> NDArray[np.float64]:
    """Rényi divergences of one event at every order, plus what rounding may have taken."""
    accountant = RdpAccountant(_ORDERS, NeighboringRelation.REPLACE_ONE)
    accountant.compose(event)
    divergences: NDArray[np.float64] = np.asarray(accountant.rdp)
    if isinstance(event, dp_accounting.RandomizedResponseDpEvent):
        # The logarithm of a sum near 1, divided by how far the order is from 1.
        orders = np.array(_ORDERS)
        size = 1 + orders * (event.num_buckets + response_epsilon(event))
        divergences = divergences + 16 * math.ulp(1.0) * size / (orders - 1)
    return divergences


def spent(
    event: dp_accounting.DpEvent,
    exposure: Exposure,
    *,
    delta: float,
    mean_event: dp_accounting.DpEvent | None = None,
) -> PrivacySpent:
    """Return what an exposure costs under every adjacency; ``mean_event`` defaults to ``event``."""
    spending = Spending(event=event, mean_event=mean_event or event, exposure=exposure)
    return spent_together([spending], delta=delta)


def format_epsilon(epsilon: float) -> str:
    """Format ε for display, rounded up, as an ε rounded down would be a false claim.

    >>> format_epsilon(0.99999999), format_epsilon(1.00001), format_epsilon(150018.05)
    ('1', '1.001', '150,019')
    >>> format_epsilon(0.0), format_epsilon(1e-12)
    ('0', '0.001')
    """
    if epsilon == float("inf"):
        return "∞"
    steps = 1 if epsilon >= 1000 else 1000
    shown = max(math.ceil(round(epsilon * steps, 6)), epsilon > 0) / steps
    return f"{shown:,.0f}" if steps == 1 else f"{shown:,.3f}".rstrip("0").rstrip(".")

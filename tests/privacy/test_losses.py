"""ε over its whole range: exact sums, what no accountant may say, and corners that were wrong."""

from __future__ import annotations

import math
import random
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import dp_accounting
import exact_losses as exact
import mpmath as mp
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd.errors import BudgetError
from dpsd.privacy import accounting
from dpsd.privacy.accounting import Spending, pld_epsilon, rdp_epsilon, spent, spent_together
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.losses import Losses, added_up, of_gaussian, of_responses
from dpsd.privacy.mechanisms import (
    ConfidentVotes,
    Gaussian,
    Mechanism,
    NoisyVotes,
    RandomizedResponse,
)
from dpsd.privacy.randomness import EXACT_REACH
from dpsd.privacy.targets import Adjacency, Budget, Exposure

DELTAS = (1e-12, 1e-9, 1e-8, 1e-5, 1e-3, 0.1)

#: Where exact sums take seconds, the ends of the range and what is usual.
OFTEN_OR_THOROUGH = [
    pytest.param(delta, marks=() if delta in (1e-12, 1e-5, 0.1) else pytest.mark.thorough)
    for delta in DELTAS
]


def response(epsilon: float, buckets: int = 2) -> dp_accounting.DpEvent:
    return dp_accounting.RandomizedResponseDpEvent(
        noise_parameter=buckets / (math.exp(epsilon) + buckets - 1), num_buckets=buckets
    )


def spending(event: dp_accounting.DpEvent, answers: int) -> Spending:
    asked = Exposure.of_rounds([answers])
    return Spending(event=event, mean_event=event, exposure=asked)


@pytest.mark.parametrize(
    ("epsilon", "count"),
    [(1e-6, 1), (1e-6, 300), (1e-3, 1), (1e-3, 400), (0.05, 200), (1.0, 1), (1.0, 60), (20.0, 3)],
)
@pytest.mark.parametrize("delta", DELTAS)
def test_responses_cost_what_exact_sums_say(epsilon: float, count: int, delta: float) -> None:
    true = exact.epsilon_at(exact.delta_of_losses(exact.responses(epsilon, count=count)), delta)
    stated = pld_epsilon(response(epsilon), count=count, delta=delta)
    assert true <= stated * (1 + 1e-15) <= true * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize(("epsilon", "count"), [(1e-6, 5), (0.1, 30), (2.0, 12), (0.02, 60)])
@pytest.mark.parametrize("buckets", [3, 10, 1_000])
@pytest.mark.parametrize("delta", DELTAS)
def test_responses_between_many_classes_too(
    epsilon: float, count: int, buckets: int, delta: float
) -> None:
    losses = exact.responses(epsilon, count=count, buckets=buckets)
    true = exact.epsilon_at(exact.delta_of_losses(losses), delta)
    stated = pld_epsilon(response(epsilon, buckets), count=count, delta=delta)
    # A thousand classes at ε₀ = 1e-6: the event itself is rounded by as much.
    assert true <= stated * (1 + 1e-15) <= true * (1 + 1e-5) + 1e-10


@pytest.mark.parametrize("noise", [0.2, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("count", [1, 1_000, 10**8])
@pytest.mark.parametrize("delta", DELTAS)
def test_gaussians_cost_what_the_closed_form_says(noise: float, count: int, delta: float) -> None:
    true = exact.epsilon_at(exact.delta_of_gaussian(noise, count=count), delta)
    stated = pld_epsilon(dp_accounting.GaussianDpEvent(noise), count=count, delta=delta)
    assert true <= stated * (1 + 1e-12) <= true * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize(
    ("one", "other"), [((0.3, 20), (0.7, 9)), ((0.01, 150), (0.4, 8)), ((3.0, 2), (0.002, 90))]
)
def test_responses_of_two_strengths_cost_what_exact_sums_say(
    one: tuple[float, int], other: tuple[float, int], delta: float
) -> None:
    losses = [exact.responses(epsilon, count=count) for epsilon, count in (one, other)]
    true = exact.epsilon_at(exact.together(losses[0], exact.delta_of_losses(losses[1])), delta)
    spendings = [spending(response(epsilon), count) for epsilon, count in (one, other)]
    stated = spent_together(spendings, delta=delta).teacher
    assert true <= stated * (1 + 1e-12) <= true * 1.005 + 1e-9


@pytest.mark.parametrize("delta", OFTEN_OR_THOROUGH)
@pytest.mark.parametrize(("epsilon", "count"), [(0.3, 20), (0.002, 100), (5.0, 2)])
@pytest.mark.parametrize("noise", [0.7, 6.0])
def test_a_response_and_a_gaussian_together_cost_what_exact_sums_say(
    epsilon: float, count: int, noise: float, delta: float
) -> None:
    losses = exact.responses(epsilon, count=count)
    true = exact.epsilon_at(exact.together(losses, exact.delta_of_gaussian(noise)), delta)
    both = [
        spending(response(epsilon), count),
        spending(dp_accounting.GaussianDpEvent(noise), 1),
    ]
    stated = spent_together(both, delta=delta).teacher
    assert true <= stated * (1 + 1e-12) <= true * 1.005 + 1e-9


@pytest.mark.parametrize(
    ("budget", "answers"),
    [
        ((1e-3, 1e-9), 12_000),
        ((0.01, 1e-12), 10**6),
        ((0.01, 1e-9), 1_200_000),
        ((0.02, 1e-5), 3 * 10**7),
    ],
)
def test_weak_responses_are_calibrated_to_what_they_cost(
    budget: tuple[float, float], answers: int
) -> None:
    """Rounding errors of Rényi divergences were believed: ε = 0 was stated, and 0.0445 was true."""
    epsilon, delta = budget
    target = Budget(epsilon=epsilon, delta=delta, adjacency="teacher")
    asked = Exposure.of_rounds([answers])
    calibrated = calibrate(RandomizedResponse(), target, asked)
    # Weak and many, the losses are a Gaussian's: of the mean ε₀²/2 each, the standard deviation ε₀.
    assert calibrated.epsilon is not None
    mu = calibrated.epsilon * math.sqrt(answers)
    limit = exact.epsilon_at(exact.delta_of_gaussian(1 / mu), delta)
    assert limit == pytest.approx(epsilon, rel=1e-3)
    assert pld_epsilon(calibrated.event(), count=answers, delta=delta) <= epsilon
    assert rdp_epsilon(calibrated.event(), count=answers, delta=delta) >= epsilon * (1 - 1e-3)


@pytest.mark.parametrize(("budget", "answers"), [((1e-3, 1e-12), 10**6), ((1e-3, 1e-5), 3 * 10**7)])
def test_what_no_response_is_weak_enough_for_is_refused(
    budget: tuple[float, float], answers: int
) -> None:
    epsilon, delta = budget
    target = Budget(epsilon=epsilon, delta=delta, adjacency="teacher")
    with pytest.raises(BudgetError, match="no noise level of RandomizedResponse gives epsilon"):
        calibrate(RandomizedResponse(), target, Exposure.of_rounds([answers]))


def test_many_weak_runs_of_different_strengths_never_cost_nothing() -> None:
    """A cap of 0.02 let 22 runs of ε = 0.01 in, as their sum was stated as ε = 0."""
    target = Budget(epsilon=0.01, delta=1e-5, adjacency="teacher")
    runs: list[Spending] = []
    costs: list[float] = []
    for number in range(8):
        asked = Exposure.of_rounds([1_200_000 + number])
        event = calibrate(RandomizedResponse(), target, asked).event()
        runs.append(Spending(event=event, mean_event=event, exposure=asked))
        costs.append(spent_together(runs, delta=1e-5).teacher)
    assert costs == sorted(costs)
    signal = math.sqrt(sum(_squared_signal(run) for run in runs))
    true = exact.epsilon_at(exact.delta_of_gaussian(1 / signal), 1e-5)
    assert true * (1 - 1e-3) <= costs[-1] <= true * 1.01
    assert [cost <= 0.02 for cost in costs].count(True) <= 3


def _squared_signal(run: Spending) -> float:
    own = pld_epsilon(run.event, count=1, delta=0)
    return own**2 * run.exposure.teacher


EVENTS = st.one_of(
    st.builds(response, st.floats(-13.8, 3.2).map(math.exp), st.sampled_from([2, 2, 10])),
    st.floats(-1.6, 9).map(math.exp).map(dp_accounting.GaussianDpEvent),
)
#: Any number of answers up to 1e8; between many classes fewer, as their losses take a while.
COUNTS = st.floats(0, math.log(10**8)).map(lambda power: round(math.exp(power)))
KINDS = st.tuples(EVENTS, COUNTS).map(
    lambda kind: (
        kind[0],
        min(kind[1], 10**4) if getattr(kind[0], "num_buckets", 2) > 2 else kind[1],
    )
)
ANY_DELTA = st.floats(math.log(1e-12), math.log(0.5)).map(math.exp)


def together(kinds: list[tuple[dp_accounting.DpEvent, int]], delta: float) -> float:
    return spent_together([spending(*kind) for kind in kinds], delta=delta).teacher


@settings(max_examples=10, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=3), ANY_DELTA)
def test_a_sum_is_at_least_each_of_its_parts(
    kinds: list[tuple[dp_accounting.DpEvent, int]], delta: float
) -> None:
    whole = together(kinds, delta)
    for kind in kinds:
        assert whole >= together([kind], delta)
    # Nor is it less than without one of them, though either bound may be loose by 0.2 %.
    assert whole >= together(kinds[1:], delta) * (1 - 2e-3)


@settings(max_examples=10, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=3), st.integers(1, 10**6), ANY_DELTA)
def test_more_answers_never_cost_less(
    kinds: list[tuple[dp_accounting.DpEvent, int]], more: int, delta: float
) -> None:
    (event, count), *others = kinds
    more = min(more, 100) if getattr(event, "num_buckets", 2) > 2 else more
    slack = 1e-9 if not others and getattr(event, "num_buckets", 2) == 2 else 2e-3
    assert together([(event, count + more), *others], delta) >= together(kinds, delta) * (1 - slack)


@settings(max_examples=10, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=3), st.tuples(ANY_DELTA, ANY_DELTA))
def test_a_smaller_delta_never_costs_less(
    kinds: list[tuple[dp_accounting.DpEvent, int]], deltas: tuple[float, float]
) -> None:
    slack = 1e-9 if len(kinds) == 1 else 2e-3
    small, large = (together(kinds, delta) for delta in sorted(deltas))
    assert small >= large * (1 - slack)


@settings(max_examples=10, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=3), ANY_DELTA)
def test_the_second_opinion_is_never_lower(
    kinds: list[tuple[dp_accounting.DpEvent, int]], delta: float
) -> None:
    cost = spent_together([spending(*kind) for kind in kinds], delta=delta)
    assert cost.rdp["teacher"] >= cost.teacher * (1 - 2e-3)


@settings(max_examples=10, deadline=None)
@given(KINDS)
def test_what_was_asked_costs_something_at_a_small_delta(
    kind: tuple[dp_accounting.DpEvent, int],
) -> None:
    # At any δ below the chance of telling two worlds apart by the best guess, which is δ(0).
    assert together([kind], 1e-12) > 0


def test_what_an_accountant_may_not_say_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [spending(response(0.01 + number / 1e4), 10_000) for number in range(3)]
    spent_together(runs, delta=1e-5)
    # Which remembers nothing.
    monkeypatch.setattr(accounting, "_bounded", accounting._bounded.__wrapped__)
    with monkeypatch.context() as patch:
        patch.setattr(accounting, "_renyi", lambda *_, **__: 0.0)
        with pytest.raises(ArithmeticError, match="this is an error of dpsd, and no ε is stated"):
            spent_together(runs, delta=1e-5)
    with monkeypatch.context() as patch:
        patch.setattr(Losses, "epsilon", lambda *_: math.nan)
        with pytest.raises(ArithmeticError):
            spent_together(runs, delta=1e-5)
    with monkeypatch.context() as patch:
        patch.setattr(accounting, "_divergences", accounting._divergences.__wrapped__)
        patch.setattr(RdpAccountant, "rdp", np.full(len(accounting._ORDERS), -1e-9))
        with pytest.raises(ArithmeticError, match="negative or not a number"):
            rdp_epsilon(response(1.0), count=3, delta=1e-5)


def test_parts_may_be_added_up_in_any_order() -> None:
    parts = [of_responses(response(0.1 * number), count=50) for number in range(1, 6)]
    parts.append(of_gaussian(dp_accounting.GaussianDpEvent(2.0)))
    found = []
    for seed in range(3):
        random.Random(seed).shuffle(parts)
        found.append(added_up(parts, delta=1e-6).epsilon(1e-6))
    assert found == pytest.approx([found[0]] * 3, rel=1e-9)


@pytest.mark.parametrize("delta", [1e-5, 0.1, 0.5])
def test_losses_that_are_nearly_certain_add_up(delta: float) -> None:
    runs = [spending(response(epsilon), 1) for epsilon in (25.0, 24.0)]
    assert spent_together(runs, delta=delta).teacher == pytest.approx(49.0, abs=1.0)


def test_an_infinite_loss_is_part_of_delta() -> None:
    losses = Losses(np.array([-1.0, 1.0]), np.array([0.2, 0.799]), infinite=1e-3)
    assert losses.epsilon(1e-3) == math.inf
    assert losses.delta(5.0) == 1e-3
    assert added_up([losses, losses], delta=0.01).epsilon(1.9e-3) == math.inf


@pytest.mark.parametrize("epsilon", [80.0, 200.0])
@pytest.mark.parametrize("mechanism", [Gaussian(), NoisyVotes(teachers=3)], ids=["one", "many"])
def test_no_budget_buys_a_signal_beyond_the_reach_of_the_noise(
    mechanism: Mechanism, epsilon: float
) -> None:
    """The table of the noise ends, and what it cannot draw told worlds apart with certainty."""
    target = Budget(epsilon=epsilon, delta=1e-5, adjacency="response")
    event = calibrate(mechanism, target, Exposure.of_rounds([100])).event()
    apart = 1 / event.noise_multiplier
    assert apart <= 8 * (1 + 1e-12)
    # What noise in one world cannot be had in the other is rarer than any δ that is asked for.
    assert float(mp.ncdf(apart - EXACT_REACH)) < 1e-20


def test_what_the_noise_cannot_draw_is_part_of_delta() -> None:
    strong = dp_accounting.GaussianDpEvent(1 / 12)
    missing = 2 * float(mp.ncdf(12 - EXACT_REACH))
    assert 1e-8 < missing < 1e-7
    assert pld_epsilon(strong, count=1, delta=0.999 * missing) == math.inf
    assert pld_epsilon(strong, count=10, delta=9.99 * missing) == math.inf
    assert math.isfinite(pld_epsilon(strong, count=1, delta=1e-5))
    continuous = exact.epsilon_at(exact.delta_of_gaussian(1 / 12), 2 * missing)
    assert pld_epsilon(strong, count=1, delta=2 * missing) > continuous


def test_the_reach_of_the_noise_is_that_of_a_single_answer() -> None:
    """A batch of which few are answered costs little on average, and each answer is as strong."""
    strong, on_average = (dp_accounting.GaussianDpEvent(noise) for noise in (1 / 12, 4.0))
    missing = 2 * float(mp.ncdf(12 - EXACT_REACH))
    asked = Exposure.of_rounds([10])
    cost = spent(strong, asked, delta=9.99 * missing, mean_event=on_average)
    assert cost.teacher == cost.rdp["teacher"] == math.inf
    assert math.isfinite(spent(strong, asked, delta=1e-5, mean_event=on_average).teacher)
    assert math.isfinite(spent(on_average, asked, delta=9.99 * missing).teacher)


def test_no_budget_for_the_average_buys_a_single_answer_beyond_the_reach() -> None:
    votes = ConfidentVotes(teachers=3, answered=1 / 256, test_noise=10.0)
    target = Budget(epsilon=2e4, delta=1e-5, adjacency="teacher")
    event = calibrate(votes, target, Exposure.of_rounds([2_048])).event()
    assert 1 / event.noise_multiplier == pytest.approx(8)


@pytest.mark.parametrize("adjacency", list(Adjacency))
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.1])
@pytest.mark.parametrize("epsilon", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("mechanism", [RandomizedResponse(), Gaussian()], ids=["labels", "data"])
def test_calibration_meets_its_target_at_any_delta(
    mechanism: Mechanism, epsilon: float, delta: float, adjacency: Adjacency
) -> None:
    asked = Exposure.of_rounds([2_000, 3_000])
    target = Budget(epsilon=epsilon, delta=delta, adjacency=adjacency)
    with pytest.warns(UserWarning, match="lower delta") if delta > 0.01 else _nothing():
        calibrated = calibrate(mechanism, target, asked)
    spent = spent_together([replace(spending(calibrated.event(), 1), exposure=asked)], delta=delta)
    assert spent.under(adjacency) <= epsilon * (1 + 1e-9)


def _nothing() -> AbstractContextManager[None]:
    return nullcontext()

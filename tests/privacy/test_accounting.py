"""ε against closed forms, independent arithmetic, and other accountants."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Literal

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from dpsd.errors import BudgetError
from dpsd.privacy.accounting import PrivacySpent, pld_epsilon, rdp_epsilon, spent
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.mechanisms import Gaussian, Mechanism, RandomizedResponse
from dpsd.privacy.targets import Adjacency, Budget, Exposure

DELTA = 1e-5
Candidates = Literal["per-query", "all"] | int


def binomial_epsilon(epsilon: float, count: int, delta: float) -> float:
    """ε of ``count`` binary randomised responses, from the two binomials that they amount to."""
    truths = np.arange(count + 1)
    truth = 1 / (1 + math.exp(-epsilon))
    ours, theirs = stats.binom.pmf(truths, count, truth), stats.binom.pmf(truths, count, 1 - truth)

    def excess(at: float) -> float:
        return float(np.maximum(ours - math.exp(at) * theirs, 0).sum()) - delta

    return 0.0 if excess(0) <= 0 else float(brentq(excess, 0, epsilon * count, xtol=1e-12))


def gaussian_epsilon(noise_multiplier: float, count: int, delta: float) -> float:
    """ε of Gaussians of sensitivity one, from the normal distribution (Balle & Wang, 2018)."""
    mu = math.sqrt(count) / noise_multiplier

    def excess(at: float) -> float:
        tail = math.exp(at + stats.norm.logcdf(-at / mu - mu / 2))
        return float(stats.norm.cdf(mu / 2 - at / mu)) - tail - delta

    return 0.0 if excess(0) <= 0 else float(brentq(excess, 0, mu**2 + 10 * mu + 10, xtol=1e-12))


@pytest.mark.parametrize("epsilon", [1e-3, 0.5, 1.0, 8.0, 25.0])
@pytest.mark.parametrize("candidates", ["per-query", "all", 2, 10])
def test_one_response_costs_its_epsilon(epsilon: float, candidates: Candidates) -> None:
    event = RandomizedResponse(epsilon=epsilon, candidates=candidates).event()
    assert pld_epsilon(event, count=1, delta=0) == pytest.approx(epsilon)
    assert pld_epsilon(event, count=1, delta=DELTA) <= epsilon * (1 + 1e-9)
    cost = spent(event, Exposure.of_rounds([40_000] * 3), delta=0)
    assert cost.response == pytest.approx(epsilon)
    assert cost.round == pytest.approx(3 * epsilon)
    assert cost.teacher == pytest.approx(120_000 * epsilon)


@pytest.mark.parametrize(
    ("epsilon", "count", "delta"),
    [(0.1, 100, 1e-5), (0.5, 20, 1e-6), (1.0, 8, 1e-5), (1.0, 300, 1e-3), (0.01, 5_000, 1e-5)],
)
def test_composed_responses_match_the_binomials(epsilon: float, count: int, delta: float) -> None:
    exact = binomial_epsilon(epsilon, count, delta)
    found = pld_epsilon(RandomizedResponse(epsilon=epsilon).event(), count=count, delta=delta)
    assert found >= exact * (1 - 1e-9)
    assert found == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("count", [2, 8, 50])
def test_responses_are_composed_as_often_as_they_are_counted(count: int) -> None:
    # dp_accounting 0.6 composes a randomised response once, whatever count it is given.
    event = RandomizedResponse(epsilon=1.0).event()
    one_by_one = dp_accounting.pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    for _ in range(count):
        one_by_one.compose(event)
    found = pld_epsilon(event, count=count, delta=DELTA)
    rounding = 1e-4 * count  # of its losses, upwards, to its grid
    assert found >= one_by_one.get_epsilon(DELTA) - rounding
    assert pld_epsilon(event, count=1, delta=DELTA) < found <= count


@pytest.mark.parametrize("candidates", [3, 10])
def test_events_dominate_answers_from_outside_the_candidates(candidates: int) -> None:
    """The cost of an answer covers every pair of classes, one of them outside the candidates."""
    epsilon = 1.0
    mechanism = RandomizedResponse(epsilon=epsilon, candidates=candidates)
    weight = math.exp(epsilon)
    inside = np.full(candidates, 1 / (weight + candidates - 1))
    inside[0] *= weight
    outside = np.full(candidates, 1 / candidates)
    for delta in (1e-3, 0.05, 0.1):
        claimed = pld_epsilon(mechanism.event(), count=1, delta=delta)
        for one, other in ((inside, outside), (outside, inside)):
            leaked = np.maximum(one - math.exp(claimed) * other, 0).sum()
            assert leaked <= delta + 1e-12


@pytest.mark.parametrize("noise_multiplier", [0.3, 1.0, 4.0, 60.0])
@pytest.mark.parametrize("count", [1, 8, 5_000])
def test_gaussians_match_the_closed_form(noise_multiplier: float, count: int) -> None:
    exact = gaussian_epsilon(noise_multiplier / 2, count, DELTA)
    found = pld_epsilon(
        Gaussian(noise_multiplier=noise_multiplier).event(), count=count, delta=DELTA
    )
    assert found >= exact
    assert found == pytest.approx(exact, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("noise_multiplier", "count"), [(1.0, 1), (2.0, 8), (5.0, 30)])
def test_gaussians_match_the_distributions(noise_multiplier: float, count: int) -> None:
    event = Gaussian(noise_multiplier=noise_multiplier).event()
    distribution = privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier / 2 / math.sqrt(count), value_discretization_interval=1e-4
    )
    expected = distribution.get_epsilon_for_delta(DELTA)
    assert pld_epsilon(event, count=count, delta=DELTA) == pytest.approx(expected, rel=1e-3)


def test_the_sensitivity_under_replacement_is_counted() -> None:
    # Noise of σC against a sensitivity of 2C is a multiplier of σ/2.
    assert Gaussian(noise_multiplier=3.0, bound=7.0).event() == dp_accounting.GaussianDpEvent(1.5)


@pytest.mark.parametrize(
    "mechanism",
    [
        *[RandomizedResponse(epsilon=epsilon) for epsilon in (1e-3, 0.1, 1.0, 5.0)],
        RandomizedResponse(epsilon=1.0, candidates=10),
        *[Gaussian(noise_multiplier=noise) for noise in (0.5, 2.0, 50.0)],
    ],
    ids=repr,
)
@pytest.mark.parametrize("count", [1, 8, 1_000])
@pytest.mark.parametrize("delta", [1e-8, 1e-3])
def test_renyi_bounds_are_looser(mechanism: Mechanism, count: int, delta: float) -> None:
    tight = pld_epsilon(mechanism.event(), count=count, delta=delta)
    loose = rdp_epsilon(mechanism.event(), count=count, delta=delta)
    assert loose >= tight * (1 - 1e-3) - 1e-6


STRENGTHS = st.floats(1e-2, 5)
COUNTS = st.integers(1, 200)
DELTAS = st.floats(1e-8, 1e-2)
KINDS = st.sampled_from([RandomizedResponse(), Gaussian()])


@settings(max_examples=40, deadline=None)
@given(
    KINDS,
    st.tuples(STRENGTHS, STRENGTHS),
    st.tuples(COUNTS, COUNTS),
    st.tuples(DELTAS, DELTAS),
)
def test_epsilon_rises_with_strength_and_count_and_falls_with_delta(
    mechanism: Mechanism,
    strengths: tuple[float, float],
    counts: tuple[int, int],
    deltas: tuple[float, float],
) -> None:
    least = mechanism.with_strength(min(strengths)).event()
    most = mechanism.with_strength(max(strengths)).event()
    low = pld_epsilon(least, count=min(counts), delta=max(deltas))
    high = pld_epsilon(most, count=max(counts), delta=min(deltas))
    assert low <= high * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("adjacency", list(Adjacency))
@pytest.mark.parametrize("mechanism", [RandomizedResponse(), Gaussian()], ids=repr)
@pytest.mark.parametrize("epsilon", [0.3, 8.0, 500.0])
def test_calibration_meets_the_budget_from_below(
    mechanism: Mechanism, adjacency: Adjacency, epsilon: float
) -> None:
    exposure = Exposure.of_rounds([300, 500, 500])
    budget = Budget(epsilon=epsilon, delta=DELTA, adjacency=adjacency)
    calibrated = calibrate(mechanism, budget, exposure)
    cost = spent(calibrated.event(), exposure, delta=DELTA).under(adjacency)
    assert cost <= epsilon
    event = calibrated.event()
    if isinstance(event, dp_accounting.GaussianDpEvent):
        strongest = event.noise_multiplier == pytest.approx(1 / 8, rel=1e-5)
    else:
        strongest = calibrated == mechanism.with_strength(mechanism.strengths[1])
    assert strongest or cost == pytest.approx(epsilon, rel=1e-3)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
def test_one_response_gets_its_epsilon_exactly(epsilon: float) -> None:
    """What δ would add is not worth a parameter that looks like more than what was asked for."""
    budget = Budget(epsilon=epsilon, delta=1e-5, adjacency="response")
    calibrated = calibrate(RandomizedResponse(), budget, Exposure.of_rounds([100] * 3))
    assert calibrated.epsilon == epsilon


def test_calibration_keeps_everything_but_the_noise_level() -> None:
    mechanism = Gaussian(bound=3.0, top_k=4, harden=False)
    calibrated = calibrate(mechanism, Budget(epsilon=1.0), Exposure.of_rounds([100]))
    assert replace(calibrated, noise_multiplier=None) == mechanism


def test_pure_privacy_is_shared_evenly() -> None:
    budget = Budget(epsilon=6.0, delta=0, adjacency=Adjacency.ROUND)
    calibrated = calibrate(RandomizedResponse(), budget, Exposure.of_rounds([100] * 3))
    assert calibrated.epsilon == pytest.approx(2.0, rel=1e-5)
    assert calibrated.epsilon is not None
    assert calibrated.epsilon <= 2.0


@pytest.mark.parametrize("epsilon", [0, -1.0, math.nan, math.inf])
def test_meaningless_epsilons_are_refused(epsilon: float) -> None:
    with pytest.raises(BudgetError, match="epsilon must be positive and finite"):
        Budget(epsilon=epsilon)


@pytest.mark.parametrize("delta", [-1e-9, 1, 2.0, math.nan, math.inf])
def test_meaningless_deltas_are_refused(delta: float) -> None:
    with pytest.raises(BudgetError, match="delta must be at least 0 and below 1"):
        Budget(epsilon=1.0, delta=delta)


def test_unknown_adjacencies_are_refused() -> None:
    with pytest.raises(BudgetError, match="one of response, round, teacher, not 'person'"):
        Budget(epsilon=1.0, adjacency="person")  # type: ignore[arg-type]


@pytest.mark.parametrize("adjacency", ["response", "round", "teacher"])
def test_adjacencies_may_be_named(adjacency: Literal["response", "round", "teacher"]) -> None:
    assert Budget(epsilon=1.0, adjacency=adjacency).adjacency is Adjacency(adjacency)


def test_gaussians_cannot_be_pure() -> None:
    with pytest.raises(BudgetError, match=r"no noise level of Gaussian gives epsilon 1 at delta 0"):
        calibrate(Gaussian(), Budget(epsilon=1.0, delta=0), Exposure.of_rounds([100]))
    assert pld_epsilon(Gaussian(noise_multiplier=1.0).event(), count=1, delta=0) == math.inf


def test_a_budget_too_small_for_the_answers_is_refused() -> None:
    budget = Budget(epsilon=1e-4, delta=0, adjacency=Adjacency.TEACHER)
    with pytest.raises(BudgetError, match="fewer rounds or queries"):
        calibrate(RandomizedResponse(), budget, Exposure.of_rounds([40_000] * 8))


@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_a_large_delta_warns(adjacency: Adjacency) -> None:
    asked = Exposure.of_rounds([1_000] * 2)
    large = Budget(epsilon=1.0, delta=1e-3, adjacency=adjacency)
    small = Budget(epsilon=1.0, delta=1e-4, adjacency=adjacency)
    with pytest.warns(UserWarning, match="above one over the 2000 answers"):
        calibrate(Gaussian(), large, asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(Gaussian(), small, asked)
        calibrate(RandomizedResponse(), large, asked)
    # Randomised response publishes no answer outright, until δ is the chance of doing so.
    with pytest.warns(UserWarning, match="delta 0.5 is the chance .* lower delta to 0.01"):
        calibrate(RandomizedResponse(), replace(large, delta=0.5), asked)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], (0, 0, 0)),
        ([0, 0], (0, 0, 0)),
        ([5], (1, 1, 5)),
        ([5, 7, 9], (1, 3, 21)),
        ([5, 0, 9], (1, 2, 14)),
    ],
)
def test_exposure_of_rounds(answers: list[int], expected: tuple[int, int, int]) -> None:
    exposure = Exposure.of_rounds(answers)
    assert tuple(exposure.under(adjacency) for adjacency in Adjacency) == expected


@given(
    attempts=st.lists(st.integers(1, 3), max_size=6),
    pictures=st.integers(1, 3),
    chance=st.randoms(use_true_random=False),
)
def test_no_image_is_asked_more_often_than_exposure_says(
    attempts: list[int], pictures: int, chance: Random
) -> None:
    """Every attempt asks images that no stored round asked; the last of a round is stored."""
    asked, stored, times = [], set[int](), Counter[int]()
    for number, count in enumerate(attempts, start=1):
        for _ in range(count):
            fresh = [picture for picture in range(pictures) if picture not in stored]
            shown = {picture for picture in fresh if chance.random() < 0.7}
            asked.append((number, 10))
            times.update(shown)
        stored |= shown
    exposure = Exposure.of_asked(asked)
    assert max(times.values(), default=0) <= exposure.response
    extra = sum(attempts) - len(attempts)
    assert exposure == Exposure(
        response=extra + bool(attempts), round=sum(attempts), teacher=10 * sum(attempts)
    )


def test_nothing_asked_costs_nothing() -> None:
    for mechanism in (RandomizedResponse(epsilon=1.0), Gaussian(noise_multiplier=1.0)):
        cost = spent(mechanism.event(), Exposure.of_rounds([]), delta=DELTA)
        assert [cost.under(adjacency) for adjacency in Adjacency] == [0, 0, 0]
        assert set(cost.rdp.values()) == {0.0}


def test_adjacencies_are_ordered_by_strength() -> None:
    for mechanism in (RandomizedResponse(epsilon=1.0), Gaussian(noise_multiplier=1.0)):
        cost = spent(mechanism.event(), Exposure.of_rounds([1_000] * 4), delta=DELTA)
        assert isinstance(cost, PrivacySpent)
        assert cost.response < cost.round < cost.teacher


def test_unknown_events_are_refused() -> None:
    with pytest.raises(TypeError, match="no privacy loss distribution"):
        pld_epsilon(dp_accounting.LaplaceDpEvent(1.0), count=1, delta=DELTA)


@pytest.mark.parametrize("delta", [1e-5, 1e-12, 1e-30])
@pytest.mark.parametrize(
    "mechanism", [RandomizedResponse(epsilon=1e-3), Gaussian(noise_multiplier=1e3)]
)
def test_accounting_logs_nothing_where_losses_are_tiny(
    caplog: pytest.LogCaptureFixture, mechanism: Mechanism, delta: float
) -> None:
    """dp_accounting would log that a divergence is negative, but none is handed to it."""
    spent(mechanism.event(), Exposure.of_rounds([1_000] * 3), delta=delta)
    assert not caplog.records

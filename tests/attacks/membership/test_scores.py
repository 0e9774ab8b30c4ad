"""Every score is what its paper says, finds what is there, and nothing where there is nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn.metrics import roc_auc_score

from dpsd.attacks.membership.scores import (
    SCORES,
    Flags,
    Numbers,
    Score,
    Seen,
    bavaria_t,
    left_out,
    lira_offline,
    lira_online,
    rmia,
    threshold,
)
from dpsd.errors import ConfigError

EACH = pytest.mark.parametrize("score", SCORES, ids=lambda score: score.name)


def halves(models: int, records: int, generator: np.random.Generator) -> Flags:
    first = generator.random((models // 2, records)) < 0.5
    return np.stack([first, ~first], axis=1).reshape(models, records)


def gaussian_world(
    *, models: int, records: int, signal: float, spread: float = 2.0, seed: int = 0
) -> tuple[Numbers, Flags]:
    """Confidences of unit variance around a record's own mean, and ``signal`` more for members."""
    generator = np.random.default_rng(seed)
    is_in = halves(models, records, generator)
    means = spread * generator.normal(size=records)
    return means + signal * is_in + generator.normal(size=is_in.shape), is_in


def known(values: list[float]) -> Seen:
    """Two records; of four references, two were trained on each; means are 2 and 0, variance 2."""
    return Seen(
        target=np.array(values),
        references=np.array([[1.0, 1.0], [-1.0, -1.0], [3.0, 3.0], [1.0, 1.0]]),
        is_in=np.array([[True, True], [False, False], [True, True], [False, False]]),
    )


@given(value=st.floats(-1e3, 1e3))
@settings(max_examples=30)
def test_lira_is_the_ratio_of_two_densities_of_one_variance(value: float) -> None:
    """A ratio of distribution functions would not be linear: it vanishes on the right."""
    means, variance = (2.0, 0.0), 2.0
    expected = ((value - means[1]) ** 2 - (value - means[0]) ** 2) / (2 * variance)
    assert lira_online(known([value, 0.0]))[0] == pytest.approx(expected, abs=1e-9)


def test_lira_pools_the_variance_over_records() -> None:
    """Within a record, never between: records of unlike means do not widen it."""
    references = np.array([[1.0, 101.0], [-1.0, 99.0], [3.0, 105.0], [1.0, 101.0]])
    is_in = known([0, 0]).is_in
    seen = Seen(target=np.array([2.0, 103.0]), references=references, is_in=is_in)
    # Sums of squares of members: 2 and 8, of others: 2 and 2; one degree of freedom a record.
    inside, outside = (2 + 8) / 2, (2 + 2) / 2
    expected = stats.norm.logpdf(2, 2, math.sqrt(inside)) - stats.norm.logpdf(
        2, 0, math.sqrt(outside)
    )
    assert lira_online(seen)[0] == pytest.approx(expected)


@pytest.mark.parametrize("value", [-5.0, 0.0, 3.0, 40.0])
def test_offline_lira_is_the_upper_tail_of_others(value: float) -> None:
    tail, _ = integrate.quad(stats.norm(0, math.sqrt(2)).pdf, value, np.inf, epsabs=0)
    found = lira_offline(known([value, 0.0]))[0]
    assert found == pytest.approx(-math.log(tail), rel=1e-6)


def test_offline_lira_tells_apart_what_one_minus_a_distribution_function_does_not() -> None:
    first, second = lira_offline(known([100.0, 101.0]))
    assert second > first > 100


def test_offline_lira_uses_no_model_that_was_trained_on_the_record() -> None:
    seen = known([1.0, 1.0])
    moved = np.where(seen.is_in, 1e6, seen.references)
    other = Seen(target=seen.target, references=moved, is_in=seen.is_in)
    assert (lira_offline(seen) == lira_offline(other)).all()


@pytest.mark.parametrize("value", [0.5, 60.0])
def test_bavaria_integrates_mean_and_variance_out(value: float) -> None:
    """The closed form is the integral of the normal density over the posterior."""
    references = np.array([[1.0, 5.0], [0.0, 2.0], [3.0, 6.0], [-1.0, 3.0]])
    is_in = known([0, 0]).is_in
    seen = Seen(target=np.array([value, 0.0]), references=references, is_in=is_in)

    def predictive(chosen: Flags) -> float:
        own = references[chosen[:, 0], 0]
        means = np.array([references[chosen[:, n], n].mean() for n in (0, 1)])
        squares = [np.square(references[chosen[:, n], n] - means[n]).sum() for n in (0, 1)]
        variance = sum(squares) / 2
        spread = max(1e-12, means.var() - variance / 2)
        weight, shape = variance / spread, 2.0

        def joint(log_variance: float, value: float | None) -> float:
            """The density of data and a value; the mean is integrated out in closed form."""
            at = math.exp(log_variance)
            data = own if value is None else np.append(own, value)
            covariance = at * (np.eye(len(data)) + 1 / weight)
            density = stats.multivariate_normal.pdf(
                data, np.full(len(data), means.mean()), covariance
            )
            prior = stats.invgamma.pdf(at, shape, scale=(shape - 1) * variance)
            return float(density * prior * at)

        with_value, without = (
            integrate.quad(joint, -12, 14, args=(one,), epsabs=0, limit=100)[0]
            for one in (value, None)
        )
        return math.log(with_value / without)

    expected = predictive(is_in) - predictive(~is_in)
    assert bavaria_t(seen)[0] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_bavaria_is_bounded_where_lira_is_not() -> None:
    """A Student's tails are heavy, so that a single confidence proves only so much."""
    seen = known([1e6, 0.0])
    assert lira_online(seen)[0] > 1e5
    assert abs(bavaria_t(seen)[0]) < 50


def test_rmia_is_the_share_of_records_that_rose_less_by_half() -> None:
    generator = np.random.default_rng(0)
    is_in = halves(6, 20, generator)
    references, target = generator.normal(size=(6, 20)), 2 * generator.normal(size=20)
    found = rmia(Seen(target=target, references=references, is_in=is_in))

    def probability(confidence: float) -> float:
        return 1 / (1 + math.exp(-confidence))

    ratios = []
    for record in range(20):
        means = [
            np.mean([probability(c) for c in references[is_in[:, record] == side, record]])
            for side in (True, False)
        ]
        ratios.append(probability(target[record]) / float(np.mean(means)))
    expected = [
        np.mean([ratios[x] / ratios[z] >= 2 for z in range(20) if z != x]) for x in range(20)
    ]
    assert found == pytest.approx(np.array(expected))


def test_a_threshold_is_the_confidence() -> None:
    assert threshold(known([0.5, -3.0])).tolist() == [0.5, -3.0]


def test_lira_is_optimal_where_its_assumptions_hold() -> None:
    """With many references, its area is that of the best test, Φ(signal / √2)."""
    confidences, is_in = gaussian_world(models=48, records=400, signal=1.0)
    best = stats.norm.cdf(1 / math.sqrt(2))
    area = roc_auc_score(is_in.ravel(), left_out(confidences, is_in, SCORES[0]).ravel())
    assert best - 0.03 < area < best + 0.01


@EACH
def test_a_strong_signal_is_found(score: Score) -> None:
    confidences, is_in = gaussian_world(models=16, records=300, signal=3.0, spread=1.0)
    found = left_out(confidences, is_in, score)
    assert roc_auc_score(is_in.ravel(), found.ravel()) > 0.9


@EACH
def test_nothing_is_found_where_there_is_nothing(score: Score) -> None:
    areas = []
    for seed in range(5):
        confidences, is_in = gaussian_world(models=16, records=400, signal=0.0, seed=seed)
        found = left_out(confidences, is_in, score)
        areas.append(roc_auc_score(is_in.ravel(), found.ravel()))
    assert abs(float(np.mean(areas)) - 0.5) < 0.01


@EACH
def test_a_model_is_scored_without_itself_and_its_complement(score: Score) -> None:
    """Otherwise the number of models that a record is in would tell of its membership."""
    confidences, is_in = gaussian_world(models=8, records=30, signal=1.0)
    found = left_out(confidences, is_in, score)
    changed = confidences.copy()
    changed[1] = 1e3
    again = left_out(changed, is_in, score)
    assert (found[0] == again[0]).all()
    if score.of is not threshold:
        assert not (found[2:] == again[2:]).all()


@pytest.mark.parametrize("models", [3, 4])
def test_models_that_are_not_complementary_are_refused(models: int) -> None:
    with pytest.raises(ValueError, match="complementary"):
        left_out(np.zeros((models, 5)), np.ones((models, 5), dtype=bool), SCORES[0])


def test_a_record_that_all_references_know_is_refused() -> None:
    is_in = np.array([[True, True], [True, False], [True, False]])
    with pytest.raises(ConfigError, match="train more shadows"):
        Seen(target=np.zeros(2), references=np.zeros((3, 2)), is_in=is_in)


def test_names_of_scores_are_unique_and_versions_count_from_one() -> None:
    assert len({score.name for score in SCORES}) == len(SCORES)
    assert min(score.version for score in SCORES) == 1

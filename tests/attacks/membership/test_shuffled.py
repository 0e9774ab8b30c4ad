"""The control in which there is nothing to find fails on evidence alone, and sees a real leak."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from tests.attacks.membership.test_scores import gaussian_world, halves

from dpsd.attacks.membership import controls
from dpsd.attacks.membership.controls import NULL_MISTAKE, null_control
from dpsd.attacks.membership.scores import SCORES, Flags, Numbers, Score, Seen, left_out
from dpsd.attacks.membership.shuffled import Shuffled, drawn_anew

#: The models and records of ``--quick``.
QUICK = {"models": 6, "records": 80}

Scorer = Callable[[Numbers, Flags, Score], Numbers]


def with_the_complement(confidences: Numbers, is_in: Flags, score: Score) -> Numbers:
    """The mistake that the control is for: the other model of a pair tells what it lacks."""
    rest = [np.arange(len(is_in)) != model for model in range(len(is_in))]
    return np.stack(
        [
            score.of(Seen(target=own, references=confidences[others], is_in=is_in[others]))
            for own, others in zip(confidences, rest, strict=True)
        ]
    )


def told_of_some(share: float) -> Scorer:
    def scored(confidences: Numbers, is_in: Flags, score: Score) -> Numbers:
        found = left_out(confidences, is_in, score)
        is_told = np.random.default_rng(5).random(found.shape) < share
        return np.where(is_told & is_in, found.max() + 1, found)

    return scored


@pytest.mark.parametrize("signal", [0.0, 3.0])
def test_nothing_is_found_where_there_is_nothing(signal: float) -> None:
    """However much the models leak about the membership that they had."""
    for seed in range(4):
        confidences, is_in = gaussian_world(**QUICK, signal=signal, seed=seed)
        found = null_control(confidences, is_in, seed=seed)
        assert found.found, found.sentence


@pytest.mark.parametrize(
    "scorer", [with_the_complement, told_of_some(0.02)], ids=["complement", "2% told"]
)
def test_a_score_that_knows_the_membership_is_caught(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controls, "left_out", scorer)
    for seed in range(3):
        confidences, is_in = gaussian_world(**QUICK, signal=1.0, seed=seed)
        found = null_control(confidences, is_in, seed=seed)
        assert not found.found, found.sentence


@pytest.mark.parametrize(("models", "records"), [(6, 80), (6, 20), (16, 60)])
def test_false_alarms_are_as_rare_as_is_said(models: int, records: int) -> None:
    """Also if models of a record score alike, as they do, and if many scores are equal."""
    generator = np.random.default_rng(models + records)
    found = []
    for run in range(2_000):
        shared = generator.normal(size=records) * (1 + run % 3)
        scores = shared + generator.normal(size=(models, records))
        is_in = halves(models, records, generator)
        found.append(Shuffled.of(scores.round(1) if run % 2 else scores, is_in).p)
    p = np.array(found)
    for level in (0.1, 0.01):
        # At most as many as the level says, but for what the count itself may be off by chance.
        assert (p <= level).sum() <= stats.binom.isf(1e-6, len(p), level)
    assert p.min() > NULL_MISTAKE / len(SCORES)


def test_a_few_lucky_members_are_no_evidence() -> None:
    """Of 240, as a quick attack has: 15 members before a third false positive were once a failure.

    So they are by a limit of 6%, though coins do it every few hundred times.
    """
    lucky = Shuffled(higher=125, coins=240, found=15, false_positives=2, members=240)
    assert lucky.p_found == pytest.approx(stats.nbinom.sf(14, 3, 0.5))
    assert lucky.p > NULL_MISTAKE / len(SCORES)
    leaking = Shuffled(higher=125, coins=240, found=30, false_positives=2, members=240)
    assert leaking.p < NULL_MISTAKE / len(SCORES)


def test_every_draw_is_another_one_and_each_pair_is_scored_by_its_own() -> None:
    drawn = list[Flags]()

    def scored(is_in: Flags) -> Numbers:
        drawn.append(is_in)
        return is_in.astype(float)

    found = drawn_anew(scored, **QUICK, seed=0)
    assert (found.higher, found.found) == (found.coins, found.members)
    assert found.members == 80 * len(drawn) >= 4_000
    assert len({one.tobytes() for one in drawn}) == len(drawn)
    assert all((one[::2] ^ one[1::2]).all() for one in drawn)


def test_equal_scores_say_nothing() -> None:
    found = Shuffled.of(np.zeros((4, 50)), halves(4, 50, np.random.default_rng(0)))
    assert (found.coins, found.found, found.p) == (0, 0, 1.0)

"""Every claim survives the audit, comes close where it is tight, and no broken copy does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import dp_accounting
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpsd.attacks import bounds
from dpsd.attacks.audit import audit
from dpsd.attacks.games import CAPPED, Game, standard_games, worst_case
from dpsd.errors import ConfigError
from dpsd.privacy.answers import RawAnswers, open_for_mechanism
from dpsd.privacy.mechanisms import (
    ConfidentVotes,
    Gaussian,
    Mechanism,
    NoisyVotes,
    RandomizedResponse,
    SummedGradients,
)
from dpsd.privacy.randomness import NoiseSource, ReproducibleNoise, SystemNoise
from dpsd.privacy.targets import Adjacency

#: Half of what `dpsd audit` plays.
DRAWS = 500_000
#: For what is broken, fewer are enough.
FEWER = 100_000
GAMES = [game for game in standard_games() if not game.is_null]
NULL = [game for game in standard_games() if game.is_null]
#: What the bound of a tight claim of 1 is at least. Noise is secret and thus never the same: over
#: eight audits, the mean bounds of Gaussian mechanisms were 0.90 to 0.92, with deviations of up to
#: 0.025. Six of them are left as room, as a test must not fail by chance.
TIGHT = 0.75
#: The test of consensus is paid for as if it told more than it does; and of ten classes whose
#: priors change from round to round, the two in question are not always the furthest apart. The
#: bound of the latter was 0.79 to 0.83 in five audits.
LOOSE = {
    "confident-votes": 0.4,
    "confident-votes, 50% answered": 0.4,
    "gaussian, normalize, 10 classes": 0.65,
}


def played(game: Game) -> object:
    """A game as a parameter; answers in every round are in between an answer and all of them.

    Ten classes are played for an answer; for all answers they take as long as all other games.
    """
    is_between = game.adjacency is Adjacency.ROUND
    is_long = game.adjacency is Adjacency.TEACHER and "10 classes" in game.name
    marks = [pytest.mark.thorough] if is_between or is_long else []
    return pytest.param(game, marks=marks, id=f"{game.name}-{game.adjacency.value}")


@pytest.mark.parametrize("game", [played(game) for game in GAMES])
def test_claims_hold_and_are_tight(game: Game) -> None:
    found = audit(game, draws=DRAWS)
    assert found.claimed == pytest.approx(1.0, rel=1e-3)
    assert found.lower_bound <= found.claimed
    assert found.lower_bound >= LOOSE.get(found.mechanism, TIGHT)


def is_caught(mechanism: Mechanism, adjacency: Adjacency, *, classes: int = 2) -> bool:
    game = worst_case(mechanism, adjacency, epsilon=1.0, classes=classes)
    return not audit(game, draws=FEWER).holds


def truth(answers: RawAnswers) -> Tensor:
    return open_for_mechanism(answers).argmax(-1)


# Noise forgotten.


@dataclass(frozen=True, kw_only=True)
class HonestResponse(RandomizedResponse):
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        return truth(answers)


class Silence(SystemNoise):
    def discrete_gaussian(self, shape: tuple[int, ...], *, scale: float) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64)


@dataclass(frozen=True, kw_only=True)
class CertainOfConsensus(ConfidentVotes):
    """Forgets the noise of its test: whether there is an answer tells."""

    def privatize(self, answers: RawAnswers, prior: Tensor, *, batches: int = 1) -> Tensor:
        agreed = open_for_mechanism(answers).sum(0).amax(-1) >= self.threshold * self._teachers
        votes = NoisyVotes(noise_multiplier=self.noise_multiplier, teachers=self.teachers)
        release = votes.privatize(answers, prior)
        return release.masked_fill(~agreed.unsqueeze(-1), torch.nan)


@dataclass(frozen=True, kw_only=True)
class ClearestWithoutNoise(ConfidentVotes):
    """Forgets it where the answers of a batch are dealt out: who is displaced tells."""

    def privatize(self, answers: RawAnswers, prior: Tensor, *, batches: int = 1) -> Tensor:
        quiet = replace(self, test_noise=1e-9)
        return ConfidentVotes.privatize(quiet, answers, prior, batches=batches)


@dataclass(frozen=True, kw_only=True)
class WithoutItsCap(ConfidentVotes):
    """Answers whatever passes, and pays for half of it."""

    def privatize(self, answers: RawAnswers, prior: Tensor, *, batches: int = 1) -> Tensor:
        generous = replace(self, answered=1.0)
        return ConfidentVotes.privatize(generous, answers, prior, batches=batches)


@dataclass(frozen=True, kw_only=True)
class FreeOfTests(ConfidentVotes):
    """Pays for answers, and not for the test that says which are given."""

    def _composed(self, answers: float) -> dp_accounting.DpEvent:
        return dp_accounting.GaussianDpEvent(self._noise_multiplier / math.sqrt(2 * answers))


# Half the sensitivity.


@dataclass(frozen=True, kw_only=True)
class HalfResponse(RandomizedResponse):
    strengths: ClassVar[tuple[float, float]] = (2e-6, 25.0)

    def event(self) -> dp_accounting.DpEvent:
        return replace(RandomizedResponse(), epsilon=self._epsilon / 2).event()


@dataclass(frozen=True, kw_only=True)
class HalfGaussian(Gaussian):
    def event(self) -> dp_accounting.DpEvent:
        return dp_accounting.GaussianDpEvent(self._noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class HalfVotes(NoisyVotes):
    def event(self) -> dp_accounting.DpEvent:
        return dp_accounting.GaussianDpEvent(2 * self._noise_multiplier / math.sqrt(2))


@dataclass(frozen=True, kw_only=True)
class HalfGradients(SummedGradients):
    def event(self) -> dp_accounting.DpEvent:
        return dp_accounting.GaussianDpEvent(self._noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class WidenedTooFar(Gaussian):
    def _coordinates(self, prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        order, likely, widening = super()._coordinates(prior)
        return order, likely, 1.5 * widening


# What is released is chosen by the answer, for nothing.


@dataclass(frozen=True, kw_only=True)
class CoordinatesFromTheAnswer(Gaussian):
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        known = open_for_mechanism(answers).double()
        kept = (known + 1e-3 * prior).topk(2, dim=-1).indices
        gradient = (prior.double() - known).gather(-1, kept)
        gradient = gradient / gradient.norm(dim=-1, keepdim=True)
        noisy = self._noisy(gradient, self._deviation)
        return torch.zeros_like(known).scatter_(-1, kept, noisy).float()

    def log_likelihood(self, release: Tensor, prior: Tensor) -> Tensor:
        return Gaussian(noise_multiplier=self.noise_multiplier).log_likelihood(release, prior)


@dataclass(frozen=True, kw_only=True)
class CandidatesFromTheAnswer(RandomizedResponse):
    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        # Two candidates with the answer's own among them: the others are never said.
        return super().privatize(answers, open_for_mechanism(answers) + 1e-3 * prior)


# The same noise twice.


class SameNoiseEveryRound(NoiseSource):
    is_private = True
    description = "secret, but the same in every round"

    def __init__(self) -> None:
        self.secret = int.from_bytes(SystemNoise().bits(1).tobytes(), "little")
        self.stream = np.random.Generator(np.random.Philox(seed=self.secret))

    def bits(self, count: int) -> NDArray[np.uint64]:
        return self.stream.integers(0, 2**64, size=count, dtype=np.uint64)

    def for_round(self, round_index: int) -> NoiseSource:
        self.stream = np.random.Generator(np.random.Philox(seed=self.secret))
        return self


class SeededAnewOnResume(NoiseSource):
    """Every process begins with the run's seed: a round that is asked again repeats its noise."""

    is_private = True
    description = "the run's seed"

    def bits(self, count: int) -> NDArray[np.uint64]:
        raise AssertionError("each round has a stream of its own")

    def for_round(self, round_index: int) -> NoiseSource:
        attempted_again = 1
        return ReproducibleNoise(seed=0, round_index=attempted_again)


def capped(kind: type[ConfidentVotes]) -> ConfidentVotes:
    return kind(threshold=CAPPED.threshold, test_noise=CAPPED.test_noise, answered=CAPPED.answered)


ROUND, RESPONSE = Adjacency.ROUND, Adjacency.RESPONSE
BROKEN: dict[str, tuple[Mechanism, Adjacency, int]] = {
    "labels without noise": (HonestResponse(), RESPONSE, 2),
    "gradients without noise": (Gaussian(noise=Silence()), RESPONSE, 2),
    "votes without noise": (NoisyVotes(noise=Silence()), Adjacency.TEACHER, 2),
    "summed gradients without noise": (SummedGradients(noise=Silence()), Adjacency.TEACHER, 2),
    "a test of consensus without noise": (
        CertainOfConsensus(threshold=0.8, answered=1.0),
        Adjacency.TEACHER,
        2,
    ),
    "a cap dealt out without noise, one answer": (capped(ClearestWithoutNoise), RESPONSE, 2),
    "a cap dealt out without noise, all": (capped(ClearestWithoutNoise), Adjacency.TEACHER, 2),
    "a test that is not paid for": (capped(FreeOfTests), Adjacency.TEACHER, 2),
    "half the sensitivity of labels": (HalfResponse(), RESPONSE, 2),
    "half the sensitivity of gradients": (HalfGaussian(), ROUND, 2),
    "half the sensitivity of votes": (HalfVotes(), Adjacency.TEACHER, 2),
    "half the sensitivity of summed gradients": (HalfGradients(), Adjacency.TEACHER, 2),
    "gradients widened too far": (WidenedTooFar(), RESPONSE, 10),
    "coordinates from the answer": (CoordinatesFromTheAnswer(top_k=2), RESPONSE, 4),
    "candidates from the answer": (CandidatesFromTheAnswer(candidates=2), RESPONSE, 4),
    "the same noise in two rounds, labels": (
        RandomizedResponse(noise=SameNoiseEveryRound()),
        ROUND,
        4,
    ),
    "the same noise in two rounds, gradients": (Gaussian(noise=SameNoiseEveryRound()), ROUND, 3),
    "the same noise in two rounds, votes": (NoisyVotes(noise=SameNoiseEveryRound()), ROUND, 2),
    "a seed reused on resume, labels": (
        RandomizedResponse(candidates="all", noise=SeededAnewOnResume()),
        ROUND,
        4,
    ),
    "a seed reused on resume, gradients": (Gaussian(noise=SeededAnewOnResume()), ROUND, 3),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_copies_are_caught(broken: str) -> None:
    mechanism, adjacency, classes = BROKEN[broken]
    assert is_caught(mechanism, adjacency, classes=classes)


def test_games_of_a_cap_are_batches_of_their_own() -> None:
    """In each, one of two queries is answered, whatever the others are."""
    game = worst_case(CAPPED, RESPONSE, epsilon=1.0, teachers=12)
    answered = game.play(0, 1_000).isfinite().all(-1)
    assert answered.shape == (1_000, 1, 2)
    assert int(answered.sum(-1).max()) == 1
    assert int(answered.sum()) > 900  # where neither passed, the threshold decided
    assert 300 < int(answered[:, 0, 0].sum()) < 700  # either, as it happens
    one, other = (world.sum(0).amax(-1) for world in game.worlds)  # the largest bins
    assert one.tolist() == [[12, 11]]
    assert other.tolist() == [[11, 11]]


def test_a_cap_that_is_not_kept_is_caught() -> None:
    """Among so many teachers that the threshold stops no query."""
    mechanism = WithoutItsCap(threshold=1e-3, test_noise=3.0, answered=0.25)
    game = worst_case(mechanism, Adjacency.TEACHER, epsilon=1.0, teachers=60)
    assert not audit(game, draws=FEWER).holds
    kept = replace(game, mechanism=ConfidentVotes(**vars(game.mechanism)))
    assert audit(kept, draws=FEWER).holds


@pytest.mark.parametrize("game", NULL, ids=[game.name for game in NULL])
def test_nothing_is_proven_of_the_deaf(game: Game) -> None:
    assert game.claimed == 0
    found = audit(game, draws=FEWER)
    assert (found.lower_bound, found.holds) == (0, True)


def test_the_deaf_are_deaf() -> None:
    """And would be found out if they were not."""
    game = NULL[0]
    assert not torch.equal(*game.worlds)
    heard = replace(game, is_null=False)
    said = [float(g.play(1, FEWER).double().mean()) for g in (game, heard)]
    assert abs(said[0] - float(game.play(0, FEWER).double().mean())) < 0.02
    assert abs(said[1] - said[0]) > 0.1
    assert audit(heard, draws=FEWER).lower_bound > 0


def test_an_auditor_that_takes_luck_for_proof_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without confidence, half of all audits prove something of a mechanism that says nothing."""

    def lucky(count: int, total: int) -> float:
        return count / total

    monkeypatch.setattr(bounds, "_at_least", lucky)
    monkeypatch.setattr(bounds, "_at_most", lucky)
    found = [audit(replace(game, delta=0.0), draws=2_000) for game in [NULL[0]] * 20]
    assert not all(one.holds for one in found)


def test_an_audit_needs_draws() -> None:
    with pytest.raises(ConfigError, match="draws is 10"):
        audit(GAMES[0], draws=10)

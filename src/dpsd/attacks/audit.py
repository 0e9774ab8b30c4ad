"""Auditing a mechanism: play the game that its ε is about, and measure how well an attacker does.

Two worlds differ in the teacher's answer about one image, about one image in every round, or about
all images. The mechanism itself releases its answers in both worlds, a million times, and an
attacker who knows everything but the noise guesses which world it was. The attacker's success rate
gives a lower bound on ε, with Clopper-Pearson confidence. If the bound is above what
:meth:`Mechanism.event` claims, the claim is false: noise was forgotten, used twice or too small, or
something else leaks. If the claim is tight, the bound comes close to it.

The attacker tries two scores on a part of the releases, the mechanism's own likelihood ratio and
one learned from the releases alone (which needs no trust in the mechanism), and is measured with
the better one on the rest.

For Gaussian mechanisms, the claim is a whole trade-off curve (μ-GDP). There, the bound is on μ, and
the ε shown is the one that this μ implies at δ.

A game with a mechanism that ignores the teacher (a null game) checks the auditor itself: no ε above
zero may be proven for it.

>>> from dataclasses import replace
>>> from dpsd.attacks.games import worst_case
>>> from dpsd.privacy.mechanisms import RandomizedResponse
>>> game = worst_case(RandomizedResponse(), Adjacency.RESPONSE, epsilon=1.0)
>>> found = audit(game, draws=20_000)
>>> found.holds, 0.8 < found.lower_bound < found.claimed
(True, True)
>>> audit(replace(game, is_null=True), draws=20_000).lower_bound
0.0

Source: Jagielski, Ullman & Oprea, "Auditing Differentially Private Machine Learning", NeurIPS
2020; Nasr et al., "Tight Auditing of Differentially Private Machine Learning", USENIX Security
2023, for the bound on μ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import dp_accounting
import numpy as np
from torch import Tensor

from dpsd.attacks import bounds
from dpsd.attacks.games import Game
from dpsd.attacks.scores import Score, Scores, learned, likelihood_ratio, thresholds
from dpsd.attacks.tails import TailGame
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Adjacency

#: The share of the draws that the attacker learns from.
_LEARNING = 0.25


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of an audit.

    Args:
        mechanism: the name of the mechanism.
        adjacency: the adjacency of the ε.
        delta: the δ at which ε is stated.
        claimed: the ε that the mechanism claims.
        lower_bound: a lower bound on its true ε, with confidence 1 - 1e-6; infinite if no ε is
            large enough.
        draws: the number of games played in each world.
        score: the score that the attacker did best with.
        measures_claim: whether the bound comes close to a tight claim, so that its share of the
            claim is meaningful. It does not in a null game, nor where only impossible releases
            count.
    """

    mechanism: str
    adjacency: Adjacency
    delta: float
    claimed: float
    lower_bound: float
    draws: int
    score: str
    measures_claim: bool = True

    @property
    def holds(self) -> bool:
        """Whether the bound does not contradict the claim."""
        return self.lower_bound <= self.claimed


def audit(game: Game | TailGame, *, draws: int = 1_000_000) -> Audit:
    """Play a game ``draws`` times in each world, and bound ε.

    Args:
        game: the game to play.
        draws: the number of games in each world, at least 1,000.

    Raises:
        ConfigError: there are fewer draws.
    """
    if draws < 1_000:
        raise ConfigError(f"draws is {draws}; an audit says nothing with fewer than 1,000")
    if isinstance(game, TailGame):
        counts = [game.impossible(world, draws) for world in (0, 1)]
        found, name = bounds.impossible(counts, draws, delta=game.delta), "impossible releases"
    else:
        found, name = _guessed(game, draws)
    return Audit(
        mechanism=game.name,
        adjacency=game.adjacency,
        delta=game.delta,
        claimed=game.claimed,
        lower_bound=max(0.0, found),
        draws=draws,
        score=name,
        measures_claim=isinstance(game, Game) and not game.is_null,
    )


def _guessed(game: Game, draws: int) -> tuple[float, str]:
    """Return the bound that the attacker's guesses prove, and the score that they used."""
    releases = [game.play(world, draws) for world in (0, 1)]
    learning = int(draws * _LEARNING)
    scores: dict[str, Score] = {
        "likelihood": likelihood_ratio(game),
        "learned": learned([release[:learning] for release in releases]),
    }
    is_curve = isinstance(game.claim[0], dp_accounting.GaussianDpEvent)
    bound = partial(bounds.through_curve if is_curve else bounds.through_rates, delta=game.delta)
    # For a curve, ε is slow to compute but rises with the signal, so the signal is compared.
    promising = bounds.least_signal if is_curve else bound
    best: tuple[float, str, float] = (-np.inf, "likelihood", 0.0)
    for name, score in scores.items():
        seen = _scored(score, [release[:learning] for release in releases])
        for threshold in thresholds(seen):
            best = max(best, (promising(*_rates(seen, threshold)), name, float(threshold)))
    _, name, threshold = best
    # Measured on games that the choice was not based on, as luck would otherwise count as skill.
    tested = _scored(scores[name], [release[learning:] for release in releases])
    return bound(*_rates(tested, threshold)), name


def _scored(score: Score, releases: list[Tensor]) -> list[Scores]:
    return [score(release) for release in releases]


def _rates(scores: list[Scores], threshold: float) -> tuple[int, int, int]:
    """Count the guesses of the second world in either, and return them with the total."""
    one, other = (int((seen > threshold).sum()) for seen in scores)
    return one, other, len(scores[0])

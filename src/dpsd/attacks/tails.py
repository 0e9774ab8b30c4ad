"""Games about tails: releases of one world that are impossible in the other.

Noise is drawn from a table, and a table has an end. If the answers of two worlds lie further apart
than that, every release tells the worlds apart; if they lie nearly as far apart, some releases do,
namely those that no noise could have made in the other world. Whatever ε is, (ε, δ) allows for such
releases only up to a probability of δ. So if they are likelier than δ, the claim is false, and no ε
is large enough.

>>> game = far_case(Gaussian(top_k=2), epsilon=8.0)
>>> game.name, game.impossible(0, draws=1_000)
('tail: gaussian, normalize, top 2, 12 classes', 0)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpsd.attacks.games import Game, worst_case
from dpsd.privacy.mechanisms import Gaussian, Mechanism, NoisyVotes, SummedGradients
from dpsd.privacy.randomness import NoiseSource, reach
from dpsd.privacy.targets import Adjacency

#: The ε of one answer at which tails are examined: far beyond the targets of runs, as only there do
#: answers reach the end of the table.
STRONG = 200.0


#: A function that returns the least and the largest noise at a scale.
Ends: TypeAlias = Callable[[float], tuple[int, int]]

#: The number of classes, large enough that a gradient towards the likeliest concerns it alone.
_CLASSES = 12


class _Farthest(NoiseSource):
    """A source of the noise at one end of the table, the least or the largest."""

    is_private = False
    description = "an end of the table"

    def __init__(self, ends: Ends, *, end: int) -> None:
        self._ends, self._end = ends, end

    def bits(self, count: int) -> NDArray[np.uint64]:
        raise NotImplementedError("only discrete Gaussians have a tail")

    def discrete_gaussian(self, shape: tuple[int, ...], *, scale: float) -> Tensor:
        return torch.full(shape, self._ends(scale)[self._end], dtype=torch.int64)


@dataclass(frozen=True, kw_only=True)
class TailGame:
    """A game of one answer, in which only impossible releases are counted.

    Args:
        game: a game of one round of one query.
        ends: a function that returns the least and the largest noise at a scale, in steps of the
            grid.
    """

    game: Game
    ends: Ends = reach

    @property
    def name(self) -> str:
        """The name of the game, after its mechanism."""
        return f"tail: {self.game.name}"

    @property
    def adjacency(self) -> Adjacency:
        """The adjacency, which says what the worlds differ in."""
        return self.game.adjacency

    @property
    def delta(self) -> float:
        """The δ at which ε is claimed."""
        return self.game.delta

    @property
    def claimed(self) -> float:
        """The ε that is claimed."""
        return self.game.claimed

    def impossible(self, world: int, draws: int) -> int:
        """Count the releases drawn in a world that the other world could never make."""
        least, most = (self._extreme(1 - world, end) for end in (0, 1))
        released = self.game.play(world, draws)
        outside = (released < least) | (released > most)
        return int(outside.flatten(1).any(1).sum())

    def _extreme(self, world: int, end: int) -> Tensor:
        """Return the extreme release at one end, rounded like any other, so none is beyond it."""
        noise = _Farthest(self.ends, end=end)
        return replace(self.game, mechanism=self.game.mechanism.with_noise(noise)).play(world, 1)


def far_case(mechanism: Mechanism, *, epsilon: float, delta: float = 1e-5) -> TailGame:
    """Return the game whose worlds lie as far apart in one number as the mechanism allows.

    For gradients of which only the two likeliest classes are released, that is nearly the whole
    sensitivity: the prior is sure of one class, and the teacher says either that class or one that
    is not released. Sums over teachers move two numbers by the same amount.

    Args:
        mechanism: a mechanism with Gaussian noise, not calibrated.
        epsilon: the ε of the one answer.
        delta: the δ at which ε is claimed.
    """
    is_single = isinstance(mechanism, Gaussian)
    game = worst_case(
        mechanism,
        Adjacency.RESPONSE,
        epsilon=epsilon,
        delta=delta,
        classes=_CLASSES if is_single else 2,
    )
    if is_single:
        sure = torch.full((_CLASSES,), 1e-3)
        sure[0] += 1 - sure.sum()
        game = replace(game, priors=sure.expand_as(game.priors))
    return TailGame(game=game)


def tail_games(*, delta: float = 1e-5) -> list[TailGame]:
    """Return games of every mechanism with Gaussian noise, at an ε that needs a large table."""
    mechanisms = (Gaussian(top_k=2), NoisyVotes(), SummedGradients())
    return [far_case(mechanism, epsilon=STRONG, delta=delta) for mechanism in mechanisms]

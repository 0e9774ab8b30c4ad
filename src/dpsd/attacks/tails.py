"""The game that a strong ε loses: releases that the other world could not have made at all.

Noise is drawn from a table, and a table has an end. Where two worlds' answers lie further apart
than that, every release tells them apart, and where they lie nearly as far apart, some do: a
release of the one world that no noise could have made in the other. An (ε, δ) allows for such
releases as far as δ goes, whatever ε is. So if they are likelier than δ, the claim is false, and no
ε is large enough.

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

#: The ε of one answer at which tails are looked at: far beyond what a run is asked for, as that is
#: where a table ends.
STRONG = 200.0


#: The least and the largest noise at a scale.
Ends: TypeAlias = Callable[[float], tuple[int, int]]

#: So many that a gradient towards the likeliest is about that class alone.
_CLASSES = 12


class _Farthest(NoiseSource):
    """The noise at an end of the table, the least or the largest."""

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
    """A game of one answer, of which only impossible releases are counted.

    Args:
        game: one round of one query.
        ends: the least and the largest noise, in steps of its grid, that there is at a scale.
    """

    game: Game
    ends: Ends = reach

    @property
    def name(self) -> str:
        """The mechanism's."""
        return f"tail: {self.game.name}"

    @property
    def adjacency(self) -> Adjacency:
        """What the worlds differ in."""
        return self.game.adjacency

    @property
    def delta(self) -> float:
        """At which ε is claimed."""
        return self.game.delta

    @property
    def claimed(self) -> float:
        """The ε that is claimed."""
        return self.game.claimed

    def impossible(self, world: int, draws: int) -> int:
        """The number of releases, of those drawn in a world, that the other could never make."""
        least, most = (self._extreme(1 - world, end) for end in (0, 1))
        released = self.game.play(world, draws)
        outside = (released < least) | (released > most)
        return int(outside.flatten(1).any(1).sum())

    def _extreme(self, world: int, end: int) -> Tensor:
        """The release with the noise at an end: rounded as every other is, so none is beyond it."""
        noise = _Farthest(self.ends, end=end)
        return replace(self.game, mechanism=self.game.mechanism.with_noise(noise)).play(world, 1)


def far_case(mechanism: Mechanism, *, epsilon: float, delta: float = 1e-5) -> TailGame:
    """The game whose two worlds lie as far apart in one number as the mechanism allows.

    For gradients of which only those of the two likeliest classes are released, that is nearly all
    of the sensitivity: the prior is sure of one class, and the teacher says it, or a class that is
    not released. Sums over teachers move two numbers by as much each.

    Args:
        mechanism: with Gaussian noise, and not calibrated.
        epsilon: of the one answer.
        delta: at which it is claimed.
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
    """Every mechanism with Gaussian noise, at an ε for which its table has to be large."""
    mechanisms = (Gaussian(top_k=2), NoisyVotes(), SummedGradients())
    return [far_case(mechanism, epsilon=STRONG, delta=delta) for mechanism in mechanisms]

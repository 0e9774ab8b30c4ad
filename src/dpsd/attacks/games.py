"""The games that an ε is about: two worlds, and a mechanism that answers in one of them.

>>> from dpsd.privacy.mechanisms import NoisyVotes
>>> game = worst_case(NoisyVotes(), Adjacency.TEACHER, epsilon=1.0)
>>> game.name, game.play(0, draws=5).shape
('noisy-votes', torch.Size([5, 2, 2, 2]))
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import dp_accounting
import torch
from torch import Tensor

from dpsd.privacy.accounting import Spending, pld_epsilon
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.mechanisms import (
    ConfidentVotes,
    Gaussian,
    Mechanism,
    NoisyVotes,
    RandomizedResponse,
    Scaling,
    SharedNoiseVotes,
    SummedGradients,
)
from dpsd.privacy.targets import Adjacency, Budget, Exposure

_ROWS_AT_ONCE = 1 << 19


@dataclass(frozen=True, kw_only=True)
class Game:
    """Two worlds, and a mechanism that answers in one of them.

    Args:
        mechanism: the calibrated mechanism.
        adjacency: the adjacency, which says what the worlds may differ in.
        worlds: the teacher's answers in each world, probabilities ``(rounds, queries, K)``, or
            ``(teachers, rounds, queries, K)``. Each round is one batch of queries.
        priors: the priors, ``(rounds, queries, K)``.
        delta: the δ at which ε is claimed.
        is_null: whether the mechanism ignores the world: it always answers as in the first one, so
            its releases reveal nothing, its ε is 0, and any larger bound is a mistake.
    """

    mechanism: Mechanism
    adjacency: Adjacency
    worlds: tuple[Tensor, Tensor]
    priors: Tensor
    delta: float
    is_null: bool = False

    @property
    def name(self) -> str:
        """The name of the mechanism, with the number of classes if there are more than two."""
        classes = self.priors.shape[-1]
        name = described(self.mechanism) + (f", {classes} classes" if classes > 2 else "")
        return f"null: {name}" if self.is_null else name

    def play(self, world: int, draws: int) -> Tensor:
        """Return the releases of ``draws`` independent games, ``(draws, rounds, queries, …)``."""
        answers, classes = self.worlds[0 if self.is_null else world], self.priors.shape[-1]
        rounds, queries = self.priors.shape[:2]
        played = []
        for index in range(rounds):
            mechanism = self.mechanism.with_noise(self.mechanism.noise.for_round(index + 1))
            said, prior = answers[..., index, :, :], self.priors[index]
            parts = []
            for start in range(0, draws, max(1, _ROWS_AT_ONCE // queries)):
                count = min(draws - start, max(1, _ROWS_AT_ONCE // queries))
                sealed = RawAnswers.seal(
                    said.repeat(*[1] * (said.ndim - 2), count, 1),
                    batch=count * queries,
                    num_classes=classes,
                    scores="probabilities",
                )
                release = _privatised(mechanism, sealed, prior.repeat(count, 1), games=count)
                parts.append(release.reshape(count, queries, *release.shape[1:]))
            played.append(torch.cat(parts))
        return torch.stack(played, dim=1)

    @property
    def claim(self) -> tuple[dp_accounting.DpEvent, int]:
        """The event that the mechanism states, and the number of events the worlds differ in."""
        rounds, queries = self.priors.shape[:2]
        return Spending(
            event=self.mechanism.event(),
            mean_event=self.mechanism.mean_event(),
            exposure=Exposure.of_rounds([queries] * rounds),
        ).under(self.adjacency)

    @property
    def claimed(self) -> float:
        """The ε that is claimed."""
        event, count = self.claim
        return 0.0 if self.is_null else pld_epsilon(event, count=count, delta=self.delta)


def _privatised(mechanism: Mechanism, answers: RawAnswers, prior: Tensor, *, games: int) -> Tensor:
    """Return the releases of several games, whose answers follow each other."""
    if isinstance(mechanism, ConfidentVotes):
        # Queries of a batch compete for answers, and each game is a batch of its own.
        return mechanism.privatize(answers, prior, batches=games)
    return mechanism.privatize(answers, prior)


def described(mechanism: Mechanism) -> str:
    """Return a mechanism's name, with what distinguishes it from others of that name.

    >>> described(Gaussian(noise_multiplier=1.0, scaling="clip"))
    'gaussian, clip'
    """
    parameters = mechanism.parameters()
    kinds = [str(parameters[name]) for name in ("candidates", "scaling") if name in parameters]
    kinds += [f"top {parameters['top_k']}"] if parameters.get("top_k") else []
    kinds += ["soft"] * (parameters.get("harden") is False)
    if (share := float(str(parameters.get("answered_at_most", 1)))) < 1:
        kinds.append(f"{share:.0%} answered")
    return ", ".join([str(parameters["name"]), *kinds])


def worst_case(
    mechanism: Mechanism,
    adjacency: Adjacency,
    *,
    epsilon: float,
    delta: float = 1e-5,
    classes: int = 2,
    teachers: int = 3,
    rounds: int = 2,
    queries: int = 2,
) -> Game:
    """Return the game in which a mechanism calibrated to this ε is most exposed.

    The teacher, or one of several, is sure of one class in one world and of another class in the
    other: in one answer (``response``), in one answer in every round (``round``), or in all answers
    (``teacher``). Priors differ from round to round, so that noise that is used twice shows. Two
    classes are the worst case for randomised response, as a false answer is then likeliest to be
    the other world's true one. Gradients are only widened with more classes.

    If only a share of a batch is answered, two queries compete: one on which the teachers agree in
    the first world, and another on which they nearly agree in both worlds; or, if all answers
    differ, one on which they agree in the second world alone.

    >>> game = worst_case(NoisyVotes(), Adjacency.TEACHER, epsilon=1.0)
    >>> game.worlds[0].shape, game.priors.shape
    (torch.Size([3, 2, 2, 2]), torch.Size([2, 2, 2]))
    """
    if adjacency is Adjacency.RESPONSE:
        rounds = 1
    is_capped = isinstance(mechanism, ConfidentVotes) and mechanism.answered < 1
    if adjacency is not Adjacency.TEACHER and not is_capped:
        queries = 1
    is_sum = isinstance(mechanism, NoisyVotes | SummedGradients)
    if is_sum:
        mechanism = mechanism.for_members(teachers)
    priors = _uneven_priors(rounds, classes).unsqueeze(1).expand(-1, queries, -1)
    shape = (teachers, rounds, queries) if is_sum else (rounds, queries)
    one, other = (torch.zeros(*shape, classes) for _ in range(2))
    one[..., 0], other[..., 0] = 1, 1
    changed = other[0] if is_sum else other
    changed[..., 0], changed[..., -1] = 0, 1
    if is_capped:  # the second half of the queries changes in the other direction, or not at all
        rival = slice(queries // 2, None)
        one[:, :, rival], other[:, :, rival] = other[:, :, rival].clone(), one[:, :, rival].clone()
        if adjacency is not Adjacency.TEACHER:
            other[:, :, rival] = one[:, :, rival]
    if is_sum:  # worlds swap places in every other round, so that noise shared by rounds cancels
        turned = slice(1, None, 2)
        one[:, turned], other[:, turned] = other[:, turned].clone(), one[:, turned].clone()
    return Game(
        mechanism=calibrate(
            mechanism,
            Budget(epsilon=epsilon, delta=delta, adjacency=adjacency),
            Exposure.of_rounds([queries] * rounds),
        ),
        adjacency=adjacency,
        worlds=(one, other),
        priors=priors,
        delta=delta,
    )


@dataclass(frozen=True, kw_only=True)
class SumOfShares(SharedNoiseVotes):
    """What another client learns of a sum: the votes of one, with the noise of all but its own."""

    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        total = super().privatize(answers, prior)
        for _ in range(self.clients - 2):
            total += self._noisy(torch.zeros_like(total), self._noise_multiplier)
        return total

    def event(self) -> dp_accounting.DpEvent:
        return self.event_against_others()


def standard_games(*, epsilon: float = 1.0, delta: float = 1e-5) -> list[Game]:
    """Return worst cases of every mechanism and adjacency, and null games for the auditor."""
    mechanisms = (
        RandomizedResponse(),
        RandomizedResponse(candidates="all"),
        RandomizedResponse(candidates=2),
        Gaussian(),
        Gaussian(harden=False, top_k=2),
        Gaussian(scaling=Scaling.CLIP, bound=2.0),
        Gaussian(scaling=Scaling.NONE),
        NoisyVotes(),
        SharedNoiseVotes(clients=4),
        SumOfShares(clients=4),
        # A single teacher decides whether the threshold is met.
        ConfidentVotes(threshold=0.8, answered=1.0),
        CAPPED,  # A single teacher decides which of two queries is answered.
        SummedGradients(),
    )
    games = [(mechanism, 2) for mechanism in mechanisms]
    games += [(Gaussian(), 10), (Gaussian(top_k=3), 10)]
    heard = [
        worst_case(
            mechanism,
            adjacency,
            epsilon=epsilon,
            delta=delta,
            classes=classes,
            # With few teachers, noise would keep most queries below the threshold, so that the cap
            # would rarely decide.
            teachers=12 if mechanism is CAPPED else 3,
        )
        for mechanism, classes in games
        for adjacency in Adjacency
    ]
    return heard + [
        replace(
            worst_case(mechanism, Adjacency.TEACHER, epsilon=epsilon, delta=delta), is_null=True
        )
        for mechanism in (RandomizedResponse(), Gaussian(), CAPPED)
    ]


#: A mechanism that answers half of a batch, and whose consensus test reveals more than an answer
#: does; its threshold has almost no effect.
CAPPED = ConfidentVotes(threshold=1e-3, test_noise=0.5, answered=0.5)


def _uneven_priors(rounds: int, classes: int) -> Tensor:
    """Return a nearly flat prior for each round, uneven in a different order each time."""
    ripple = torch.linspace(1.0, 0.98, classes)
    priors = torch.stack([ripple if index % 2 else ripple.flip(0) for index in range(rounds)])
    # Priors of later rounds are more uneven, so that their gradients point elsewhere.
    priors = priors ** (1 + torch.arange(rounds).unsqueeze(-1))
    return priors / priors.sum(-1, keepdim=True)

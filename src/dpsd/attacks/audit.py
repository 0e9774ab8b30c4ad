"""Auditing a mechanism: play the game that its ε is about, and see how well an attacker does.

Two worlds differ in one of the teacher's answers, in one answer a round, or in all of them. The
mechanism itself releases its answers in either world, a million times; an attacker who knows all
but the noise guesses which world it was. From how often it is right follows a lower bound on ε,
with Clopper-Pearson confidence. If the bound is above what :meth:`Mechanism.event` claims, the
claim is false: noise was forgotten, used twice, too small, or something beside it leaks. Where the
claim is tight, the bound comes close to it.

The attacker tries two scores on a part of the releases, the mechanism's own likelihood ratio and
one learned from the releases alone (which needs no trust in the mechanism), and is measured with
the better one on the rest.

For Gaussian mechanisms the claim is a whole trade-off curve (μ-GDP). There the bound is on μ, and
the ε shown is what that μ means at δ.

>>> from dpsd.privacy.mechanisms import RandomizedResponse
>>> game = worst_case(RandomizedResponse(), Adjacency.RESPONSE, epsilon=1.0)
>>> found = audit(game, draws=20_000)
>>> found.holds, 0.8 < found.lower_bound < found.claimed
(True, True)

Source: Jagielski, Ullman & Oprea, "Auditing Differentially Private Machine Learning", NeurIPS
2020; Nasr et al., "Tight Auditing of Differentially Private Machine Learning", USENIX Security
2023, for the bound on μ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import dp_accounting
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from dpsd.errors import ConfigError
from dpsd.privacy.accounting import Adjacency, Budget, Exposure, Spending, calibrate, pld_epsilon
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import (
    ConfidentVotes,
    Gaussian,
    Mechanism,
    NoisyVotes,
    RandomizedResponse,
    Scaling,
    SummedGradients,
)

Scores = NDArray[np.float64]
Score = Callable[[Tensor], Scores]

#: Chance that a bound is wrong, for each of the two error rates.
_MISTAKE = 5e-7
#: Share of the draws that the attacker learns on.
_LEARNING = 0.25
#: Thresholds that it chooses from.
_THRESHOLDS = 200
#: Variance added to a learned Gaussian, so that a release without noise is a narrow one.
_JITTER = 1e-12
_ROWS_AT_ONCE = 1 << 19


@dataclass(frozen=True, kw_only=True)
class Game:
    """Two worlds, and a mechanism that answers in either.

    Args:
        mechanism: calibrated.
        adjacency: what the worlds may differ in.
        worlds: the teacher's answers in each, probabilities ``(rounds, queries, K)``, or
            ``(teachers, rounds, queries, K)``.
        priors: ``(rounds, queries, K)``.
        delta: at which ε is claimed.
    """

    mechanism: Mechanism
    adjacency: Adjacency
    worlds: tuple[Tensor, Tensor]
    priors: Tensor
    delta: float

    @property
    def name(self) -> str:
        """The mechanism's, with the number of classes if they are many."""
        classes = self.priors.shape[-1]
        return described(self.mechanism) + (f", {classes} classes" if classes > 2 else "")

    def play(self, world: int, draws: int) -> Tensor:
        """Releases ``(draws, rounds, queries, …)`` of so many independent games."""
        answers, classes = self.worlds[world], self.priors.shape[-1]
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
                release = mechanism.privatize(sealed, prior.repeat(count, 1))
                parts.append(release.reshape(count, queries, *release.shape[1:]))
            played.append(torch.cat(parts))
        return torch.stack(played, dim=1)

    @property
    def claim(self) -> tuple[dp_accounting.DpEvent, int]:
        """The event that the mechanism states, and how many of it the worlds differ in."""
        rounds, queries = self.priors.shape[:2]
        return Spending(
            event=self.mechanism.event(),
            mean_event=self.mechanism.mean_event(),
            exposure=Exposure.of_rounds([queries] * rounds),
        ).under(self.adjacency)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found.

    Args:
        mechanism: its name.
        adjacency: of the ε.
        delta: of the ε.
        claimed: ε that the mechanism states.
        lower_bound: ε that it has at least, with confidence 1 - 1e-6.
        draws: games played in each world.
        score: the one that the attacker did best with.
    """

    mechanism: str
    adjacency: Adjacency
    delta: float
    claimed: float
    lower_bound: float
    draws: int
    score: str

    @property
    def holds(self) -> bool:
        """Whether the claim survived."""
        return self.lower_bound <= self.claimed


def audit(game: Game, *, draws: int = 1_000_000) -> Audit:
    """Play a game so many times in each world.

    Args:
        game: what to play.
        draws: at least 1,000.
    """
    if draws < 1_000:
        raise ConfigError(f"draws is {draws}; an audit says nothing with fewer than 1,000")
    releases = [game.play(world, draws) for world in (0, 1)]
    learning = int(draws * _LEARNING)
    event, count = game.claim
    bound = _bound(event, delta=game.delta)
    scores: dict[str, Score] = {
        "likelihood": _likelihood_ratio(game),
        "learned": _learned([release[:learning] for release in releases]),
    }
    best: tuple[float, str, float] = (-np.inf, "likelihood", 0.0)
    for name, score in scores.items():
        seen = [score(release[:learning]) for release in releases]
        for threshold in _thresholds(seen):
            best = max(best, (bound(*_rates(seen, threshold)), name, float(threshold)))
    _, name, threshold = best
    tested = [scores[name](release[learning:]) for release in releases]
    return Audit(
        mechanism=game.name,
        adjacency=game.adjacency,
        delta=game.delta,
        claimed=pld_epsilon(event, count=count, delta=game.delta),
        lower_bound=max(0.0, bound(*_rates(tested, threshold))),
        draws=draws,
        score=name,
    )


def described(mechanism: Mechanism) -> str:
    """A mechanism's name, with what tells it from others of that name.

    >>> described(Gaussian(noise_multiplier=1.0, scaling="clip"))
    'gaussian, clip'
    """
    parameters = mechanism.parameters()
    kinds = [str(parameters[name]) for name in ("candidates", "scaling") if name in parameters]
    kinds += [f"top {parameters['top_k']}"] if parameters.get("top_k") else []
    kinds += ["soft"] * (parameters.get("harden") is False)
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
    """The game in which a mechanism calibrated to this ε is most exposed.

    The teacher, or one of several, is sure of one class in one world and of another in the other,
    in one answer (``response``), in one a round (``round``), or in all (``teacher``). Priors differ
    from round to round, so that noise that is used twice shows. Two classes are the worst for
    randomised response: a lie is then likeliest to be the other world's truth. It takes more for
    gradients to be widened.

    >>> game = worst_case(NoisyVotes(), Adjacency.TEACHER, epsilon=1.0)
    >>> game.worlds[0].shape, game.priors.shape
    (torch.Size([3, 2, 2, 2]), torch.Size([2, 2, 2]))
    """
    if adjacency is Adjacency.RESPONSE:
        rounds, queries = 1, 1
    elif adjacency is Adjacency.ROUND:
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
    if is_sum:  # in every other round the worlds change places: noise that they share cancels out
        turned = slice(1, None, 2)
        one[:, turned], other[:, turned] = other[:, turned].clone(), one[:, turned].clone()
    calibrated = calibrate(
        mechanism,
        Budget(epsilon=epsilon, delta=delta, adjacency=adjacency),
        Exposure.of_rounds([queries] * rounds),
    )
    return Game(
        mechanism=calibrated,
        adjacency=adjacency,
        worlds=(one, other),
        priors=priors,
        delta=delta,
    )


def standard_games(*, epsilon: float = 1.0, delta: float = 1e-5) -> list[Game]:
    """Every mechanism under every adjacency, at worst."""
    mechanisms = (
        RandomizedResponse(),
        RandomizedResponse(candidates="all"),
        RandomizedResponse(candidates=2),
        Gaussian(),
        Gaussian(harden=False, top_k=2),
        Gaussian(scaling=Scaling.CLIP, bound=2.0),
        Gaussian(scaling=Scaling.NONE),
        NoisyVotes(),
        # One teacher decides whether the threshold is met. All queries may be answered: a cap on
        # their share makes those of a batch depend on each other, and games are played in batches.
        ConfidentVotes(threshold=0.8, answered=1.0),
        SummedGradients(),
    )
    games = [(mechanism, 2) for mechanism in mechanisms]
    games += [(Gaussian(), 10), (Gaussian(top_k=3), 10)]
    return [
        worst_case(mechanism, adjacency, epsilon=epsilon, delta=delta, classes=classes)
        for mechanism, classes in games
        for adjacency in Adjacency
    ]


def _uneven_priors(rounds: int, classes: int) -> Tensor:
    """A nearly flat prior for each round, uneven in another order each time."""
    ripple = torch.linspace(1.0, 0.98, classes)
    priors = torch.stack([ripple if index % 2 else ripple.flip(0) for index in range(rounds)])
    # In later rounds more so: gradients then point elsewhere.
    priors = priors ** (1 + torch.arange(rounds).unsqueeze(-1))
    return priors / priors.sum(-1, keepdim=True)


def _likelihood_ratio(game: Game) -> Score:
    """What the mechanism's own channel says for the second world."""
    # Each answer is sure of a class; of several teachers, the first is the one that changed.
    classes = [
        world[0] if isinstance(game.mechanism, NoisyVotes | SummedGradients) else world
        for world in game.worlds
    ]
    one, other = (world.argmax(-1) for world in classes)

    def score(releases: Tensor) -> Scores:
        total = torch.zeros(len(releases), dtype=torch.float64)
        for index, prior in enumerate(game.priors):
            for query in range(len(prior)):
                release = releases[:, index, query]
                repeated = prior[query].expand(len(release), -1)
                likelihood = game.mechanism.log_likelihood(release.nan_to_num(0), repeated)
                ratio = likelihood[:, other[index, query]] - likelihood[:, one[index, query]]
                # Two impossible classes say nothing.
                total += ratio.double().nan_to_num(0.0)
        return total.numpy()

    return score


def _learned(releases: list[Tensor]) -> Score:
    """A likelihood ratio estimated from releases alone, first of the one world, then the other."""
    if not releases[0].is_floating_point():
        return _learned_table(releases)
    fitted = []
    for release in releases:
        seen = _columns(release)
        covariance = np.cov(seen, rowvar=False) + _JITTER * np.eye(seen.shape[1])
        values, vectors = np.linalg.eigh(covariance)
        fitted.append((seen.mean(0), vectors / np.sqrt(values.clip(_JITTER)), values.clip(_JITTER)))

    def score(release: Tensor) -> Scores:
        seen = _columns(release)
        one, other = (
            -0.5 * np.square((seen - mean) @ whitening).sum(1) - 0.5 * np.log(values).sum()
            for mean, whitening, values in fitted
        )
        ratio: Scores = other - one
        return ratio

    return score


def _learned_table(releases: list[Tensor]) -> Score:
    """The same for releases that are classes: how often each combination was seen."""
    base = 1 + max(int(release.max()) for release in releases)
    codes = [_codes(release, base) for release in releases]
    known = np.unique(np.concatenate(codes))
    one, other = (np.bincount(np.searchsorted(known, code), minlength=len(known)) for code in codes)
    ratios = np.log((other + 0.5) / (one + 0.5))

    def score(release: Tensor) -> Scores:
        code = _codes(release, base)
        place = np.searchsorted(known, code).clip(max=len(known) - 1)
        found: Scores = np.where(known[place] == code, ratios[place], 0.0)
        return found

    return score


def _codes(release: Tensor, base: int) -> NDArray[np.int64]:
    flat = release.reshape(len(release), -1).numpy()
    coded: NDArray[np.int64] = (flat * base ** np.arange(flat.shape[1])).sum(1)
    return coded


def _columns(release: Tensor) -> Scores:
    """Releases as rows of numbers; what was not answered is a number too."""
    flat = release.reshape(len(release), -1).double()
    return torch.cat([flat.nan_to_num(0.0), flat.isnan().double()], 1).numpy()


def _thresholds(scores: list[Scores]) -> Scores:
    everything = np.concatenate(scores)
    finite = everything[np.isfinite(everything)]
    if not len(finite):
        return np.zeros(1)
    found: Scores = np.unique(np.quantile(finite, np.linspace(0, 1, _THRESHOLDS)))
    # Between values that are taken often, a hair below each: guesses are for what is above.
    return np.concatenate([found, np.nextafter(found, -np.inf)])


def _rates(scores: list[Scores], threshold: float) -> tuple[int, int, int]:
    """How often the second world was guessed in the first, and in the second, of how many."""
    one, other = (int((seen > threshold).sum()) for seen in scores)
    return one, other, len(scores[0])


def _bound(event: dp_accounting.DpEvent, *, delta: float) -> Callable[[int, int, int], float]:
    """What error rates prove about ε, for a claim of that kind."""

    def at_least(count: int, total: int) -> float:
        return float(stats.beta.ppf(_MISTAKE, count, total - count + 1)) if count else 0.0

    def at_most(count: int, total: int) -> float:
        return 1 - at_least(total - count, total)

    def direct(false: int, true: int, total: int) -> float:
        best = -np.inf
        for rare, common in ((false, true), (total - true, total - false)):
            surely = at_least(common, total) - delta
            if surely > 0:
                best = max(best, float(np.log(surely / at_most(rare, total))))
        return best

    def through_curve(false: int, true: int, total: int) -> float:
        least = float(stats.norm.ppf(at_least(true, total)) - stats.norm.ppf(at_most(false, total)))
        if not (np.isfinite(least) and least > 0):
            return 0.0
        curve = dp_accounting.GaussianDpEvent(1 / least)
        return pld_epsilon(curve, count=1, delta=delta)

    return through_curve if isinstance(event, dp_accounting.GaussianDpEvent) else direct

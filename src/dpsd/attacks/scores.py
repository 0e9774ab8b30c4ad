"""An attacker's scores of releases: the higher, the more a release looks like the second world.

There are two scores: the mechanism's own likelihood ratio, and one that is learned from releases
alone, which needs no trust in the mechanism.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpsd.attacks.games import Game
from dpsd.privacy.mechanisms import NoisyVotes, SummedGradients

Scores = NDArray[np.float64]
Score = Callable[[Tensor], Scores]

#: The number of thresholds that an attacker chooses from.
_THRESHOLDS = 200
#: The variance added to a learned Gaussian, so that releases without noise give a narrow one.
_JITTER = 1e-12
#: The fewest releases of a kind from which a Gaussian is learned.
_FEWEST = 100


def likelihood_ratio(game: Game) -> Score:
    """Return the score by the mechanism's own likelihood ratio for the second world."""
    # Each answer is sure of a class; among several teachers, the first is the one that changes.
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
                likelihood = game.mechanism.log_likelihood(release, repeated)
                ratio = likelihood[:, other[index, query]] - likelihood[:, one[index, query]]
                # Two impossible classes carry no evidence, and neither do unanswered queries.
                total += ratio.double().nan_to_num(0.0)
        return total.numpy()

    return score


def learned(releases: list[Tensor]) -> Score:
    """Return a likelihood ratio estimated from releases alone, of the first and second world."""
    if not releases[0].is_floating_point():
        return _learned_table(releases)
    kinds = [_kinds(release) for release in releases]
    how_often = _ratio_of_counts(kinds)
    fitted = {}
    for kind in np.unique(np.concatenate(kinds)):
        seen = [_columns(r)[of == kind] for r, of in zip(releases, kinds, strict=True)]
        if min(map(len, seen)) >= _FEWEST:
            fitted[kind] = [_gaussian(rows) for rows in seen]

    def score(release: Tensor) -> Scores:
        rows, kind = _columns(release), _kinds(release)
        ratio = how_often(kind)
        for this, gaussians in fitted.items():
            of_kind = kind == this
            one, other = (density(rows[of_kind]) for density in gaussians)
            ratio[of_kind] += other - one
        return ratio

    return score


def thresholds(scores: list[Scores]) -> Scores:
    """Return thresholds that are worth trying on scores like these."""
    everything = np.concatenate(scores)
    finite = everything[np.isfinite(everything)]
    if not len(finite):
        return np.zeros(1)
    found: Scores = np.unique(np.quantile(finite, np.linspace(0, 1, _THRESHOLDS)))
    # A threshold just below each value is added, as guesses are made for scores above it.
    return np.concatenate([found, np.nextafter(found, -np.inf)])


def _learned_table(releases: list[Tensor]) -> Score:
    """Learn from releases that are classes, by how often each combination occurs."""
    base = 1 + max(int(release.max()) for release in releases)
    ratio = _ratio_of_counts([_codes(release, base) for release in releases])

    def score(release: Tensor) -> Scores:
        return ratio(_codes(release, base))

    return score


def _ratio_of_counts(codes: list[NDArray[np.int64]]) -> Callable[[NDArray[np.int64]], Scores]:
    """Return the logarithm of the ratio of a code's counts in both worlds; 0 if it is unknown."""
    known = np.unique(np.concatenate(codes))
    one, other = (np.bincount(np.searchsorted(known, code), minlength=len(known)) for code in codes)
    ratios = np.log((other + 0.5) / (one + 0.5))

    def ratio(code: NDArray[np.int64]) -> Scores:
        place = np.searchsorted(known, code).clip(max=len(known) - 1)
        found: Scores = np.where(known[place] == code, ratios[place], 0.0)
        return found

    return ratio


def _gaussian(seen: Scores) -> Callable[[Scores], Scores]:
    """Fit a Gaussian to rows of numbers, and return its log-density, up to a constant."""
    mean = seen.mean(0)
    covariance = np.cov(seen, rowvar=False) + _JITTER * np.eye(seen.shape[1])
    values, vectors = np.linalg.eigh(covariance)
    values = values.clip(_JITTER)
    whitening = vectors / np.sqrt(values)

    def density(rows: Scores) -> Scores:
        found: Scores = (
            -0.5 * np.square((rows - mean) @ whitening).sum(1) - 0.5 * np.log(values).sum()
        )
        return found

    return density


def _codes(release: Tensor, base: int) -> NDArray[np.int64]:
    flat = release.reshape(len(release), -1).numpy()
    coded: NDArray[np.int64] = (flat * base ** np.arange(flat.shape[1])).sum(1)
    return coded


def _kinds(release: Tensor) -> NDArray[np.int64]:
    """Return a number for each game that encodes which of its queries were answered."""
    return _codes(release.flatten(1, 2).isnan().flatten(2).any(-1).long(), 2)


def _columns(release: Tensor) -> Scores:
    """Return releases as rows of numbers; missing numbers are zero in all rows of a kind."""
    rows: Scores = release.reshape(len(release), -1).double().nan_to_num(0.0).numpy()
    return rows

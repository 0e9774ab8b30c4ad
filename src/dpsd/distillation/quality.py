"""The quality of a run, estimated from its releases alone.

There is no data to validate on, and raw answers must not be seen; but the channel is known, so its
releases can be inverted on average. Everything here is post-processing and costs no privacy.

>>> estimate = Agreement.of(torch.tensor([1.0, 1.0, 0.0, 2.0]))
>>> estimate.mean, round(estimate.standard_error, 2)
(1.0, 0.41)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import torch
from torch import Tensor

from dpsd.distillation.objectives import posterior
from dpsd.distillation.releases import RoundReleases
from dpsd.privacy.mechanisms import Channel
from dpsd.privacy.mechanisms.base import is_flat

#: The least and the most that the score of one query can be.
Span: TypeAlias = tuple[float, float]

#: The span of scores that are known without noise.
EXACT: Span = (0.0, 1.0)

#: The most numbers of priors and likelihoods that are in memory at once.
_MOST_NUMBERS = 1 << 20


@dataclass(frozen=True)
class Agreement:
    """An unbiased estimate of how often the student and the teacher agree on a round's queries.

    Args:
        mean: the estimate, which may fall outside [0, 1], as an unbiased estimate can.
        standard_error: the standard error of the mean.
    """

    mean: float
    standard_error: float

    @classmethod
    def of(cls, scores: Tensor, *, span: Span | None = EXACT) -> Agreement | None:
        """Estimate from one unbiased score per query, without NaN; ``None`` if under two remain.

        Args:
            scores: the scores, ``(N,)``.
            span: the span of a score, which bounds the error of few of them (see
                :func:`standard_error`); ``None`` for differences on the same queries, which are
                exactly 0 where nothing differs.
        """
        known = scores[scores.isfinite()]
        if len(known) < 2:
            return None
        return cls(float(known.mean()), standard_error(known, span=span))


def standard_error(scores: Tensor, *, span: Span | None = EXACT) -> float:
    """Return the standard error of a mean, which is above 0 however alike few scores are.

    A few queries that all have the same score do not show that others have it, too. So the error is
    at least that of a sample with four scores more, two at either end of the span. For shares, this
    is close to Wilson's interval (Agresti and Coull, 1998).

    Args:
        scores: the scores, ``(N,)``, at least one.
        span: the least and the most that a score can be; ``None`` for the error of the sample
            alone, which then has two scores at least.

    >>> round(standard_error(torch.ones(18)), 2), round(standard_error(torch.ones(2_000)), 4)
    (0.06, 0.0007)
    """
    scores = scores.double()
    own = float(scores.std()) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0
    if span is None:
        return own
    more = torch.cat([scores, scores.new_tensor([*span, *span])])
    return max(own, float(more.std()) / math.sqrt(len(more)))


def scores_by_class(releases: RoundReleases, row: int, mechanism: Channel) -> Tensor:
    """Return the scores that one release gives each class, ``(K,)``; NaN where it says nothing."""
    release, classes = releases.release[row : row + 1], releases.prior.shape[-1]
    return mechanism.agreement(
        release.expand(classes, *release.shape[1:]),
        releases.prior[row : row + 1].float().expand(classes, -1),
        torch.arange(classes),
    )


def score_span(releases: RoundReleases, mechanism: Channel) -> Span:
    """Return how far apart the scores of a round are, by one release with a flat prior.

    Where noise is added, a score has no bounds, and this tells the size of what is usual.
    """
    size = max(1, _MOST_NUMBERS // releases.prior.shape[-1])
    for first, part in zip(
        range(0, len(releases), size), torch.split(releases.prior, size), strict=True
    ):
        rows = is_flat(part.float()).nonzero().flatten()
        if len(rows):
            return span_of(scores_by_class(releases, first + int(rows[0]), mechanism))
    return EXACT


def span_of(scores: Tensor) -> Span:
    """Return the span of some scores and of exact ones; NaN is left out.

    >>> span_of(torch.tensor([-0.5, 2.5, torch.nan]))
    (-0.5, 2.5)
    """
    known = scores[scores.isfinite()].tolist()
    return min([EXACT[0], *known]), max([EXACT[1], *known])


@dataclass(frozen=True)
class RoundQuality:
    """What the releases of one round reveal about the run.

    Args:
        agreement: the agreement of the student, before it learned from this round, with the
            teacher. In the first round, it is that of a guess, which still shows the noise level.
        label_shares: the estimated share of each class among the teacher's answers.
        predicted_shares: the share of each class among the student's predictions on the queries.
        surprise: for each source, the mean posterior probability that the student was wrong.
        spread: for each source, the entropy of its estimated labels, relative to the largest
            possible.
        source_shares: the estimated share of each class among the teacher's answers about each
            source, for sources of which the releases say enough to tell.
        clarity: how much a release says of the answer, from 0, nothing, to 1, the class itself.
    """

    agreement: Agreement | None
    label_shares: list[float]
    predicted_shares: list[float]
    surprise: dict[int, float]
    spread: dict[int, float]
    source_shares: dict[int, list[float]]
    clarity: float = 1.0


def assess(releases: RoundReleases, mechanism: Channel) -> RoundQuality:
    """Assess a run from the releases of a round.

    The pixels of the queries are not used, and rows are processed in parts.
    """
    count, classes = releases.prior.shape
    # Kept in half precision and filled in part by part, as there may be millions of rows.
    evidence = torch.empty_like(releases.prior)
    scores, right, clear = torch.empty((3, count))
    for part in _slices(count, _MOST_NUMBERS // classes):
        prior, release = releases.prior[part].float(), releases.release[part]
        said = releases.predicted[part]
        likelihood = mechanism.log_likelihood(release, prior)
        evidence[part] = likelihood - likelihood.amax(-1, keepdim=True)
        scores[part] = mechanism.agreement(release, prior, said)
        chance = posterior(prior, likelihood).gather(-1, said.long().unsqueeze(-1))
        right[part] = chance.squeeze(-1)
        # The squared distance to a flat posterior, as a share of the largest possible one.
        clear[part] = (likelihood.softmax(-1).square().sum(-1) - 1 / classes) / (1 - 1 / classes)
    surprise, spread, source_shares = {}, {}, {}
    span = score_span(releases, mechanism)
    for source in torch.unique(releases.source).tolist():
        of_source = releases.source == source
        surprise[source] = float(1 - right[of_source].mean())
        shares = class_shares(evidence[of_source])
        spread[source] = float(torch.special.entr(shares).sum()) / math.log(classes)
        known = Agreement.of(scores[of_source], span=span)
        if known is not None and known.standard_error <= _CLEAR:
            source_shares[source] = shares.tolist()
    predicted = torch.bincount(releases.predicted.long(), minlength=classes) / len(releases)
    return RoundQuality(
        agreement=Agreement.of(scores, span=span),
        label_shares=class_shares(evidence).tolist(),
        predicted_shares=predicted.tolist(),
        surprise=surprise,
        spread=spread,
        source_shares=source_shares,
        clarity=float(clear.mean()),
    )


def label_shares(releases: RoundReleases, rows: Tensor, mechanism: Channel) -> list[float]:
    """Return the estimated share of each class among the teacher's answers about some queries.

    Args:
        releases: the releases of a round.
        rows: the row numbers of the queries, int64 ``(n,)``, at least one.
        mechanism: the mechanism that made the releases.
    """
    classes = releases.prior.shape[-1]
    evidence = []
    for part in torch.split(rows, max(1, _MOST_NUMBERS // classes)):
        prior, release = releases.prior[part].float(), releases.release[part]
        likelihood = mechanism.log_likelihood(release, prior)
        evidence.append((likelihood - likelihood.amax(-1, keepdim=True)).half())
    return class_shares(torch.cat(evidence)).tolist()


def class_shares(log_likelihood: Tensor, *, iterations: int = 50) -> Tensor:
    """Return the maximum-likelihood shares of classes among the privatised answers, ``(K,)``.

    The shares are fitted by expectation-maximisation over one categorical distribution (Dempster et
    al., 1977).

    >>> class_shares(torch.tensor([[0.0, -9.0], [-9.0, 0.0], [0.0, -9.0]])).round(decimals=2)
    tensor([0.6700, 0.3300])
    """
    classes = log_likelihood.shape[-1]
    shares = torch.full((classes,), 1 / classes)
    parts = torch.split(log_likelihood, max(1, _MOST_NUMBERS // classes))
    for _ in range(iterations):
        sums = [posterior(shares, part.float()).sum(0) for part in parts]
        shares = torch.stack(sums).sum(0) / len(log_likelihood)
    return shares


def collapse_warning(quality: RoundQuality, *, round_index: int, at: float = 0.9) -> str | None:
    """Return a warning if labels or predictions are concentrated on one class, else ``None``."""
    shares = {"the teacher's released labels": quality.label_shares}
    if round_index > 1:
        shares["the student's predictions on its queries"] = quality.predicted_shares
    for what, of_class in shares.items():
        largest = max(of_class)
        if largest > at:
            return (
                f"round {round_index}: {what} are {largest:.0%} class {of_class.index(largest)}. "
                "A run that sees one class learns one class. Is the range of pixels right "
                "(--input-scale, --mean and --deviation)? Else use more varied public sources "
                "(noise, strokes, silhouettes, glyphs, leaves, fractals, crops, networks, mixed, a "
                "folder), a smaller generator share, or more queries"
            )
    return None


def unlike_warning(quality: RoundQuality, *, names: Sequence[str]) -> str | None:
    """Return a warning if the queries of the first round look unlike the domain, else ``None``.

    The domain is not known. But a teacher that gives nearly all images of a source the same class,
    whichever the source, or that never gives images of two sources the same class, tells by the
    kind of image and not by what it shows, as teachers do with images that are nothing to them.

    Args:
        quality: the quality of the first round, in which all queries come from public sources.
        names: the names of the sources, in the order of their numbers.

    >>> quality = RoundQuality(
    ...     agreement=None, label_shares=[0.5, 0.5], predicted_shares=[0.5, 0.5],
    ...     surprise={}, spread={}, source_shares={0: [0.98, 0.02], 1: [0.03, 0.97]},
    ... )
    >>> unlike_warning(quality, names=["noise", "strokes"])
    'round 1: the teacher gives nearly all images of a source one class (noise: 98% class 0, ...'
    """
    shares = {names[source]: of for source, of in quality.source_shares.items()}
    if len(shares) < 2:
        return None  # of one source alone, see collapse_warning
    if all(max(of) > _ONE_CLASS for of in shares.values()):
        found = (f"{name}: {max(of):.0%} class {of.index(max(of))}" for name, of in shares.items())
        what = f"gives nearly all images of a source one class ({', '.join(found)})"
    elif all(
        sum(map(min, one, other)) < _IN_COMMON for one, other in combinations(shares.values(), 2)
    ):
        what = f"gives images of {', '.join(shares)} hardly any class in common"
    else:
        return None
    return (
        f"round 1: the teacher {what}, so its queries may look unlike anything that it was trained "
        "on, and the student may learn little of what it knows. Give public images of its domain "
        "(--public), or a probe (--probe) to see how the student does on real ones; and check the "
        "range of pixels (--input-scale, --mean and --deviation)"
    )


#: The standard error up to which the releases about a source tell the shares of its classes.
_CLEAR = 0.05

#: Above this share, a source has nearly one class; below that one, two have hardly any in common.
_ONE_CLASS, _IN_COMMON = 0.95, 0.05

#: The standard error of agreement above which releases reveal next to nothing.
TELLING = 0.5


def noise_warning(quality: RoundQuality, *, round_index: int) -> str | None:
    """Return a warning if the noise drowns out the teacher's answers, else ``None``."""
    agreement = quality.agreement
    if agreement is None or agreement.standard_error <= TELLING:
        return None
    return (
        f"round {round_index}: the releases are too noisy to tell whether the student agrees with "
        f"the teacher (± {agreement.standard_error:.0%}), so it may have learned next to nothing: "
        "ask more queries or fewer rounds, raise epsilon, or calibrate to a weaker adjacency"
    )


def _slices(count: int, size: int) -> list[slice]:
    size = max(1, size)
    return [slice(start, start + size) for start in range(0, count, size)]

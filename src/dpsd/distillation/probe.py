"""The probe: public images of the domain, on which the student is compared with the teacher.

The teacher is asked about each image of the probe once, through the mechanism, and nothing is
trained on its releases. They tell without bias how often a student agrees with the teacher on these
images, as often as it is looked at; that is post-processing and costs no privacy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpsd.devices.execution import Execution, inference_batch
from dpsd.distillation.quality import (
    Agreement,
    Span,
    label_shares,
    scores_by_class,
    span_of,
)
from dpsd.distillation.releases import RoundReleases
from dpsd.privacy.mechanisms import Channel

#: Nothing is estimated class by class if there are more classes than this.
_MOST_CLASSES = 100

#: A recall is estimated where the teacher's share of the class is this many standard errors off 0.
_CLEAR = 3.0


@dataclass(frozen=True)
class ProbeQuality:
    """What the releases of the probe reveal about a student.

    Args:
        images: the number of images of the probe.
        agreement: how often the student and the teacher agree on them.
        recall: the same among the images of each class by the teacher's word; ``None`` for a class
            that is too rare to tell, and empty if there are very many classes.
        class_shares: the share of each class among the teacher's answers, estimated without bias,
            so that a share may lie outside [0, 1]; empty if there are very many classes.
        constant: how often a classifier that always says the teacher's most frequent class would
            agree with the teacher. Agreement that is not above it shows no skill.
        constant_class: that class.
    """

    images: int
    agreement: Agreement | None
    recall: list[Agreement | None]
    class_shares: list[float]
    constant: Agreement | None
    constant_class: int


class Probe:
    """The releases of the probe, and how a student does by them.

    Args:
        releases: the releases of the probe, asked with flat priors.
        mechanism: the mechanism that made them.

    >>> from dpsd.privacy.mechanisms import RandomizedResponse
    >>> said = torch.tensor([0, 1, 2, 2])
    >>> probe = Probe(
    ...     RoundReleases(index=1, queries=torch.zeros((4, 1, 8, 8), dtype=torch.uint8),
    ...                   prior=torch.full((4, 3), 1 / 3).half(), predicted=said, source=said,
    ...                   release=said),
    ...     RandomizedResponse(epsilon=20.0),  # nearly all answers are true
    ... )
    >>> round(probe.quality(torch.tensor([0, 1, 2, 0])).agreement.mean, 2)
    0.75
    >>> round(probe.improvement(said, torch.tensor([0, 1, 2, 0])).mean, 2)
    0.25
    """

    def __init__(self, releases: RoundReleases, mechanism: Channel) -> None:
        self.releases = releases
        self._mechanism = mechanism
        self._prior = releases.prior.float()
        self._classes = self._prior.shape[-1]

    def predictions(self, student: nn.Module, execution: Execution) -> Tensor:
        """Return the classes that a student predicts for the probe's images, int64 ``(N,)``."""
        size = inference_batch(self.releases.queries.shape[1:])
        blocks = torch.split(torch.arange(len(self.releases)), size)
        return torch.cat(
            [
                execution.predict(student, self.releases.images(rows)).argmax(-1).cpu()
                for rows in blocks
            ]
        )

    def quality(self, predicted: Tensor) -> ProbeQuality:
        """Return how a student does, by the classes that it predicts, ``(N,)``."""
        recall, shares = list[Agreement | None](), list[float]()
        if self._classes <= _MOST_CLASSES:
            recall = self._recall(predicted)
            shares = self._by_class.mean(-1).tolist()
        return ProbeQuality(
            images=len(self.releases),
            agreement=self._agreement(predicted),
            recall=recall,
            class_shares=shares,
            constant=self._agreement(self._constant),
            constant_class=int(self._constant[0]),
        )

    def beats_constant(self, predicted: Tensor, *, errors: float) -> bool:
        """Whether agreement is clearly above that of always saying the most frequent class.

        Args:
            predicted: the classes that a student predicts, ``(N,)``.
            errors: by how many standard errors of the difference it has to be.
        """
        gain = self.improvement(predicted, self._constant)
        return gain is not None and gain.mean > errors * gain.standard_error

    def improvement(self, after: Tensor, before: Tensor) -> Agreement | None:
        """Return how much more often one student agrees with the teacher than another one did.

        Both are measured by the same releases, so where they predict the same, no noise is left:
        the standard error of the difference is far below those of the two agreements.

        Args:
            after: the classes that the one student predicts, ``(N,)``.
            before: the classes that the other one predicted, ``(N,)``.
        """
        return Agreement.of(self._scores(after) - self._scores(before), span=None)

    def confusion(self, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Return how often a student says each class where the teacher says another.

        Args:
            predicted: the classes that the student predicts, int64 ``(N,)``.

        Returns:
            For each class of the teacher, a row, the share of its images for which the student says
            each class, ``(K, K)``, and the standard errors. Both are NaN in the row of a class that
            is too rare to tell. Estimates may lie outside [0, 1].
        """
        said = self._by_class
        chosen = functional.one_hot(predicted, self._classes).double()
        count = said.sum(-1, keepdim=True)
        known = [Agreement.of(scores, span=self._span) for scores in said]
        is_clear = torch.tensor(
            [one is not None and one.mean > _CLEAR * one.standard_error for one in known]
        ).unsqueeze(-1)

        def error(shares: Tensor, more: int) -> Tensor:
            """The delta method's, with ``more`` images besides: half said so, half not."""
            squares = (said.square() @ chosen) * (1 - 2 * shares)
            squares += said.square().sum(-1, keepdim=True) * shares.square()
            squares += more / 2 * ((1 - shares).square() + shares.square())
            return squares.clamp(min=0).sqrt() / (count + more)

        hits = said @ chosen
        shares = hits / count
        # As for every mean: a few images that all fare alike do not show that others do, too.
        errors = torch.maximum(error(shares, 0), error((hits + 2) / (count + 4), 4))
        return shares.where(is_clear, torch.nan), errors.where(is_clear, torch.nan)

    def _recall(self, predicted: Tensor) -> list[Agreement | None]:
        """The ratio of two unbiased sums for each class; ``None`` for one too rare to tell."""
        found = (part.diagonal().tolist() for part in self.confusion(predicted))
        return [
            None if math.isnan(share) else Agreement(share, error)
            for share, error in zip(*found, strict=True)
        ]

    def _agreement(self, predicted: Tensor) -> Agreement | None:
        return Agreement.of(self._scores(predicted), span=self._span)

    @cached_property
    def _constant(self) -> Tensor:
        """The teacher's most frequent class for every image, ``(N,)``."""
        rows = torch.arange(len(self.releases))
        if self._classes <= _MOST_CLASSES:
            shares = self._by_class.mean(-1)
        else:
            shares = torch.tensor(label_shares(self.releases, rows, self._mechanism))
        return torch.full_like(rows, int(shares.argmax()))

    @cached_property
    def _by_class(self) -> Tensor:
        """For each class, the unbiased score of each image, ``(K, N)``."""
        count = len(self.releases)
        return torch.stack(
            [self._scores(torch.full((count,), label)) for label in range(self._classes)]
        )

    def _scores(self, predicted: Tensor) -> Tensor:
        """Return for each image a number whose mean is 1 if the teacher says ``predicted``, else 0.

        If a mechanism releases some of the classes only, which a flat prior draws evenly, its
        scores of the others are 0 and those that it has weigh more (Horvitz and Thompson, 1952).
        """
        found = self._mechanism.agreement(self.releases.release, self._prior, predicted).double()
        return found.where(found.isfinite(), 0) / self._known

    @cached_property
    def _known(self) -> float:
        """The share of the classes about which a release says something."""
        return float(self._of_one.isfinite().double().mean())

    @cached_property
    def _span(self) -> Span:
        return span_of(self._of_one / self._known)

    @cached_property
    def _of_one(self) -> Tensor:
        return scores_by_class(self.releases, 0, self._mechanism)

"""The probe: public images of the domain, on which the student is compared with the teacher.

The teacher is asked about each image of the probe once, through the mechanism, and nothing is
trained on its releases. They tell without bias how often a student agrees with the teacher on these
images, as often as it is looked at; that is post-processing and costs no privacy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpsd.devices.execution import Execution, inference_batch
from dpsd.distillation.quality import Agreement
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
    """

    images: int
    agreement: Agreement | None
    recall: list[Agreement | None]
    class_shares: list[float]


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
            recall = [self._recall(predicted, label) for label in range(self._classes)]
            shares = self._by_class.mean(-1).tolist()
        return ProbeQuality(
            images=len(self.releases),
            agreement=Agreement.of(self._scores(predicted)),
            recall=recall,
            class_shares=shares,
        )

    def improvement(self, after: Tensor, before: Tensor) -> Agreement | None:
        """Return how much more often one student agrees with the teacher than another one did.

        Both are measured by the same releases, so where they predict the same, no noise is left:
        the standard error of the difference is far below those of the two agreements.

        Args:
            after: the classes that the one student predicts, ``(N,)``.
            before: the classes that the other one predicted, ``(N,)``.
        """
        return Agreement.of(self._scores(after) - self._scores(before))

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
        count, error = said.sum(-1, keepdim=True), said.std(-1, keepdim=True) * len(chosen) ** 0.5
        shares = (said @ chosen) / count
        # The sums of squared residuals of the ratios, as in the delta method of a recall.
        squares = (said.square() @ chosen) * (1 - 2 * shares)
        squares += said.square().sum(-1, keepdim=True) * shares.square()
        is_clear = count > _CLEAR * error
        errors = squares.clamp(min=0).sqrt() / count
        return shares.where(is_clear, torch.nan), errors.where(is_clear, torch.nan)

    def _recall(self, predicted: Tensor, label: int) -> Agreement | None:
        """The ratio of two unbiased sums, with its standard error by the delta method."""
        said = self._by_class[label]
        count, error = float(said.sum()), float(said.std()) * len(said) ** 0.5
        if not count > _CLEAR * error:
            return None
        recall = float(said[predicted == label].sum()) / count
        residual = said * ((predicted == label).double() - recall)
        return Agreement(recall, float(residual.square().sum().sqrt()) / count)

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
        release = self.releases.release[:1]
        found = self._mechanism.agreement(
            release.expand(self._classes, *release.shape[1:]),
            self._prior[:1].expand(self._classes, -1),
            torch.arange(self._classes),
        )
        return float(found.isfinite().double().mean())

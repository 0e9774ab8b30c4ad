"""A panel: many clients' releases read together, each by what its teacher is known to confuse.

Clients know different classes. A teacher that never saw a class names another one for it, and a
client may lie. So each client m has a confusion matrix ``Θ_m``, the chances that its teacher says
each class where the panel as a whole says class c, and the releases about an image have the
likelihood ``Π_m Σ_y Θ_m[c, y] P(release | client m's teacher says y)``. A client whose answers do
not depend on the class has equal rows, and then no weight.

The matrices are estimated from the releases by expectation-maximisation, which is post-processing
and costs no privacy. Each client is judged by the student's predictions alone, and never by what
other clients say: a few that agree on false answers would explain each other best, and thus define
the classes. Pseudo-counts lean to the diagonal, without which the classes could be renamed.

Source: Dawid & Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM
Algorithm", 1979; Raykar et al., "Learning From Crowds", JMLR 2010, with a classifier as the prior.
In both, the posterior under all answers takes the place of the prior.

>>> said = torch.tensor([[0, 0], [1, 1], [2, 0]])  # the second client takes class 2 for class 0
>>> release = evidence(20 * torch.eye(3)[said].repeat(200, 1, 1, 1).flatten(0, 1))
>>> prior = torch.eye(3).mul(0.4).add(0.2).repeat(200, 1)
>>> panel = Panel.assumed(2, 3).informed(release, prior)
>>> panel.confusions.argmax(-1).tolist()
[[0, 1, 2], [0, 1, 0]]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from dpsd.privacy.mechanisms import Channel, RandomizedResponse

#: What a release says is kept down to a chance of e⁻⁶⁰, which half precision holds.
_LEAST = -60.0

#: The most numbers of releases that are in memory at once.
_MOST_NUMBERS = 1 << 22

#: The chance that a teacher agrees with the panel, before there are releases to tell.
_ASSUMED = 0.6

#: The steps of expectation and maximisation before priors are told anew.
_STEPS = 5

#: The pseudo-counts of each row of a confusion matrix.
_PSEUDO_COUNTS = 20.0


def evidence(log_likelihood: Tensor) -> Tensor:
    """Return what releases say as a round stores it: at most 0, and half precision.

    Args:
        log_likelihood: the log-likelihood of each class, ``(…, K)``, up to a constant in each row.

    >>> evidence(torch.tensor([[1.0, 3.0, -torch.inf]]))
    tensor([[ -2.,   0., -60.]], dtype=torch.float16)
    """
    relative = log_likelihood - log_likelihood.amax(-1, keepdim=True)
    # A release that no class explains is NaN by now. It says nothing, as if there were none.
    return relative.nan_to_num(nan=0.0).clamp_min(_LEAST).half()


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel(Channel):
    """The clients' channels as one channel, from the panel's class to the releases of all.

    A release is ``(N, M, K)``: for each image and client, ``log P(release | the client's teacher
    says class y)`` up to a constant (:func:`evidence`), and zeros where there is no answer. So
    clients may have different mechanisms and levels of noise. Clients that joined later than a
    round have no column in it.

    Args:
        confusions: for each client and class c, the chances that the client's teacher says each
            class where the panel says c, ``(M, K, K)``; rows sum to 1.
        weights: how much each client's releases count, in [0, 1], ``(M,)``; fully if not given.
    """

    confusions: Tensor
    weights: Tensor | None = None

    @classmethod
    def assumed(cls, members: int, classes: int) -> Panel:
        """Return the panel to assume before there are releases to estimate it from."""
        rest = (1 - _ASSUMED) / (classes - 1)
        one = torch.full((classes, classes), rest, dtype=torch.float64).fill_diagonal_(_ASSUMED)
        return cls(confusions=one.repeat(members, 1, 1))

    def log_likelihood(self, release: Tensor, prior: Tensor) -> Tensor:
        _, mixed = self._mixed(release, prior)
        return mixed.log().sum(0)

    @property
    def estimates_agreement(self) -> bool:
        """Never, as confusions are estimated and their inverse would be biased."""
        return False

    def agreement(self, release: Tensor, prior: Tensor, predicted: Tensor) -> Tensor:
        """NaN for each query, as no estimate is unbiased; see :attr:`estimates_agreement`."""
        return torch.full(prior.shape[:1], torch.nan, device=prior.device)

    def face_value(self, release: Tensor, prior: Tensor) -> Tensor:
        """The posterior under a flat prior."""
        return self.log_likelihood(release, prior).softmax(-1)

    def informed(self, release: Tensor, prior: Tensor) -> Self:
        """Return a copy with the clients' confusions estimated from these releases."""
        return self.fitted(lambda: iter([(release, prior)]))

    def refined(self, release: Tensor, prior: Tensor) -> Self:
        """Return a copy after a few more steps of the estimation, with these priors.

        Priors that are told by the panel's own confusions change with them, so both take turns.
        """
        return self.fitted(lambda: iter([(release, prior)]), iterations=_STEPS, anew=False)

    def fitted(
        self,
        parts: Callable[[], Iterable[tuple[Tensor, Tensor]]],
        *,
        iterations: int = 30,
        anew: bool = True,
    ) -> Self:
        """Return a copy with the clients' confusions estimated from many releases.

        Args:
            parts: makes pairs of releases ``(n, M, K)`` and priors ``(n, K)``, such as one for each
                round. It is called repeatedly, as all of them together may not fit in memory.
            iterations: the number of steps of expectation and maximisation.
            anew: whether the estimation starts from what :meth:`assumed` assumes, and so depends on
                nothing but the releases and priors, or from the confusions of this panel.

        Raises:
            ValueError: there are releases of more clients than the panel has.
        """
        members, classes = self.confusions.shape[:2]
        assumed = self.assumed(members, classes).confusions
        current = replace(self, confusions=assumed) if anew else self
        lean = _PSEUDO_COUNTS * assumed
        for _ in range(iterations):
            counts = lean.clone()
            for release, prior in _blocks(parts()):
                found = current._counted(release, prior)
                counts[: len(found)] += found
            current = replace(current, confusions=counts / counts.sum(-1, keepdim=True))
        return current

    def candidates(self, prior: Tensor, member: int, mechanism: RandomizedResponse) -> Tensor:
        """Return the classes that a client may report about each image, bool ``(N, K)``.

        They are those that the client's mechanism chooses under what its teacher is expected to
        say, and never less than two, as an answer among one class says nothing.

        Args:
            prior: the priors of the panel's class, ``(N, K)``.
            member: the number of the client.
            mechanism: the client's mechanism.
        """
        expected = prior @ self.confusions[member].to(prior.device, prior.dtype)
        best = torch.zeros_like(expected, dtype=torch.bool).scatter_(
            -1, expected.topk(2).indices, True
        )
        return mechanism.reportable(expected) | best

    def _mixed(self, release: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """The likelihoods of the clients' classes and of the panel's, both ``(M, N, K)``."""
        members = len(self.confusions)
        if release.shape[1] > members:
            raise ValueError(f"these are releases of {release.shape[1]} clients, not {members}")
        said = release.transpose(0, 1).to(prior.dtype)
        if self.weights is not None:
            said = said * self.weights[: len(said), None, None].to(prior.device, prior.dtype)
        told = said.exp()
        confusions = self.confusions[: len(told)].to(prior.device, prior.dtype)
        return told, told @ confusions.mT

    def _counted(self, release: Tensor, prior: Tensor) -> Tensor:
        """The expected number of images of each pair of classes, ``(M, K, K)``."""
        told, mixed = self._mixed(release, prior.float())
        # The belief in each class, divided by the chance of the client's release under it.
        belief = prior.float() / (prior.float() * mixed).sum(-1, keepdim=True)
        # Without an answer, the confusion itself would be counted.
        answered = (release != 0).any(-1).mT.unsqueeze(-1)
        return ((belief * answered).mT @ told).double() * self.confusions[: len(told)]


def _blocks(parts: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The same rows, a bounded number at a time."""
    for release, prior in parts:
        rows = max(1, _MOST_NUMBERS // release[:1].numel())
        yield from zip(torch.split(release, rows), torch.split(prior, rows), strict=True)

"""The objectives that the student and the generator minimise.

The student has two main objectives. Both use the likelihood of the channel and never the raw noisy
vector, which is not a distribution: :func:`marginal_loss` is the exact likelihood of the releases,
and :func:`dkd_loss` is decoupled knowledge distillation towards the denoised :func:`posterior`. The
generator has :func:`generator_loss`, which depends on the student alone.

>>> import torch
>>> logits = torch.tensor([[2.0, 0.0, 0.0]])
>>> sure = torch.tensor([[0.0, -9.0, -9.0]])  # a nearly noiseless release of "class 0"
>>> bool(marginal_loss(logits, sure) < marginal_loss(-logits, sure))
True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


def posterior(prior: Tensor, log_likelihood: Tensor) -> Tensor:
    """Return the denoised label ``π(c) ∝ prior(c) exp(log_likelihood(c))``.

    Args:
        prior: the prior probabilities, ``(N, K)``.
        log_likelihood: the log-likelihood of each class, ``(N, K)``, up to a constant in each row.

    >>> import torch
    >>> posterior(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    return (prior.clamp_min(1e-12).log() + log_likelihood).softmax(-1)


def marginal_loss(logits: Tensor, log_likelihood: Tensor) -> Tensor:
    """Return ``-log Σ_c s(x)_c P(release | c)``, averaged over the batch.

    The loss does not rely on the prior being right.

    Args:
        logits: the student's logits, ``(N, K)``.
        log_likelihood: the log-likelihood of the releases, ``(N, K)``, up to a constant in each
            row.
    """
    # Taken relative to the likeliest class, so that the loss does not depend on the constant.
    evidence = log_likelihood - log_likelihood.amax(-1, keepdim=True)
    return -torch.logsumexp(logits.log_softmax(-1) + evidence, dim=-1).mean()


def dkd_loss(
    logits: Tensor, target: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """Return the loss of decoupled knowledge distillation, ``T² (α TCKD + β NCKD)``.

    The target-class term (TCKD) compares how sure student and target are of the likeliest class;
    the non-target term (NCKD) compares how the remaining mass is spread over the other classes. The
    loss is averaged over the batch.

    Args:
        logits: the student's logits, ``(N, K)``.
        target: the probabilities of the denoised labels, ``(N, K)``.
        alpha: the weight of the target-class term.
        beta: the weight of the non-target term.
        temperature: T, > 0, applied to both student and target.

    Source: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, equation 7.

    >>> import torch
    >>> target = torch.tensor([[0.7, 0.2, 0.1]])
    >>> loss = dkd_loss(target.log(), target, alpha=1.0, beta=8.0, temperature=4.0)
    >>> abs(round(float(loss), 5))
    0.0
    """
    target_logits = target.clamp_min(1e-6).log() / temperature
    student_logits = logits / temperature
    is_target = F.one_hot(target.argmax(-1), target.shape[-1]).bool()

    def split(scores: Tensor) -> tuple[Tensor, Tensor]:
        log_probabilities = scores.log_softmax(-1)
        on_target = log_probabilities[is_target]
        elsewhere = torch.logsumexp(log_probabilities.masked_fill(is_target, -torch.inf), dim=-1)
        others = scores.masked_fill(is_target, -1e4).log_softmax(-1)
        return torch.stack([on_target, elsewhere], dim=-1), others

    student_binary, student_others = split(student_logits)
    target_binary, target_others = split(target_logits)

    def divergence(student: Tensor, wanted: Tensor) -> Tensor:
        return F.kl_div(student, wanted, reduction="batchmean", log_target=True)

    parts = alpha * divergence(student_binary, target_binary)
    parts = parts + beta * divergence(student_others, target_others)
    return temperature**2 * parts


#: The spread of logits above which the generator's balance is taken at a higher temperature.
_SPREAD = 3.0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a batch of releases reveals, in the forms that objectives need.

    Args:
        log_likelihood: the log-likelihood of each release under each class, ``(N, K)``.
        prior: the priors that the releases were made with, ``(N, K)``.
        shares: unbiased estimates of the share of teachers that say each class, ``(N, K)``;
            ``None`` for one teacher.
        face_value: each release as a label that ignores the noise, ``(N, K)``.
    """

    log_likelihood: Tensor
    prior: Tensor
    face_value: Tensor
    shares: Tensor | None = None


class Objective(Protocol):
    """The interface of objectives, which a student minimises on batches of releases."""

    def __call__(self, logits: Tensor, evidence: Evidence) -> Tensor:
        """Return the loss of ``logits``, ``(N, K)``."""


@dataclass(frozen=True)
class Marginal:
    """The objective :func:`marginal_loss`."""

    def __call__(self, logits: Tensor, evidence: Evidence) -> Tensor:
        return marginal_loss(logits, evidence.log_likelihood)


@dataclass(frozen=True, kw_only=True)
class DKD:
    """The objective :func:`dkd_loss` towards the denoised posterior."""

    alpha: float = 1.0
    beta: float = 2.0
    temperature: float = 1.0

    def __call__(self, logits: Tensor, evidence: Evidence) -> Tensor:
        target = posterior(evidence.prior, evidence.log_likelihood)
        return dkd_loss(
            logits, target, alpha=self.alpha, beta=self.beta, temperature=self.temperature
        )


@dataclass(frozen=True, kw_only=True)
class FaceValue:
    """The objective of published methods, for comparison: it takes noisy labels at face value.

    The student thus learns the noise too. Without ``decoupled``, the objective is cross entropy
    towards the noisy label; at the student that asked, its gradient at the student's output is the
    noisy gradient itself (DPDFD, arXiv 2304.12528). With ``decoupled``, it is DKD towards the noisy
    label as a distribution (DPSD, arXiv 2601.19090).
    """

    decoupled: DKD | None = None

    def __call__(self, logits: Tensor, evidence: Evidence) -> Tensor:
        label = evidence.face_value
        if self.decoupled is None:
            return -(label * logits.log_softmax(-1)).sum(-1).mean()
        label = label.clamp_min(0)
        return dkd_loss(
            logits,
            label / label.sum(-1, keepdim=True).clamp_min(1e-6),
            alpha=self.decoupled.alpha,
            beta=self.decoupled.beta,
            temperature=self.decoupled.temperature,
        )


@dataclass(frozen=True)
class VoteShares:
    """The squared error between the student's prediction and the vote shares of many teachers.

    For noisy votes, it is the exact likelihood of the releases, if the student's prediction is
    taken to be the share of teachers that say each class.
    """

    def __call__(self, logits: Tensor, evidence: Evidence) -> Tensor:
        assert evidence.shares is not None, "one teacher has no shares; Recipe refuses it earlier"
        # The factor of four makes gradients about as large as those of the other objectives.
        return 4 * (logits.softmax(-1) - evidence.shares).square().sum(-1).mean()


@dataclass(frozen=True, kw_only=True)
class GeneratorWeights:
    """The weights of the generator's three losses.

    Args:
        classification: the weight for images that the student classifies clearly (λ_c).
        balance: the weight for batches that cover the classes evenly (λ_e).
        activation: the weight for images that excite the student's penultimate layer (λ_a).
    """

    classification: float = 1.0
    balance: float = 5.0
    activation: float = 0.1


def generator_loss(logits: Tensor, features: Tensor, weights: GeneratorWeights) -> Tensor:
    """Return ``λ_c CE(s(x), argmax s(x)) + λ_e Σ_c p̄_c log p̄_c - λ_a mean ‖features‖₁``.

    Args:
        logits: the student's logits on generated images, ``(N, K)``.
        features: the student's penultimate activations on these images, ``(N, F)``.
        weights: the weights λ_c, λ_e and λ_a.

    ``p̄`` is the batch mean of the student's prediction, at a temperature of 1 unless the logits
    are spread wider than a trained student's.

    Source: Chen et al., "Data-Free Learning of Student Networks" (DAFL), ICCV 2019, equations 4
    to 8; DPSD uses them with the student as the judge.
    """
    classification = -logits.log_softmax(-1).amax(-1).mean()
    # An untrained generator's images can drive the logits so far apart that the softmax saturates
    # and the gradient of the balance vanishes: the generator would stay in one class for ever. The
    # balance is therefore taken at a temperature that follows the logits' spread down to 1.
    spread = logits.detach().std(-1, correction=0).mean()
    mean = (logits / (spread / _SPREAD).clamp_min(1.0)).softmax(-1).mean(0)
    balance = (mean * mean.clamp_min(1e-12).log()).sum()
    return (
        weights.classification * classification
        + weights.balance * balance
        - weights.activation * features.abs().mean()
    )

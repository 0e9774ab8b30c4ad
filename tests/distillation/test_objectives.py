"""What the student and the generator minimise, against the formulas computed another way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dpsd.distillation.objectives import (
    DKD,
    Evidence,
    FaceValue,
    GeneratorWeights,
    Marginal,
    VoteShares,
    dkd_loss,
    generator_loss,
    marginal_loss,
    posterior,
)

Array = NDArray[np.float64]


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(4)


@pytest.fixture
def logits(random: torch.Generator) -> Tensor:
    return 2 * torch.randn((12, 5), generator=random, dtype=torch.float64)


@pytest.fixture
def evidence(random: torch.Generator) -> Tensor:
    return 3 * torch.randn((12, 5), generator=random, dtype=torch.float64)


@pytest.fixture
def target(random: torch.Generator) -> Tensor:
    return torch.randn((12, 5), generator=random, dtype=torch.float64).softmax(-1)


def softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max())
    chances: Array = weights / weights.sum()
    return chances


def kl(wanted: Array, student: Array) -> float:
    return float((wanted * np.log(wanted / student)).sum())


def dkd_by_hand(
    logits: Tensor, target: Tensor, *, alpha: float, beta: float, temperature: float
) -> float:
    """Equation 7 of the paper, an image at a time."""
    losses = []
    for scores, wanted in zip(logits.numpy(), target.numpy(), strict=True):
        student = softmax(scores / temperature)
        teacher = softmax(np.log(wanted) / temperature)
        label = int(wanted.argmax())
        others = np.arange(len(wanted)) != label
        binary = kl(
            np.array([teacher[label], teacher[others].sum()]),
            np.array([student[label], student[others].sum()]),
        )
        spread = kl(
            teacher[others] / teacher[others].sum(), student[others] / student[others].sum()
        )
        losses.append(temperature**2 * (alpha * binary + beta * spread))
    return float(np.mean(losses))


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.0, 1.0), (1.0, 8.0), (0.3, 2.0)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dkd_is_the_sum_of_its_parts(
    logits: Tensor, target: Tensor, alpha: float, beta: float, temperature: float
) -> None:
    weights = {"alpha": alpha, "beta": beta, "temperature": temperature}
    found = float(dkd_loss(logits, target, **weights))
    assert found == pytest.approx(dkd_by_hand(logits, target, **weights), rel=1e-6)


def test_dkd_with_the_classical_weights_is_distillation(logits: Tensor, target: Tensor) -> None:
    """KD = TCKD + (1 - p_t) NCKD, p_t the target's chance of its likeliest class."""
    for scores, wanted in zip(logits.split(1), target.split(1), strict=True):
        classical = F.kl_div(scores.log_softmax(-1), wanted, reduction="batchmean")
        beta = 1 - float(wanted.max())
        found = dkd_loss(scores, wanted, alpha=1.0, beta=beta, temperature=1.0)
        assert float(found) == pytest.approx(float(classical), rel=1e-6)


def test_dkd_vanishes_at_the_target_alone(logits: Tensor, target: Tensor) -> None:
    weights = {"alpha": 1.0, "beta": 4.0, "temperature": 2.0}
    assert float(dkd_loss(target.log() + 3, target, **weights)) == pytest.approx(0, abs=1e-9)
    assert float(dkd_loss(logits, target, **weights)) > 0.1


def test_dkd_survives_certain_targets(logits: Tensor) -> None:
    certain = F.one_hot(torch.arange(12) % 5, 5).double()
    leaf = logits.clone().requires_grad_()
    loss = dkd_loss(leaf, certain, alpha=1.0, beta=8.0, temperature=4.0)
    loss.backward()
    assert loss.isfinite()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_marginal_loss_is_the_likelihood_of_the_releases(logits: Tensor, evidence: Tensor) -> None:
    chance = (logits.softmax(-1) * evidence.exp()).sum(-1)
    highest = evidence.amax(-1)  # a constant that the loss leaves out
    expected = -(chance.log() - highest).mean()
    torch.testing.assert_close(marginal_loss(logits, evidence), expected)


def test_marginal_loss_has_the_gradient_of_expectation_maximisation(
    logits: Tensor, evidence: Tensor
) -> None:
    leaf = logits.clone().requires_grad_()
    marginal_loss(leaf, evidence).backward()
    believed = logits.softmax(-1)
    expected = (believed - posterior(believed, evidence)) / len(logits)
    torch.testing.assert_close(leaf.grad, expected)


def test_gradients_match_finite_differences(
    logits: Tensor, evidence: Tensor, target: Tensor
) -> None:
    leaf = logits[:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: marginal_loss(scores, evidence[:3]), leaf)
    assert torch.autograd.gradcheck(
        lambda scores: dkd_loss(scores, target[:3], alpha=1.0, beta=2.0, temperature=3.0), leaf
    )


def test_marginal_loss_bears_impossible_classes(logits: Tensor, evidence: Tensor) -> None:
    impossible = evidence.masked_fill(torch.eye(12, 5, dtype=torch.bool), -torch.inf)
    leaf = logits.clone().requires_grad_()
    marginal_loss(leaf, impossible).backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def said(log_likelihood: Tensor, prior: Tensor) -> Evidence:
    return Evidence(log_likelihood=log_likelihood, prior=prior, face_value=prior)


def test_vote_shares_are_fitted_by_squared_error(logits: Tensor, target: Tensor) -> None:
    evidence = replace(said(target.log(), target), shares=target)
    assert float(VoteShares()(target.log(), evidence)) == pytest.approx(0, abs=1e-9)
    wrong = float(VoteShares()(logits, evidence))
    assert wrong == pytest.approx(
        4 * float((logits.softmax(-1) - target).square().sum(-1).mean()), rel=1e-5
    )


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, evidence, prior: marginal_loss(logits, evidence),
        lambda logits, evidence, prior: posterior(prior, evidence).square().sum(),
        lambda *given: Marginal()(given[0], said(*given[1:])),
        lambda *given: DKD(alpha=1.0, beta=2.0, temperature=2.0)(given[0], said(*given[1:])),
    ],
    ids=["marginal", "posterior", "Marginal", "DKD"],
)
def test_constants_in_a_row_change_nothing(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    logits: Tensor,
    evidence: Tensor,
    target: Tensor,
) -> None:
    constants = torch.linspace(-50, 50, 12, dtype=torch.float64).unsqueeze(-1)
    plain = loss(logits, evidence, target)
    torch.testing.assert_close(loss(logits, evidence + constants, target), plain)
    torch.testing.assert_close(loss(logits + constants, evidence, target), plain)


def test_posterior_is_bayes(evidence: Tensor, target: Tensor) -> None:
    joint = target * evidence.exp()
    torch.testing.assert_close(posterior(target, evidence), joint / joint.sum(-1, keepdim=True))


def test_posterior_without_evidence_is_the_prior(target: Tensor) -> None:
    torch.testing.assert_close(posterior(target, torch.full((12, 5), -7.0)), target)


def test_posterior_is_never_nan() -> None:
    prior = torch.tensor([[1.0, 0.0, 0.0]])
    evidence = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert posterior(prior, evidence).tolist() == [[0.0, 1.0, 0.0]]


def test_objectives_are_their_losses(logits: Tensor, evidence: Tensor, target: Tensor) -> None:
    assert Marginal()(logits, said(evidence, target)).equal(marginal_loss(logits, evidence))
    weights = {"alpha": 0.5, "beta": 3.0, "temperature": 2.0}
    expected = dkd_loss(logits, posterior(target, evidence), **weights)
    assert DKD(**weights)(logits, said(evidence, target)).equal(expected)


def test_face_value_follows_the_noisy_gradient(logits: Tensor, target: Tensor) -> None:
    """At the student that asked, the loss's gradient is the noisy gradient (DPDFD)."""
    logits = logits.clone().requires_grad_()
    prior = logits.detach().softmax(-1)
    # No gradient moves the sum of probabilities; noise might, and softmax takes it out again.
    noisy = target - target.mean(-1, keepdim=True)
    evidence = replace(said(target.log(), prior), face_value=prior - noisy)
    FaceValue()(logits, evidence).backward()
    torch.testing.assert_close(logits.grad, noisy / len(logits))


def test_decoupled_face_value_is_dkd_to_the_label(logits: Tensor, target: Tensor) -> None:
    dkd = DKD(alpha=0.5, beta=3.0, temperature=2.0)
    evidence = replace(said(target.log(), target), face_value=3 * target)
    expected = dkd_loss(logits, target, alpha=0.5, beta=3.0, temperature=2.0)
    torch.testing.assert_close(FaceValue(decoupled=dkd)(logits, evidence), expected)
    # A release that says no class at all is no label, and no NaN either.
    nothing = replace(evidence, face_value=-target)
    assert FaceValue(decoupled=dkd)(logits, nothing).isfinite()


def only(**weight: float) -> GeneratorWeights:
    return GeneratorWeights(**{"classification": 0.0, "balance": 0.0, "activation": 0.0, **weight})


def test_generator_wants_clear_classes(logits: Tensor) -> None:
    features = torch.zeros((12, 3))
    found = generator_loss(logits, features, only(classification=1.0))
    torch.testing.assert_close(found, F.cross_entropy(logits, logits.argmax(-1)))


def test_generator_wants_all_classes(logits: Tensor) -> None:
    features = torch.zeros((12, 3))
    found = generator_loss(logits, features, only(balance=1.0))
    mean = logits.softmax(-1).mean(0)
    torch.testing.assert_close(found, (mean * mean.log()).sum())
    even = torch.eye(5, dtype=torch.float64) * 50
    one_sided = even[:1].expand(5, -1)
    best = generator_loss(even, features, only(balance=1.0))
    assert float(best) == pytest.approx(-np.log(5))
    assert float(best) < float(generator_loss(one_sided, features, only(balance=1.0)))


def test_generator_wants_strong_features(logits: Tensor, random: torch.Generator) -> None:
    features = torch.randn((12, 7), generator=random, dtype=torch.float64)
    found = generator_loss(logits, features, only(activation=2.0))
    torch.testing.assert_close(found, -2 * features.abs().mean())


def test_generator_loss_adds_up(logits: Tensor, random: torch.Generator) -> None:
    features = torch.randn((12, 7), generator=random, dtype=torch.float64)
    weights = {"classification": 0.7, "balance": 4.0, "activation": 0.2}
    parts = [generator_loss(logits, features, only(**{name: w})) for name, w in weights.items()]
    whole = generator_loss(logits, features, GeneratorWeights(**weights))
    torch.testing.assert_close(whole, torch.stack(parts).sum())

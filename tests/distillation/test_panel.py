"""A panel reads the releases of many clients by what each client's teacher confuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dpsd.distillation.panel import Panel, evidence
from dpsd.distillation.releases import Replay, RoundReleases
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import Gaussian, RandomizedResponse
from dpsd.privacy.randomness import ReproducibleNoise

CLASSES = 4


def private(said: Tensor, *, epsilon: float, classes: int = CLASSES, seed: int = 0) -> Tensor:
    """What randomised responses of clients who say these classes, ``(N, M)``, tell."""
    columns = []
    for member, labels in enumerate(said.T):
        noise = ReproducibleNoise(seed=seed).for_process(member)
        mechanism = RandomizedResponse(epsilon=epsilon, candidates="all", noise=noise)
        answers = RawAnswers.seal(
            torch.nn.functional.one_hot(labels, classes),
            batch=len(labels),
            num_classes=classes,
            scores="probabilities",
        )
        prior = torch.full((len(labels), classes), 1 / classes)
        release = mechanism.privatize(answers, prior)
        columns.append(evidence(mechanism.log_likelihood(release, prior)))
    return torch.stack(columns, 1)


def drawn(chances: Tensor, seed: int) -> Tensor:
    """One class for each row of chances ``(N, K)``."""
    random = torch.Generator().manual_seed(seed)
    return torch.multinomial(chances.float(), 1, generator=random).squeeze(-1)


def confused(truth: Tensor, confusions: Tensor, *, seed: int = 0) -> Tensor:
    """What clients with these confusions say about images of these classes, ``(N, M)``."""
    columns = [drawn(one[truth], seed + member) for member, one in enumerate(confusions)]
    return torch.stack(columns, 1)


def guess(truth: Tensor, *, right: float, classes: int = CLASSES, seed: int = 0) -> Tensor:
    """The priors of a student that is right in this share of cases, and as sure as that."""
    sure = torch.full((classes, classes), (1 - right) / (classes - 1)).fill_diagonal_(right)
    return sure[drawn(sure[truth], seed + 99)].half()


def flat(count: int, classes: int = CLASSES) -> Tensor:
    return torch.full((count, classes), 1 / classes).half()


def truths(count: int, classes: int = CLASSES) -> Tensor:
    return torch.arange(count) % classes


def random_panel(members: int, classes: int = CLASSES, seed: int = 0) -> Panel:
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn((members, classes, classes), generator=random, dtype=torch.float64)
    return Panel(confusions=rows.softmax(-1))


def right(panel: Panel, release: Tensor, truth: Tensor) -> float:
    """How often the likeliest class under the releases alone is the true one."""
    said = panel.log_likelihood(release, flat(len(truth)).float()).argmax(-1)
    return float((said == truth).double().mean())


def test_planted_confusions_are_recovered_from_private_answers() -> None:
    truth = truths(40_000)
    planted = random_panel(3).confusions
    planted[0] = Panel.assumed(1, CLASSES).confusions[0]
    planted[1, 2] = torch.tensor([1.0, 0.0, 0.0, 0.0])  # this client never saw class 2
    release = private(confused(truth, planted), epsilon=2.0)
    found = Panel.assumed(3, CLASSES).informed(release, guess(truth, right=0.8))
    assert (found.confusions - planted).abs().max() < 0.05


def test_clients_that_never_err_multiply_their_likelihoods() -> None:
    release = private(confused(truths(50), torch.eye(CLASSES).repeat(3, 1, 1)), epsilon=1.0)
    panel = Panel(confusions=torch.eye(CLASSES, dtype=torch.float64).repeat(3, 1, 1))
    found = panel.log_likelihood(release, flat(50).float())
    torch.testing.assert_close(found, release.float().sum(1))


def test_the_likelihood_is_the_chance_of_the_release_averaged_over_what_teachers_say() -> None:
    panel, random = random_panel(2), torch.Generator().manual_seed(3)
    release = -5 * torch.rand((1, 2, CLASSES), generator=random)
    wanted = torch.zeros(CLASSES, dtype=torch.float64)
    for label in range(CLASSES):
        for first in range(CLASSES):
            for second in range(CLASSES):
                chance = panel.confusions[0, label, first] * panel.confusions[1, label, second]
                wanted[label] += chance * (release[0, 0, first] + release[0, 1, second]).exp()
    found = panel.log_likelihood(release, flat(1).float())
    torch.testing.assert_close(found[0].double(), wanted.log(), atol=1e-5, rtol=1e-5)


def test_a_client_without_an_answer_changes_nothing() -> None:
    truth = truths(400)
    release = private(confused(truth, random_panel(3).confusions), epsilon=2.0)
    release[:, 1] = 0
    some = release[:, [0, 2]]
    all_of_them, both = random_panel(3), Panel(confusions=random_panel(3).confusions[[0, 2]])
    prior = guess(truth, right=0.7)
    torch.testing.assert_close(
        all_of_them.log_likelihood(release, prior.float()),
        both.log_likelihood(some, prior.float()),
    )
    fitted = all_of_them.informed(release, prior).confusions
    torch.testing.assert_close(fitted[[0, 2]], both.informed(some, prior).confusions)
    torch.testing.assert_close(fitted[1], Panel.assumed(1, CLASSES).confusions[0])


def test_rounds_before_a_client_joined_have_no_column_of_it() -> None:
    truth = truths(400)
    release = private(confused(truth, random_panel(3).confusions), epsilon=2.0)
    prior, panel = guess(truth, right=0.7), random_panel(3)
    silent = release.clone()
    silent[:200, 2] = 0
    parts = [(release[:200, :2], prior[:200]), (release[200:], prior[200:])]
    torch.testing.assert_close(
        panel.fitted(lambda: parts).confusions,
        panel.informed(silent, prior).confusions,
        atol=1e-5,
        rtol=1e-5,
    )
    torch.testing.assert_close(
        panel.log_likelihood(release[:200, :2], prior[:200].float()),
        panel.log_likelihood(silent[:200], prior[:200].float()),
    )


def test_more_columns_than_clients_are_refused() -> None:
    with pytest.raises(ValueError, match="3 clients"):
        random_panel(2).log_likelihood(torch.zeros((5, 3, CLASSES)), flat(5).float())


def test_releases_in_blocks_and_at_once_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = truths(203)
    release = private(confused(truth, random_panel(2).confusions), epsilon=1.0)
    prior = guess(truth, right=0.7)
    whole = Panel.assumed(2, CLASSES).informed(release, prior).confusions
    monkeypatch.setattr("dpsd.distillation.panel._MOST_NUMBERS", 10 * 2 * CLASSES)
    parts = Panel.assumed(2, CLASSES).informed(release, prior).confusions
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


LIARS: dict[str, Callable[[Tensor], Tensor]] = {
    "names the next class": lambda truth: (truth + 1) % CLASSES,
    "names one class": torch.zeros_like,
    # Both give the same answers, and so agree with each other better than with anybody else.
    "names any class": lambda truth: drawn(torch.ones((len(truth), CLASSES)), 5),
}


@pytest.mark.parametrize("lie", LIARS.values(), ids=LIARS.keys())
@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_a_third_that_colludes_takes_little_away(
    lie: Callable[[Tensor], Tensor], epsilon: float
) -> None:
    truth = truths(6_000)
    honest = Panel.assumed(4, CLASSES).confusions
    said = confused(truth, torch.cat([honest, honest[:2]]))
    said[:, 4] = said[:, 5] = lie(truth)
    release = private(said, epsilon=epsilon)
    panel = Panel.assumed(6, CLASSES).informed(release, guess(truth, right=0.6))
    without = Panel(confusions=honest)
    assert right(panel, release, truth) > right(without, release[:, :4], truth) - 0.02


def test_a_client_that_says_nothing_of_the_class_has_no_weight() -> None:
    truth = truths(6_000)
    said = torch.ones((len(truth), 1), dtype=torch.int64)
    release = private(said, epsilon=3.0)
    panel = Panel.assumed(1, CLASSES).informed(release, guess(truth, right=0.6))
    found = panel.log_likelihood(evidence(torch.tensor([[[-60.0, 0, -60, -60]]])), flat(1).float())
    assert found.amax() - found.amin() < 0.05


def test_one_release_decides_no_more_than_its_client_has_shown() -> None:
    told = torch.full((1, 1, CLASSES), -60.0)
    told[..., 0] = 0
    found = Panel.assumed(1, CLASSES).log_likelihood(told, flat(1).float())
    # As often as a teacher of which nothing is known is assumed to be right, and no oftener.
    assert found.softmax(-1).amax() == pytest.approx(0.6, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(4)))
def test_the_order_of_clients_does_not_matter(seed: int, order: list[int]) -> None:
    panel, random = random_panel(4, seed=seed), torch.Generator().manual_seed(seed)
    release = -4 * torch.rand((20, 4, CLASSES), generator=random)
    prior = torch.rand((20, CLASSES), generator=random).softmax(-1)
    moved = Panel(confusions=panel.confusions[order])
    torch.testing.assert_close(
        moved.log_likelihood(release[:, order], prior), panel.log_likelihood(release, prior)
    )
    torch.testing.assert_close(
        moved.informed(release[:, order], prior).confusions,
        panel.informed(release, prior).confusions[order],
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), constant=st.floats(-10, 10))
def test_constants_in_rows_do_not_matter(seed: int, constant: float) -> None:
    random = torch.Generator().manual_seed(seed)
    found = -4 * torch.rand((20, 3, CLASSES), generator=random)
    shifted = found + constant * torch.rand((20, 3, 1), generator=random)
    torch.testing.assert_close(evidence(found), evidence(shifted), atol=0.01, rtol=0)


def test_a_release_that_no_class_explains_counts_as_none() -> None:
    impossible = torch.full((1, CLASSES), -torch.inf)
    assert evidence(impossible).eq(0).all()


def test_face_value_is_the_posterior_under_a_flat_prior() -> None:
    release = private(confused(truths(8), random_panel(2).confusions), epsilon=1.0)
    found = random_panel(2).face_value(release, guess(truths(8), right=0.9).float())
    torch.testing.assert_close(found.sum(-1), torch.ones(8))


def test_agreement_is_not_estimated() -> None:
    panel, prior = random_panel(2), flat(6).float()
    assert not panel.estimates_agreement
    assert panel.agreement(torch.zeros((6, 2, CLASSES)), prior, truths(6)).isnan().all()


def test_candidates_are_the_classes_that_a_client_is_likely_to_say() -> None:
    confusions = torch.eye(CLASSES, dtype=torch.float64).repeat(2, 1, 1)
    confusions[1, 2] = torch.tensor([0.9, 0.1, 0.0, 0.0])  # the second client never saw class 2
    prior = torch.tensor([[0.03, 0.02, 0.94, 0.01], [0.25, 0.25, 0.25, 0.25]])
    mechanism, panel = RandomizedResponse(epsilon=1.0), Panel(confusions=confusions)
    assert panel.candidates(prior, 0, mechanism)[0].tolist() == [True, False, True, False]
    assert panel.candidates(prior, 1, mechanism)[0].tolist() == [True, True, False, False]
    assert panel.candidates(prior, 0, mechanism)[1].all()
    assert panel.candidates(prior, 0, mechanism).sum(-1).ge(2).all()


def test_clients_with_different_mechanisms_are_read_together() -> None:
    truth = truths(2_000)
    said = confused(truth, Panel.assumed(2, CLASSES).confusions)
    release = private(said, epsilon=1.5)
    gaussian = Gaussian(noise_multiplier=1.0, noise=ReproducibleNoise(seed=2))
    prior = flat(len(truth)).float()
    answers = RawAnswers.seal(
        torch.nn.functional.one_hot(said[:, 1], CLASSES),
        batch=len(truth),
        num_classes=CLASSES,
        scores="probabilities",
    )
    noisy = gaussian.privatize(answers, prior)
    release[:, 1] = evidence(gaussian.log_likelihood(noisy, prior))
    panel = Panel.assumed(2, CLASSES)
    alone = [Panel(confusions=panel.confusions[:1]), Panel(confusions=panel.confusions[1:])]
    both = right(panel, release, truth)
    assert both > right(alone[0], release[:, :1], truth)
    assert both > right(alone[1], release[:, 1:], truth)


def test_a_student_learns_from_rounds_before_and_after_a_client_joined() -> None:
    def round_of(index: int, members: int) -> RoundReleases:
        truth = truths(6)
        return RoundReleases(
            index=index,
            queries=torch.zeros((6, 1, 8, 8), dtype=torch.uint8),
            prior=flat(6),
            predicted=truth,
            source=truth,
            release=torch.full((6, members, CLASSES), -float(index)).half(),
        )

    replay = Replay([round_of(1, 2), round_of(2, 3)])
    (batch,) = replay.batches(torch.arange(12), batch_size=12)
    assert batch.release.shape == (12, 3, CLASSES)
    assert batch.release[:6, 2].eq(0).all()
    assert batch.release[6:].eq(-2).all()

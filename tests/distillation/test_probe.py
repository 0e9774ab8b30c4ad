"""What the releases of a probe say about a student, without bias."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dpsd.distillation.judging import class_warning
from dpsd.distillation.probe import Probe
from dpsd.distillation.quality import Agreement
from dpsd.distillation.releases import RoundReleases
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import (
    Gaussian,
    Mechanism,
    NoisyVotes,
    RandomizedResponse,
    SummedGradients,
)
from dpsd.privacy.randomness import ReproducibleNoise
from dpsd.synthesis.queries import flat_prior

CLASSES = 5
NOISE = ReproducibleNoise(seed=9)
EXACT = RandomizedResponse(epsilon=20.0, noise=NOISE)
MECHANISMS: list[Mechanism] = [
    RandomizedResponse(epsilon=0.5, noise=NOISE),
    RandomizedResponse(epsilon=2.0, candidates="all", noise=NOISE),
    Gaussian(noise_multiplier=1.5, noise=NOISE),
    Gaussian(noise_multiplier=0.5, top_k=2, noise=NOISE),
    NoisyVotes(noise_multiplier=3.0, teachers=10, noise=NOISE),
    SummedGradients(noise_multiplier=3.0, teachers=10, noise=NOISE),
]
EACH_MECHANISM = pytest.mark.parametrize("mechanism", MECHANISMS, ids=repr)


def drawn(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """The teacher's classes, of which the last is rare, and a student that is right on 70 %."""
    random = torch.Generator().manual_seed(seed)
    weights = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.02])
    said = torch.multinomial(weights, count, replacement=True, generator=random)
    other = torch.randint(CLASSES, (count,), generator=random)
    return said, torch.where(torch.rand(count, generator=random) < 0.7, said, other)


def probe_of(mechanism: Mechanism, said: Tensor) -> Probe:
    members = getattr(mechanism, "teachers", None) or 1
    scores = torch.nn.functional.one_hot(said, CLASSES).float()
    answers = RawAnswers.seal(
        scores.expand(members, -1, -1) if members > 1 else scores,
        batch=len(said),
        num_classes=CLASSES,
        scores="probabilities",
        members=members,
    )
    random = torch.Generator().manual_seed(1)
    prior = flat_prior(torch.empty((len(said), CLASSES)), random).half()
    release = mechanism.privatize(answers, prior.float())
    releases = RoundReleases(
        index=1,
        queries=torch.empty((len(said), 1, 8, 8), dtype=torch.uint8, device="meta"),
        prior=prior,
        predicted=said,
        source=said,
        release=release,
    )
    return Probe(releases, mechanism)


def share(values: Tensor) -> float:
    return float(values.double().mean())


@EACH_MECHANISM
def test_agreement_recall_and_shares_are_unbiased(mechanism: Mechanism) -> None:
    said, predicted = drawn(0, 20_000)
    quality = probe_of(mechanism, said).quality(predicted)
    assert quality.agreement is not None
    error = quality.agreement.standard_error
    # The probability of a deviation by five standard errors is below a millionth.
    assert abs(quality.agreement.mean - share(said == predicted)) < 5 * error
    for label, recall in enumerate(quality.recall[:2]):
        of_class = said == label
        assert recall is not None
        assert abs(recall.mean - share(predicted[of_class] == label)) < 5 * recall.standard_error
    for label, found in enumerate(quality.class_shares):
        assert abs(found - share(said == label)) < 5 * 3 * error


@EACH_MECHANISM
def test_errors_are_as_large_as_they_say(mechanism: Mechanism) -> None:
    """Over many small probes, figures stray from the truth by about their standard errors."""
    said, predicted = drawn(2, 40_000)
    strays: dict[str, list[float]] = {"agreement": [], "recall": [], "improvement": []}
    other = predicted.roll(1)
    probe = probe_of(mechanism, said)
    scores = probe._by_class
    for rows in torch.split(torch.arange(len(said)), 800):
        part = Probe(probe.releases, mechanism)
        part.__dict__["_by_class"] = scores[:, rows]
        a, b = (scores.gather(0, which[None])[0, rows] for which in (predicted, other))
        found = Agreement.of(a - b)
        truth = share(said[rows] == predicted[rows]) - share(said[rows] == other[rows])
        assert found is not None
        strays["improvement"].append((found.mean - truth) / found.standard_error)
        agreement = Agreement.of(a)
        assert agreement is not None
        truth = share(said[rows] == predicted[rows])
        strays["agreement"].append((agreement.mean - truth) / agreement.standard_error)
        if recall := part._recall(predicted[rows])[0]:
            truth = share(predicted[rows][said[rows] == 0] == 0)
            strays["recall"].append((recall.mean - truth) / recall.standard_error)
    for name, stray in strays.items():
        if len(stray) > 20:
            # Below 1 where the sample's own variation, which the errors include, is most of it.
            assert torch.tensor(stray).square().mean().sqrt() < 1.5, name


def test_a_difference_is_known_far_better_than_two_agreements() -> None:
    said, predicted = drawn(3, 5_000)
    changed = predicted.clone()
    changed[:50] = (changed[:50] + 1) % CLASSES
    probe = probe_of(RandomizedResponse(epsilon=1.0, noise=NOISE), said)
    gain, agreement = probe.improvement(changed, predicted), probe.quality(changed).agreement
    assert gain is not None
    assert agreement is not None
    assert gain.standard_error < agreement.standard_error / 4
    same = probe.improvement(predicted, predicted)
    assert same == Agreement(0.0, 0.0)


def test_nothing_is_said_about_the_recall_of_a_class_too_rare_to_tell() -> None:
    said, predicted = drawn(4, 400)
    quality = probe_of(RandomizedResponse(epsilon=0.5, noise=NOISE), said).quality(predicted)
    assert quality.recall[CLASSES - 1] is None


def test_very_many_classes_have_no_figures_of_their_own() -> None:
    said = torch.arange(300) % 150
    prior = torch.full((300, 150), 1 / 150).half()
    releases = RoundReleases(
        index=1,
        queries=torch.empty((300, 1, 8, 8), dtype=torch.uint8, device="meta"),
        prior=prior,
        predicted=said,
        source=said,
        release=said,
    )
    quality = Probe(releases, RandomizedResponse(epsilon=20.0)).quality(said)
    assert quality.agreement is not None
    assert quality.agreement.mean == pytest.approx(1, abs=1e-3)
    assert (quality.recall, quality.class_shares) == ([], [])


def one_class(others: int, *, count: int = 94) -> tuple[Tensor, Tensor]:
    """A teacher that says class 1 but for a few images, and a student that says it for all."""
    said = torch.ones(count, dtype=torch.long)
    said[:others] = 0
    return said, torch.ones(count, dtype=torch.long)


@EACH_MECHANISM
def test_the_constant_answer_is_the_most_frequent_class(mechanism: Mechanism) -> None:
    said, predicted = drawn(0, 20_000)
    quality = probe_of(mechanism, said).quality(predicted)
    assert quality.constant is not None
    assert quality.constant_class == 0
    error = quality.constant.standard_error
    assert abs(quality.constant.mean - share(said == 0)) < 5 * error


@pytest.mark.parametrize("others", [0, 4])
def test_a_student_that_says_one_class_is_no_better_than_the_constant_answer(others: int) -> None:
    said, predicted = one_class(others)
    probe = probe_of(EXACT, said)
    quality = probe.quality(predicted)
    assert quality.agreement == quality.constant
    assert not probe.beats_constant(predicted, errors=2.0)
    said = torch.arange(200) % CLASSES
    assert probe_of(EXACT, said).beats_constant(said, errors=2.0)


@pytest.mark.parametrize("count", [2, 3, 18])
@pytest.mark.parametrize("right", [True, False])
def test_few_images_that_fare_alike_leave_an_error(count: int, right: bool) -> None:
    said = torch.ones(count, dtype=torch.long)
    probe = probe_of(EXACT, said)
    predicted = said if right else torch.zeros_like(said)
    quality = probe.quality(predicted)
    assert quality.agreement is not None
    assert quality.agreement.standard_error > 1 / (count + 4)
    for recall in quality.recall:
        assert recall is None or recall.standard_error > 1 / (count + 4)
    _, errors = probe.confusion(predicted)
    assert not (errors == 0).any()


def test_noise_widens_the_error_of_few_images_that_fare_alike() -> None:
    """By chance, all of three reports may be true, whose scores are then far above 1."""
    said = torch.ones(3, dtype=torch.long)
    releases = probe_of(EXACT, said).releases
    noisy = Probe(releases, RandomizedResponse(epsilon=0.5)).quality(said).agreement
    exact = Probe(releases, EXACT).quality(said).agreement
    assert noisy is not None
    assert exact is not None
    assert noisy.mean > 2
    assert noisy.standard_error > 4 * exact.standard_error


@EACH_MECHANISM
def test_intervals_of_small_probes_cover_the_truth(mechanism: Mechanism) -> None:
    """Two standard errors cover it in nine of ten probes of 20 images, also near 100 %."""
    random = torch.Generator().manual_seed(3)
    said = torch.randint(CLASSES, (6_000,), generator=random)
    predicted = said.where(torch.rand(6_000, generator=random) < 0.97, (said + 1) % CLASSES)
    probe = probe_of(mechanism, said)
    scores = probe._scores(predicted)
    found = [Agreement.of(part, span=probe._span) for part in torch.split(scores, 20)]
    covered = [one is not None and abs(one.mean - 0.97) < 2 * one.standard_error for one in found]
    assert torch.tensor(covered).double().mean() > 0.9


@pytest.mark.parametrize(
    ("said", "warning"),
    [
        (one_class(4)[0], "nearly one class to the teacher, which says class 'b' for 95.7% ± 2.4%"),
        (torch.arange(40) % 3, "does not tell how a student does on classes 'd', 'e'"),
        (torch.arange(400) % CLASSES, None),
    ],
)
def test_a_probe_without_images_of_all_classes_is_said_to_be_so(
    said: Tensor, warning: str | None
) -> None:
    found = class_warning(probe_of(EXACT, said).quality(said), names=list("abcde"))
    assert (found is None) == (warning is None)
    assert warning is None or (warning in str(found) and "of all classes" in str(found))
    assert "\n" not in str(found)

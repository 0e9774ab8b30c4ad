"""A round is judged from its small columns alone, some rows at a time."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from dpsd.distillation.quality import assess, unlike_warning
from dpsd.distillation.releases import RoundReleases
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import Gaussian, Mechanism, RandomizedResponse
from dpsd.privacy.randomness import ReproducibleNoise

CLASSES = 5


def round_of(count: int, *, mechanism: Mechanism) -> RoundReleases:
    random = torch.Generator().manual_seed(0)
    prior = (3 * torch.rand((count, CLASSES), generator=random)).softmax(-1)
    prior[::4] = 1 / CLASSES
    release = torch.randint(CLASSES, (count,), generator=random)
    if isinstance(mechanism, Gaussian):
        release = torch.randn((count, CLASSES), generator=random)
    return RoundReleases(
        index=1,
        queries=torch.empty((count, 1, 8, 8), dtype=torch.uint8, device="meta"),  # has no pixels
        prior=prior.half(),
        predicted=torch.randint(CLASSES, (count,), generator=random).to(torch.int32),
        source=torch.randint(2, (count,), generator=random).to(torch.uint8),
        release=release,
    )


@pytest.mark.parametrize(
    "mechanism",
    [RandomizedResponse(epsilon=2.0, candidates="all"), Gaussian(noise_multiplier=1.0)],
    ids=["labels", "data"],
)
def test_parts_and_the_whole_say_the_same(
    mechanism: Mechanism, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = round_of(203, mechanism=mechanism)
    whole = asdict(assess(releases, mechanism))
    monkeypatch.setattr("dpsd.distillation.quality._MOST_NUMBERS", 7 * CLASSES)
    parts = asdict(assess(releases, mechanism))
    # Row by row the same to the last bit; sums are not, as their order changes.
    assert parts["agreement"] == whole["agreement"]
    for name in ("label_shares", "predicted_shares"):
        assert parts[name] == pytest.approx(whole[name], abs=1e-5)
    assert parts["source_shares"].keys() == whole["source_shares"].keys()
    for name in ("surprise", "spread"):
        assert list(parts[name].values()) == pytest.approx(list(whole[name].values()), abs=1e-5)


@pytest.mark.parametrize(("epsilon", "clarity"), [(1e-6, 0.0), (1.0, 0.0654), (20.0, 1.0)])
def test_clarity_is_how_much_a_release_says(epsilon: float, clarity: float) -> None:
    mechanism = RandomizedResponse(epsilon=epsilon, candidates="all")
    found = assess(round_of(40, mechanism=mechanism), mechanism).clarity
    # True by e^ε / (e^ε + 4) and false by 1 / (e^ε + 4): the square of their difference.
    assert found == pytest.approx(clarity, abs=1e-3)


def first_round(*shares: list[float], epsilon: float, count: int) -> RoundReleases:
    """The releases of a first round in which the teacher says these shares of each source."""
    random = torch.Generator().manual_seed(1)
    said = torch.cat(
        [
            torch.multinomial(torch.tensor(of), count, replacement=True, generator=random)
            for of in shares
        ]
    )
    answers = RawAnswers.seal(
        torch.nn.functional.one_hot(said, CLASSES),
        batch=len(said),
        num_classes=CLASSES,
        scores="probabilities",
    )
    mechanism = RandomizedResponse(epsilon=epsilon, noise=ReproducibleNoise(seed=4))
    prior = torch.full((len(said), CLASSES), 1 / CLASSES)
    return RoundReleases(
        index=1,
        queries=torch.empty((len(said), 1, 8, 8), dtype=torch.uint8, device="meta"),
        prior=prior.half(),
        predicted=torch.randint(CLASSES, (len(said),), generator=random),
        source=torch.arange(len(shares)).repeat_interleave(count),
        release=mechanism.privatize(answers, prior),
    )


MIXED, OTHER = [0.5, 0.2, 0.2, 0.1, 0.0], [0.1, 0.1, 0.1, 0.1, 0.6]


@pytest.mark.parametrize(
    ("shares", "problem"),
    [
        ([[0.99, 0.01, 0, 0, 0], [0, 0, 0.99, 0.01, 0]], "nearly all images of a source one"),
        ([[0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0]], "hardly any class in common"),
        ([MIXED, OTHER], None),
        ([[0.8, 0.2, 0, 0, 0], [0.8, 0, 0.2, 0, 0]], None),
        ([[0.99, 0.01, 0, 0, 0], MIXED], None),
        ([[0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0], MIXED], None),
    ],
)
def test_queries_that_look_unlike_the_domain_are_warned_of(
    shares: list[list[float]], problem: str | None
) -> None:
    quality = assess(
        first_round(*shares, epsilon=3.0, count=3_000), RandomizedResponse(epsilon=3.0)
    )
    warning = unlike_warning(quality, names=["noise", "strokes", "silhouettes"])
    if problem is None:
        assert warning is None
    else:
        assert warning is not None
        assert problem in warning
        assert "noise" in warning
        assert "--public" in warning


@pytest.mark.parametrize(("epsilon", "count"), [(0.1, 3_000), (3.0, 20)])
def test_noise_alone_never_warns(epsilon: float, count: int) -> None:
    releases = first_round(MIXED, OTHER, epsilon=epsilon, count=count)
    quality = assess(releases, RandomizedResponse(epsilon=epsilon))
    assert quality.source_shares == {}
    assert unlike_warning(quality, names=["noise", "strokes"]) is None

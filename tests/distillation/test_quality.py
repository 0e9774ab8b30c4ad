"""A round is judged from its small columns alone, some rows at a time."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from dpsd.distillation.quality import assess
from dpsd.distillation.releases import RoundReleases
from dpsd.privacy.mechanisms import Gaussian, Mechanism, RandomizedResponse

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
    for name in ("surprise", "spread"):
        assert list(parts[name].values()) == pytest.approx(list(whole[name].values()), abs=1e-5)

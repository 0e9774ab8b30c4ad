"""Generators that are known to copy, and one that is known not to: the controls of every search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpsd.attacks.copies.comparing import Comparison
from dpsd.attacks.copies.records import Records
from dpsd.runs.findings import Control
from dpsd.streams import stream

#: The most samples of the generator that returns training images alone.
_MOST = 500
#: The share of copies among the samples of the other, and the noise that is laid over them, as a
#: standard deviation of values from 0 to 255.
_SHARE, _NOISE = 0.05, 4.0
#: The probability that chance alone fails the control of held-out records, by any of its tests.
NULL_MISTAKE = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class Plants:
    """Images that stand in for the run's samples.

    Args:
        all_copies: training records, uint8 ``(N, C, H, W)``.
        some_copies: the run's samples, of which a part is replaced with noisy training records.
        copies: the number of these.
        null: held-out records, of which none is a copy.
    """

    all_copies: Tensor
    some_copies: Tensor
    copies: int
    null: Tensor

    @classmethod
    def of(cls, records: Records, samples: Tensor, *, seed: int) -> Plants:
        """Plant copies of the training records that have held-out counterparts."""
        random = stream(seed, 0, "copies: plants")
        known = records.members.images[records.paired]
        copies = max(1, round(_SHARE * len(samples)))
        chosen = known[torch.randint(len(known), (copies,), generator=random)].float()
        noise = _NOISE * torch.randn(chosen.shape, generator=random)
        mixed = samples.clone()
        places = torch.randperm(len(samples), generator=random)[:copies]
        mixed[places] = (chosen + noise).round().clamp(0, 255).byte()
        return cls(
            all_copies=known[torch.randperm(len(known), generator=random)[:_MOST]],
            some_copies=mixed,
            copies=copies,
            null=records.null.images,
        )

    def controls(
        self,
        all_copies: Mapping[str, Comparison],
        some_copies: Mapping[str, Comparison],
        null: Mapping[str, Comparison],
    ) -> tuple[Control, ...]:
        """Judge what the search said of the three, by space."""
        whole = [one.near.share for one in all_copies.values()]
        some = [one.near for one in some_copies.values()]
        false = [one.near.count for one in null.values()]
        tests = sum(len(one.alarms()) for one in null.values())
        return (
            Control(
                name="a generator that returns training images",
                found=min(whole) == 1 and all(all(one.alarms()) for one in all_copies.values()),
                sentence=f"A generator was planted that returns {len(self.all_copies):,} training "
                f"images: {min(whole):.0%} of them were found to be near-copies.",
            ),
            Control(
                name="a generator that returns some training images",
                found=any(one.alarms()[0] for one in some_copies.values()),
                sentence=f"{self.copies:,} of the {len(self.some_copies):,} samples were replaced "
                f"with training images under light noise: {max(one.count for one in some):,} "
                "near-copies were found.",
            ),
            Control(
                name="held-out records, in which nothing is to be found",
                found=not any(any(one.alarms(NULL_MISTAKE / tests)) for one in null.values()),
                sentence=f"{len(self.null):,} held-out records, which nobody can have copied, were "
                f"examined as if they were samples: {max(false):,} passed for near-copies, which "
                "is how often the search is wrong. Chance alone fails this control in "
                f"about one of {1 / NULL_MISTAKE:,.0f} attacks.",
            ),
        )

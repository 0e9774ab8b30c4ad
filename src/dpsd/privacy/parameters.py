"""The parameters of mechanisms that a user can choose, and which choices make sense.

Configurations validate these when they are made, long before a mechanism is, so this module imports
nothing that is slow to import.

>>> check_candidates(1)
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: candidates must be "per-query", "all" or an integer of at least 2, not 1
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

from dpsd.errors import ConfigError, Setting

#: The classes that randomised response chooses from: as each query's prior says, all, or how many.
Candidates: TypeAlias = Literal["per-query", "all"] | int


class Scaling(StrEnum):
    """How a gradient is brought to a bounded norm before noise is added.

    ``NONE`` leaves the gradient as it is: with hardened answers, two gradients differ by the
    difference of two distributions, which is at most ``√2`` long.
    """

    NORMALIZE = "normalize"
    CLIP = "clip"
    NONE = "none"


def check_candidates(candidates: Candidates) -> None:
    """Refuse a number of candidates that leaves nothing to choose.

    Raises:
        ConfigError: it is neither ``"per-query"`` nor ``"all"`` nor an integer of at least 2.
    """
    named = candidates in ("per-query", "all")
    if not named and not (isinstance(candidates, int) and candidates >= 2):
        raise ConfigError(
            Setting("candidates"),
            f' must be "per-query", "all" or an integer of at least 2, not {candidates!r}',
        )


def check_scaling(scaling: Scaling, *, harden: bool) -> None:
    """Refuse unbounded gradients.

    Raises:
        ConfigError: there is no scaling, and answers are not hardened.
    """
    if scaling is Scaling.NONE and not harden:
        raise ConfigError(
            *(Setting("scaling"), " none needs ", Setting("harden")),
            ": the gradient of a class alone is bounded by itself",
        )

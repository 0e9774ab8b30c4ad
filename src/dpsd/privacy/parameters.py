"""What can be chosen of a mechanism, and which choices make sense.

Configurations check this when they are made, long before a mechanism is, so this module imports
nothing that takes long.

>>> check_candidates(1)
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: candidates must be "per-query", "all" or an integer of at least 2, not 1
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

from dpsd.errors import ConfigError, Setting

#: Classes that randomised response chooses from: by the prior of each query, all, or how many.
Candidates: TypeAlias = Literal["per-query", "all"] | int


class Scaling(StrEnum):
    """How a gradient is brought to a bounded norm before noise is added.

    ``NONE`` leaves it as it is: of hardened answers, the difference of two distributions is at most
    ``√2`` long.
    """

    NORMALIZE = "normalize"
    CLIP = "clip"
    NONE = "none"


def check_candidates(candidates: Candidates) -> None:
    """Refuse a number of candidates among which there is nothing to choose.

    Raises:
        ConfigError: neither ``"per-query"`` nor ``"all"`` nor an integer of at least 2.
    """
    named = candidates in ("per-query", "all")
    if not named and not (isinstance(candidates, int) and candidates >= 2):
        raise ConfigError(
            Setting("candidates"),
            f' must be "per-query", "all" or an integer of at least 2, not {candidates!r}',
        )


def check_scaling(scaling: Scaling, *, harden: bool) -> None:
    """Refuse gradients that nothing bounds.

    Raises:
        ConfigError: no scaling, of answers that are not hardened.
    """
    if scaling is Scaling.NONE and not harden:
        raise ConfigError(
            *(Setting("scaling"), " none needs ", Setting("harden")),
            ": the gradient of a class alone is bounded by itself",
        )

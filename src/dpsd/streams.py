"""Public randomness, derived from a run's seed by purpose and round.

No state of a random generator is stored: a run that is resumed in any round draws the same numbers
as without the interruption. Privacy noise never comes from here; see
:mod:`dpsd.privacy.randomness`.

>>> int(torch.randint(9, (), generator=stream(0, 1, "queries"))) < 9
True
"""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, round_index: int, purpose: str) -> torch.Generator:
    """Return a CPU random generator for one purpose in one round."""
    return torch.Generator().manual_seed(stream_seed(seed, round_index, purpose))


def stream_seed(seed: int, round_index: int, purpose: str) -> int:
    """Return the 63-bit seed of the random generator for one purpose in one round.

    >>> stream_seed(0, 1, "queries") == stream_seed(0, 1, "training")
    False
    """
    digest = hashlib.sha256(f"{seed}/{round_index}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

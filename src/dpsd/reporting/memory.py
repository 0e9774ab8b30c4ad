"""The most memory that a run has held, as pages show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: The heading of a column with the most memory.
MEMORY = "memory, up to MB"


def peak(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return the most memory on record in some rounds, in MB; ``-`` if there is none.

    >>> rounds = [{"peak_memory_mb": {"process": most, "accelerator": 300}} for most in (900, 1100)]
    >>> peak(rounds), peak([{"peak_memory_mb": {"process": 900}}, {}]), peak([{}])
    ('1,100; accelerator 300', '900', '-')
    """
    most = dict[str, int]()
    for line in metrics:
        for kind, size in line.get("peak_memory_mb", {}).items():
            most[kind] = max(size, most.get(kind, 0))
    names = {"process": "", "accelerator": "accelerator "}
    return "; ".join(f"{name}{most[kind]:,}" for kind, name in names.items() if kind in most) or "-"

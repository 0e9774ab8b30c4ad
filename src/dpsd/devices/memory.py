"""How much memory a process has held at most, which nothing but the system counts.

>>> peak_process_memory() > 10_000_000
True
>>> peak_memory_mb(torch.device("cpu")).keys()
dict_keys(['process'])
"""

from __future__ import annotations

import math
import resource
import sys

import torch

#: The steps in which peaks are told, in MB: how much a teacher holds may depend on its answers, as
#: its time may.
STEP_MB = 100


def peak_process_memory() -> int:
    """Return the most memory that this process has held since it began, in bytes."""
    # Kilobytes on Linux, bytes on a Mac.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_memory_mb(device: torch.device) -> dict[str, int]:
    """Return the most memory that this process has held so far, in MB, rounded up to hundreds.

    Args:
        device: the device that models are on.

    Returns:
        ``process``: the main memory, and on CUDA ``accelerator``: what torch held on the device.
    """
    peaks = {"process": peak_process_memory()}
    if device.type == "cuda":
        peaks["accelerator"] = torch.cuda.max_memory_allocated(device)
    return {name: in_steps(peak) for name, peak in peaks.items()}


def in_steps(size: int) -> int:
    """Return a number of bytes in MB, rounded up to hundreds.

    >>> in_steps(0), in_steps(100_000_000), in_steps(100_000_001)
    (0, 100, 200)
    """
    return math.ceil(size / (STEP_MB * 1_000_000)) * STEP_MB

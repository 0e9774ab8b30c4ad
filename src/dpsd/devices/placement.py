"""Which of several processes this is, where ``torchrun`` or SLURM's ``srun`` started them.

>>> scheduled(2) is None  # by nobody
True
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from dpsd.errors import ConfigError, Setting


@dataclass(frozen=True)
class Placement:
    """Which process this is.

    Args:
        rank: among all, from 0.
        count: how many processes there are.
        local_count: how many of them are on this machine.
        address: host and port where process 0 is found; ``None`` until it is known.
        is_scheduled: whether a scheduler started them all, so that they stay together from one run
            to the next.
    """

    rank: int
    count: int
    local_count: int
    address: tuple[str, int] | None = None
    is_scheduled: bool = False


def scheduled(devices: int) -> Placement | None:
    """Which process this is, where torchrun or SLURM started several.

    Raises:
        ConfigError: another number than ``devices``.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        rank, count, here = _numbers("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    elif devices > 1 and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        # A step of single-device runs, one a task, is no group.
        rank, count, machines = _numbers(
            "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"
        )
        here = count // machines
    else:
        return None
    if count != devices:
        raise ConfigError(
            *(Setting("devices"), f" is {devices}, and this was started as {count} processes: "),
            *(f"start {devices}, or set ", Setting("devices"), f" to {count}"),
        )
    if count == 1:
        return None
    host = os.environ.get("MASTER_ADDR") or _first_host(os.environ.get("SLURM_STEP_NODELIST", ""))
    port = int(os.environ.get("MASTER_PORT") or _slurm_port())
    return Placement(rank, count, here, (host, port), is_scheduled=True)


def _numbers(*names: str) -> list[int]:
    return [int(os.environ.get(name, "1")) for name in names]


def _first_host(listed: str) -> str:
    """Where SLURM puts the first task of a step.

    >>> _first_host("gpu[07-09,12],big1"), _first_host("big1,big2"), _first_host("")
    ('gpu07', 'big1', '127.0.0.1')
    """
    found = re.match(r"([^,\[]+)(?:\[(\d+))?", listed)
    return "127.0.0.1" if found is None else found[1] + (found[2] or "")


def _slurm_port() -> int:
    """A port that all processes of a step arrive at, and hardly another step."""
    job, step = _numbers("SLURM_JOB_ID", "SLURM_STEP_ID")
    return 20_000 + (job + 97 * step) % 10_000

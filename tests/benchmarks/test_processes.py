"""What is computed in a process of its own comes back, or why it does not."""

from __future__ import annotations

import os
import signal

import pytest

from dpsd.benchmarks.processes import in_a_process
from dpsd.errors import ConfigError, RunError


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(what: str) -> None:
    raise ConfigError(f"{what} is refused")


def test_a_process_that_is_killed_is_an_error_that_says_so() -> None:
    with pytest.raises(RunError, match="memory"):
        in_a_process(kill_oneself)


def test_its_errors_are_raised_here() -> None:
    with pytest.raises(ConfigError, match="this is refused"):
        in_a_process(refuse, "this")

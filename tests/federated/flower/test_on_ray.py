"""A federation whose clients answer in processes of Ray's, whatever they do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpsd.federated.exchange import Exchange
from dpsd.federated.flower import on_ray
from dpsd.federated.requests import Code, Reply

from .clients import DIES, LEAVES, RAISES, SECRET, FirstPixel, request

pytestmark = [
    pytest.mark.federated,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

#: How long a round may take on a machine that is busy, in seconds.
PATIENCE = 240.0


def first_pixel(number: int) -> FirstPixel:
    return FirstPixel()


def test_clients_that_raise_leave_or_are_killed_answer_the_next_round(
    capfd: pytest.CaptureFixture[str],
) -> None:
    rounds: list[dict[str, Reply]] = []
    strangers: list[str] = []

    def run(exchange: Exchange) -> None:
        for pixels in ({"0": RAISES, "1": LEAVES, "2": DIES, "3": 4}, dict.fromkeys("0123", 8)):
            deadline = time.time() + PATIENCE
            asked = {key: request(pixel, deadline=deadline) for key, pixel in pixels.items()}
            rounds.append(exchange.ask(asked, deadline=deadline))
        strangers.append(reached_by_a_stranger())

    on_ray.simulate(run, first_pixel, 4)
    first, second = rounds
    assert {key: reply.code for key, reply in first.items()} == {
        "0": Code.FAILED,
        "1": Code.FAILED,
        "2": Code.FAILED,
        "3": Code.ANSWERED,
    }
    for reply in second.values():
        assert reply.release is not None
        assert reply.release.tolist() == [8, 7]
    assert SECRET not in repr(rounds) + "".join(capfd.readouterr())
    assert "InvalidToken" in strangers[0] or "Unauthenticated" in strangers[0]


def reached_by_a_stranger() -> str:
    """What a program without the secret is told by the Ray that runs now."""
    import ray

    address = ray.get_runtime_context().gcs_address
    environment = {name: value for name, value in os.environ.items() if "RAY_AUTH" not in name}
    done = subprocess.run(
        [sys.executable, "-c", f"import ray; ray.init(address={address!r})"],
        env=environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode
    return done.stdout + done.stderr

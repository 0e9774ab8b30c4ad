"""What secure noise costs: the discrete Gaussian on a grid against a plain sampler.

    python benchmarks/noise.py

Both are drawn side by side in one process, alternately; then two whole runs are timed, one with
each. The plain sampler is `torch.randn` with a seed: neither secret nor safe.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import dpsd
from dpsd.privacy.randomness import SystemNoise
from explaining import explained

COUNT = 1_000_000
SCALE = 6_000.0


class PlainNoise(SystemNoise):
    """What a naive implementation would draw."""

    def discrete_gaussian(self, shape: tuple[int, ...], *, scale: float) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64).mul_(scale).round_().long()


def seconds(task: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def whole_run(noise: SystemNoise) -> None:
    """Data protection of a teacher of digits: four million noisy numbers."""

    def thirds(images: torch.Tensor) -> torch.Tensor:
        return 20 * images[:, 0, :].flatten(1)[:, :60].reshape(len(images), 10, 6).mean(-1)

    teacher = dpsd.load_teacher(thirds, input_shape=(1, 28, 28), scores="logits", name="thirds")
    with tempfile.TemporaryDirectory() as folder:
        dpsd.transcribe(
            teacher,
            mechanism=dpsd.Gaussian(noise=noise),
            budget=dpsd.Budget(epsilon=10.0, delta=1e-6, adjacency="round"),
            out=Path(folder) / "run",
            recipe=dpsd.Recipe(rounds=2, queries=20_000, epochs=1.0, sources=("noise",)),
            observer=None,
        )


def main() -> None:
    """Time both, print one line."""
    secure, plain = SystemNoise(), PlainNoise()
    drawn: dict[str, list[float]] = {"secure": [], "plain": []}
    for _ in range(5):
        for name, source in (("secure", secure), ("plain", plain)):
            drawn[name].append(
                seconds(lambda source=source: source.discrete_gaussian((COUNT,), scale=SCALE))  # type: ignore[misc]
            )
    runs: dict[str, list[float]] = {"secure": [], "plain": []}
    for _ in range(2):
        for name, source in (("secure", secure), ("plain", plain)):
            runs[name].append(seconds(lambda source=source: whole_run(source)))  # type: ignore[misc]
    medians = {name: statistics.median(times) for name, times in drawn.items()}
    totals = {name: min(times) for name, times in runs.items()}
    print(
        json.dumps(
            {
                "million_draws_seconds": medians,
                "draws_ratio": medians["secure"] / medians["plain"],
                "run_seconds": totals,
                "run_ratio": totals["secure"] / totals["plain"],
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    explained(__doc__).parse_args()
    main()

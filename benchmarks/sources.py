"""How many images a second each source makes, beside how many the default student learns from.

    OMP_NUM_THREADS=1 python benchmarks/sources.py

A source that is slower than the student would double the time of a run that asks each image once
and learns from it once. Seconds are those of the processor, so work beside counts little.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from dpsd.devices.execution import Execution
from dpsd.models import build_classifier
from dpsd.synthesis.mixture import SOURCES, build_mixture
from dpsd.synthesis.names import MIXED
from dpsd.synthesis.public import Public
from dpsd.synthesis.sources import Source
from explaining import explained

STUDENTS = (("cnn", (1, 28, 28)), ("resnet8", (3, 32, 32)), ("resnet8", (3, 64, 64)))
BATCH = 256
IMAGES = 8 * BATCH


def main() -> None:
    """Print a line for each shape, each rate the best of three."""
    execution, random = Execution.of(), torch.Generator().manual_seed(0)
    for name, shape in STUDENTS:
        rates = {name: BATCH / _seconds(_training_step(execution, name, shape))}
        for source in _sources(shape):
            rates[source.name] = IMAGES / _seconds(
                lambda source=source: source.pixels(IMAGES, generator=random)  # type: ignore[misc]
            )
        shown = "  ".join(f"{what}: {rate:,.0f}" for what, rate in rates.items())
        print(f"{'x'.join(map(str, shape))}:  {shown}", flush=True)


def _sources(shape: tuple[int, int, int]) -> list[Source]:
    """Every source; the public images are a thousand of noise, as their content does not matter."""
    images = torch.randint(0, 256, (1000, *shape), dtype=torch.uint8)
    return [*build_mixture([*SOURCES, MIXED], shape).sources, Public(images)]


def _training_step(
    execution: Execution, name: str, shape: tuple[int, int, int]
) -> Callable[[], object]:
    """A step of the default student on one batch, forwards and backwards."""
    student = execution.place(build_classifier(name, input_shape=shape, num_classes=10, seed=0))
    optimizer = torch.optim.Adam(student.parameters(), fused=True)
    pixels = torch.randint(0, 256, (BATCH, *shape), dtype=torch.uint8)
    labels = torch.randint(0, 10, (BATCH,), device=execution.device)

    def step() -> None:
        logits = execution.logits(student, execution.images(pixels))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    step()  # the first one also chooses kernels
    return step


def _seconds(task: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        task()
        best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    explained(__doc__).parse_args()
    main()

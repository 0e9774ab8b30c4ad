"""How many images at once a model is fastest with, without gradients, on this machine.

    python benchmarks/batches.py

:func:`dpsd.devices.execution.forward_batch` says what the package takes.
"""

from __future__ import annotations

import time

import torch

from dpsd.devices.execution import Execution, forward_batch
from dpsd.models import build_classifier
from explaining import explained

MODELS = (
    ("cnn", (1, 28, 28), 8192),
    ("resnet8", (3, 32, 32), 2048),
    ("resnet8", (3, 64, 64), 512),
    ("resnet18", (3, 32, 32), 512),
    ("resnet50", (3, 224, 224), 48),
)
SIZES = (2, 8, 32, 64, 128, 256, 512, 1024, 2048)


def main() -> None:
    """Print images a second for each model and size, the best of three."""
    execution = Execution.of()
    for name, shape, count in MODELS:
        model = execution.place(
            build_classifier(name, input_shape=shape, num_classes=10, seed=0)
        ).eval()
        pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8)
        rates = {size: count / _seconds(execution, model, pixels, size) for size in SIZES}
        taken = forward_batch(shape, execution.device)
        shown = "  ".join(f"{size}: {rate:,.0f}" for size, rate in rates.items() if size <= count)
        print(f"{name} {'x'.join(map(str, shape))}, taken {taken}:  {shown}", flush=True)


def _seconds(
    execution: Execution, model: torch.nn.Module, pixels: torch.Tensor, size: int
) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        with torch.inference_mode():
            for part in torch.split(pixels, size):
                execution.logits(model, execution.images(part))
        if execution.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    explained(__doc__).parse_args()
    main()

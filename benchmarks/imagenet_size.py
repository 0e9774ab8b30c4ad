"""What a transcription costs at the size of ImageNet: 3x224x224 pixels, 1,000 classes.

A ResNet-50 teacher is transcribed into a ResNet-34 student, both with random weights: what is
measured is speed and memory, not what is learned. Each number of queries has a process of its own,
whose peak memory must not depend on that number: queries wait on disk. Prints one JSON object:
images a second of synthesis, teacher (privatisation included), student and generator, and the peak
memory in MB for each number of queries, beside that of a process which has loaded the models alone.
Needs no data; about five minutes on one idle core.

    python benchmarks/imagenet_size.py
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import resource
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch

import dpsd
from dpsd.benchmarks.phases import PhaseTimes
from dpsd.devices.execution import Execution
from dpsd.models import build_classifier
from explaining import explained

SHAPE, CLASSES = (3, 224, 224), 1000


def main() -> None:
    """Measure each number of queries in a fresh process, and print what was found."""
    parser = explained(__doc__)
    parser.add_argument("--queries", type=int, nargs="+", default=[64, 512], help="of each process")
    parser.add_argument("--student-steps", type=int, default=2, help="of training")
    parser.add_argument("--generator-steps", type=int, default=2, help="of training")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of queries")
    arguments = parser.parse_args()
    fresh = multiprocessing.get_context("spawn")
    measured = []
    for queries in arguments.queries:
        with fresh.Pool(1) as pool:
            measured.append(
                pool.apply(
                    measure,
                    (
                        queries,
                        arguments.student_steps,
                        arguments.generator_steps,
                        arguments.seed,
                    ),
                )
            )
    print(
        json.dumps(
            {
                "runs": measured,
                "shape": SHAPE,
                "classes": CLASSES,
                "seed": arguments.seed,
                "threads": torch.get_num_threads(),
                "precision": Execution.of().precision,
                "hardware": f"{platform.machine()}, torch {torch.__version__}",
                "date": date.today().isoformat(),
            }
        )
    )


def measure(queries: int, student_steps: int, generator_steps: int, seed: int) -> dict[str, Any]:
    """One run of two rounds, so that the second asks about the generator's images too."""
    module = build_classifier("resnet50", input_shape=SHAPE, num_classes=CLASSES, seed=seed + 1)
    teacher = dpsd.load_teacher(
        module, input_shape=SHAPE, scores="logits", precision=Execution.of().precision
    )
    recipe = dpsd.Recipe.suited_to(
        teacher,
        rounds=2,
        queries=queries,
        student_steps=student_steps,
        generator_steps=generator_steps,
        seed=seed,
    )
    observer = Quiet()
    before = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        run = dpsd.transcribe(
            teacher,
            mechanism=dpsd.RandomizedResponse(),
            budget=dpsd.Budget(epsilon=8.0, adjacency=dpsd.Adjacency.RESPONSE),
            out=Path(folder) / "run",
            student="resnet34",
            recipe=recipe,
            observer=observer,
        )
    images = {
        "synthesis": sum(line["queries"] for line in run.metrics),
        "teacher": run.certificate.events["teacher"],
        "student": recipe.rounds * student_steps * recipe.batch_size,
        "generator": recipe.rounds * generator_steps * recipe.generator_batch_size,
    }
    return {
        "queries": queries,
        "images_per_s": {
            part: round(count / observer.seconds[part], 2) for part, count in images.items()
        },
        "batch_size": recipe.batch_size,
        "loaded_mb": before,
        "peak_mb": peak_memory(),
    }


class Quiet(PhaseTimes):
    """Times the phases; random weights deserve the warnings that they cause."""

    def warn(self, message: str) -> None:
        """Say nothing."""


def peak_memory() -> int:
    """The most memory that this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()

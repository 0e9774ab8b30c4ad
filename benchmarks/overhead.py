"""What a transcription costs over the bare forward and backward passes that it cannot do without.

Runs a transcription of MNIST's shape, counts its passes, and then does just those passes in the
same process: the teacher's forward pass over every query, the student's over those of all rounds
but the first, the generator's over those it made, and the training steps of student and generator,
on fixed batches and with the simplest losses. The ratio of the two times is the overhead: synthesis
from public sources, privatisation, likelihoods, replay, files, syncing and the ledger. The noise of
a machine is as large as what is measured, so the median of several pairs counts. Needs no data.

The recipe is one that has stayed the same since the overhead is measured, so that figures compare.
With --defaults it is that of a plain run, which draws three images for each query, from more
sources; drawing them is not a pass, and counts as overhead.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --defaults
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import dpsd
from dpsd.benchmarks.phases import PhaseTimes
from dpsd.devices.execution import Execution, forward_batch, inference_batch
from dpsd.distillation.generator import latent
from dpsd.models import build_classifier, build_generator
from explaining import explained

SHAPE, CLASSES = (1, 28, 28), 10
DEFAULTS = dpsd.Recipe(rounds=3, queries=20_000)
COMPARABLE = dpsd.Recipe(
    rounds=3,
    queries=20_000,
    sources=("noise", "strokes", "silhouettes"),
    generator_share=0.6,
    selection=1.0,
)
PAIRS = 5


class Recorder(PhaseTimes):
    """Keeps every round's metrics, and the seconds and steps of each phase."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[dict[str, Any]] = []
        self.steps: dict[str, int] = {}

    def phase(self, name: str, *, total: int, round_index: int):  # type: ignore[no-untyped-def]
        """Count the steps that each phase announces."""
        if name in ("student", "generator"):
            self.steps[name] = self.steps.get(name, 0) + total
        return lambda _: None

    def round_finished(self, metrics: dict[str, Any]) -> None:
        """Keep them."""
        self.metrics.append(metrics)


def main() -> None:
    """Measure pairs of the whole and the bare passes, and print their ratios."""
    parser = explained(__doc__)
    parser.add_argument("--defaults", action="store_true", help="measure the recipe of a plain run")
    recipe = DEFAULTS if parser.parse_args().defaults else COMPARABLE
    execution = Execution.of()
    teacher_module = build_classifier("cnn", input_shape=SHAPE, num_classes=CLASSES, seed=1)
    teacher = dpsd.load_teacher(
        teacher_module, input_shape=SHAPE, scores="logits", precision=execution.precision
    )
    # What a process imports once, some four seconds of it, is not what a query or a step costs.
    transcribed(teacher, dpsd.Recipe(rounds=1, queries=300, generator_steps=1), dpsd.Observer())
    ratios = []
    for number in range(1, PAIRS + 1):
        pair = measured(teacher, recipe, execution)
        ratios.append(pair["ratio"])
        print(json.dumps({"pair": number, **pair}), flush=True)
    facts = {"threads": torch.get_num_threads(), "precision": execution.precision}
    print(json.dumps({"median_ratio": statistics.median(ratios), "pairs": PAIRS, **facts}))


def measured(teacher: dpsd.Teacher, recipe: dpsd.Recipe, execution: Execution) -> dict[str, Any]:
    """One run and its bare passes."""
    recorder = Recorder()
    start = time.perf_counter()
    run = transcribed(teacher, recipe, recorder)
    whole = time.perf_counter() - start
    queries = run.certificate.events["teacher"]
    generated = sum(line["sources"]["generator"] for line in recorder.metrics)
    predicted = sum(line["queries"] for line in recorder.metrics[1:])  # a first round is guessed
    passes = bare_passes(execution, recipe, queries, predicted, generated, recorder.steps)
    bare = sum(passes.values())
    parts = recorder.seconds
    total = sum(parts.values())
    images = recipe.batch_size * recorder.steps["student"]
    return {
        "whole_s": round(whole, 2),
        "bare_s": round(bare, 2),
        "ratio": round(whole / bare, 3),
        "share": {part: round(seconds / total, 3) for part, seconds in parts.items()},
        # What each part takes beyond its passes, as a share of all passes.
        "beyond": {part: round((parts[part] - passes[part]) / bare, 3) for part in passes},
        "student_images_per_s": round(images / parts["student"]),
        "teacher_images_per_s": round(queries / parts["teacher"]),
    }


def transcribed(teacher: dpsd.Teacher, recipe: dpsd.Recipe, observer: dpsd.Observer) -> dpsd.Run:
    """A run of which only the figures are kept."""
    with tempfile.TemporaryDirectory() as folder:
        return dpsd.transcribe(
            teacher,
            mechanism=dpsd.RandomizedResponse(),
            budget=dpsd.Budget(epsilon=1.0, adjacency=dpsd.Adjacency.RESPONSE),
            out=Path(folder) / "run",
            recipe=recipe,
            observer=observer,
        )


def bare_passes(
    execution: Execution,
    recipe: dpsd.Recipe,
    queries: int,
    predicted: int,
    generated: int,
    steps: dict[str, int],
) -> dict[str, float]:
    """Seconds of the passes alone, by the part of a run that they belong to."""
    teacher, student = (
        execution.place(build_classifier("cnn", input_shape=SHAPE, num_classes=CLASSES, seed=seed))
        for seed in (1, 2)
    )
    generator = execution.place(build_generator(input_shape=SHAPE, seed=3))
    size = inference_batch(SHAPE)
    images = execution.images(torch.rand(size, *SHAPE))
    labels = torch.zeros(recipe.batch_size, dtype=torch.long, device=execution.device)
    random = torch.Generator().manual_seed(0)

    def forward(module: torch.nn.Module, inputs: torch.Tensor, count: int) -> None:
        size = len(inputs)
        with torch.inference_mode(), execution.autocast():
            for _ in range(count // size):
                module(inputs)
            if count % size:
                module(inputs[: count % size])

    def train(module: torch.nn.Module, make: Any, count: int) -> None:
        optimizer = torch.optim.Adam(module.parameters(), fused=True)
        for _ in range(count):
            with execution.autocast():
                logits = make()
            loss = F.cross_entropy(logits.float(), labels[: len(logits)])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()

    noise = latent(generator, size, random).to(execution.device)
    few = images[: recipe.batch_size]
    some = noise[: recipe.generator_batch_size]
    cached = images[: forward_batch(SHAPE, execution.device)]
    seconds: dict[str, float] = {}

    def timed(part: str, work: Callable[[], None]) -> None:
        start = time.perf_counter()
        work()
        if execution.device.type == "cuda":
            torch.cuda.synchronize()
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start

    timed("teacher", lambda: forward(teacher.eval(), cached, queries))
    timed("synthesis", lambda: forward(student.eval(), cached, predicted))
    timed("synthesis", lambda: forward(generator, noise, generated))
    timed("student", lambda: train(student.train(), lambda: student(few), steps["student"]))
    student.eval().requires_grad_(False)
    timed(
        "generator", lambda: train(generator, lambda: student(generator(some)), steps["generator"])
    )
    return seconds


if __name__ == "__main__":
    main()

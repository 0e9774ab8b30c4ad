"""What a transcription costs over the bare forward and backward passes that it cannot do without.

Runs a transcription of MNIST's shape, counts its passes, and then does just those passes in the
same process: the teacher's forward pass over every query, the student's over those of all rounds
but the first, the generator's over those it made, and the training steps of student and generator,
on fixed batches and with the simplest losses. The ratio of the two times is the overhead: synthesis
from public sources, privatisation, likelihoods, replay, files, syncing and the ledger. The noise of
a machine is as large as what is measured, so the median of several pairs counts. Needs no data.

    python benchmarks/overhead.py
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import dpsd
from dpsd.benchmarks.phases import PhaseTimes
from dpsd.devices.execution import Execution, forward_batch, inference_batch
from dpsd.distillation.generator import latent
from dpsd.models import build_classifier, build_generator

SHAPE, CLASSES = (1, 28, 28), 10
RECIPE = dpsd.Recipe(rounds=3, queries=20_000)
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
    execution = Execution.of()
    teacher_module = build_classifier("cnn", input_shape=SHAPE, num_classes=CLASSES, seed=1)
    teacher = dpsd.load_teacher(
        teacher_module, input_shape=SHAPE, scores="logits", precision=execution.precision
    )
    # What a process imports once, some four seconds of it, is not what a query or a step costs.
    transcribed(teacher, dpsd.Recipe(rounds=1, queries=300, generator_steps=1), dpsd.Observer())
    ratios = []
    for number in range(1, PAIRS + 1):
        pair = measured(teacher, execution)
        ratios.append(pair["ratio"])
        print(json.dumps({"pair": number, **pair}), flush=True)
    facts = {"threads": torch.get_num_threads(), "precision": execution.precision}
    print(json.dumps({"median_ratio": statistics.median(ratios), "pairs": PAIRS, **facts}))


def measured(teacher: dpsd.Teacher, execution: Execution) -> dict[str, Any]:
    """One run and its bare passes."""
    recorder = Recorder()
    start = time.perf_counter()
    run = transcribed(teacher, RECIPE, recorder)
    whole = time.perf_counter() - start
    queries = run.certificate.events["teacher"]
    generated = sum(line["sources"]["generator"] for line in recorder.metrics)
    predicted = sum(line["queries"] for line in recorder.metrics[1:])  # a first round is guessed
    bare = bare_passes(execution, queries, predicted, generated, recorder.steps)
    parts = recorder.seconds
    total = sum(parts.values())
    images = RECIPE.batch_size * recorder.steps["student"]
    return {
        "whole_s": round(whole, 2),
        "bare_s": round(bare, 2),
        "ratio": round(whole / bare, 3),
        "share": {part: round(seconds / total, 3) for part, seconds in parts.items()},
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
    execution: Execution, queries: int, predicted: int, generated: int, steps: dict[str, int]
) -> float:
    """Seconds of the passes alone."""
    teacher, student = (
        execution.place(build_classifier("cnn", input_shape=SHAPE, num_classes=CLASSES, seed=seed))
        for seed in (1, 2)
    )
    generator = execution.place(build_generator(input_shape=SHAPE, seed=3))
    size = inference_batch(SHAPE)
    images = execution.images(torch.rand(size, *SHAPE))
    labels = torch.zeros(RECIPE.batch_size, dtype=torch.long, device=execution.device)
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
    few = images[: RECIPE.batch_size]
    some = noise[: RECIPE.generator_batch_size]
    cached = images[: forward_batch(SHAPE, execution.device)]
    start = time.perf_counter()
    forward(teacher.eval(), cached, queries)
    forward(student.eval(), cached, predicted)
    forward(generator, noise, generated)
    train(student.train(), lambda: student(few), steps["student"])
    student.eval().requires_grad_(False)
    train(generator, lambda: student(generator(some)), steps["generator"])
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

"""The main job on real data: handwritten digits, a teacher, and two private students.

The digits ship with scikit-learn. A teacher is trained on 60 % of them, the private part; dpsd
transcribes it once under label protection and once under data protection, without that part; both
students are measured on the rest. Run it with ``make demo``; it takes about two minutes.
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import dpsd
from dpsd.cli.progress import ProgressObserver
from dpsd.datasets import load_dataset
from dpsd.evaluation import evaluate
from dpsd.privacy.certificate import ADJACENCY_MEANINGS, format_epsilon
from dpsd.teachers.training import train_teacher

OUT = Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")

#: Under `response` rounds cost nothing, so there are many short ones. Under `round` every round
#: costs, so there are few of many queries, and ε has to be larger: images of 8x8 pixels say little.
PROTECTIONS = {
    "labels": (
        dpsd.RandomizedResponse(),
        dpsd.Budget(epsilon=2.0, delta=1e-5, adjacency=dpsd.Adjacency.RESPONSE),
        dpsd.Recipe(rounds=16, queries=10_000, first_queries=16_000, generator_steps=50),
    ),
    "data": (
        dpsd.Gaussian(),
        dpsd.Budget(epsilon=20.0, delta=1e-6, adjacency=dpsd.Adjacency.ROUND),
        dpsd.Recipe(
            rounds=6,
            queries=30_000,
            sources=("noise", "silhouettes", "crops"),
            generator_steps=100,
        ),
    ),
}


def main() -> None:
    """Train, transcribe twice, measure, and say what was bought."""
    console = Console()
    private, rest = load_dataset("digits", "train"), load_dataset("digits", "test")
    console.print(
        f"[bold]Teacher[/bold]: trained on {len(private)} real digits that stay private; "
        f"{len(rest)} others are for measuring only."
    )
    module = train_teacher(private, model="cnn", seed=0)
    teacher = dpsd.load_teacher(
        module, input_shape=private.input_shape, num_classes=private.num_classes, scores="logits"
    )
    columns: dict[str, list[str]] = {}
    for protect, (mechanism, budget, recipe) in PROTECTIONS.items():
        console.print(
            f"\n[bold]{protect}[/bold]: ε = {budget.epsilon:g} under `{budget.adjacency.value}` "
            f"({ADJACENCY_MEANINGS[budget.adjacency]}), δ = {budget.delta:g}"
        )
        start = time.perf_counter()
        with ProgressObserver(rounds=recipe.rounds) as observer:
            run = dpsd.transcribe(
                teacher,
                mechanism=mechanism,
                budget=budget,
                out=OUT / protect,
                recipe=recipe,
                observer=observer,
            )
        seconds = time.perf_counter() - start
        measured = evaluate(run.directory, rest, teacher=teacher)
        spent = run.certificate.spent
        columns[protect] = [
            f"{measured.teacher_accuracy:.1%}",
            f"{measured.student_accuracy:.1%}",
            f"{measured.agreement:.1%}",
            *(format_epsilon(spent.under(adjacency)) for adjacency in dpsd.Adjacency),
            f"{run.certificate.events['teacher']:,}",
            f"{seconds:.0f}",
        ]
    console.print()
    console.print(summary(columns))
    console.print(run.certificate.limits, style="dim")
    console.print(f"\nPictures, reports and certificates: {OUT}/*/")


def summary(columns: dict[str, list[str]]) -> Table:
    """The two runs side by side."""
    table = Table(title="Digits, from privatised answers to synthetic queries alone")
    table.add_column("")
    for protect in columns:
        table.add_column(f"protecting {protect}", justify="right")
    names = ["teacher's accuracy", "student's accuracy", "agreement of the two"]
    names += [f"ε under `{adjacency.value}`" for adjacency in dpsd.Adjacency]
    for name, *cells in zip([*names, "answers", "seconds"], *columns.values(), strict=True):
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    main()

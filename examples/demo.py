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

#: What differs between the two protections. Under `round`, every round costs, so few rounds of
#: many queries; the numbers of queries themselves cost nothing there.
PROTECTIONS = {
    "labels": (
        dpsd.RandomizedResponse(),
        dpsd.Budget(epsilon=1.0, delta=1e-5, adjacency=dpsd.Adjacency.RESPONSE),
        dpsd.Recipe(rounds=5, queries=8_000, first_queries=24_000),
    ),
    "data": (
        dpsd.Gaussian(),
        dpsd.Budget(epsilon=10.0, delta=1e-5, adjacency=dpsd.Adjacency.ROUND),
        dpsd.Recipe(rounds=3, queries=12_000, first_queries=24_000),
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
    table = Table(title="Digits, from privatised answers to synthetic queries alone")
    for column in ("protect", "teacher", "student", "agreement", *dpsd.Adjacency, "queries", "s"):
        is_epsilon = isinstance(column, dpsd.Adjacency)
        table.add_column(f"ε {column.value}" if is_epsilon else str(column), justify="right")
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
        table.add_row(
            protect,
            f"{measured.teacher_accuracy:.1%}",
            f"{measured.student_accuracy:.1%}",
            f"{measured.agreement:.1%}",
            *(format_epsilon(spent.under(adjacency)) for adjacency in dpsd.Adjacency),
            f"{run.certificate.events['teacher']:,}",
            f"{seconds:.0f}",
        )
    console.print()
    console.print(table)
    console.print(run.certificate.limits, style="dim")
    console.print(f"\nPictures, reports and certificates: {OUT}/*/")


if __name__ == "__main__":
    main()

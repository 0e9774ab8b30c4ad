"""The main job on real data: handwritten digits, a teacher, and private students.

The digits ship with scikit-learn. A teacher is trained on 60 % of them, the private part; dpsd
transcribes it once under label protection and once under data protection, without that part. Then
many small teachers are trained on disjoint shards of it, and their noisy votes are transcribed, so
that ε protects a record of the data. All students are measured on the rest. Run it with
``make demo``; it takes some two and a half minutes.
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import dpsd
from dpsd.cli.progress import ProgressObserver
from dpsd.datasets import LabelledImages, load_dataset
from dpsd.evaluation import evaluate
from dpsd.privacy.accounting import format_epsilon
from dpsd.teachers import Teacher, TeacherRecord, save_teacher
from dpsd.teachers.ensemble_training import train_ensemble
from dpsd.teachers.sharding import Shards
from dpsd.teachers.training import train_teacher

OUT = Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")

#: Record-level: many teachers of seven records each, and few answers. A thousand images of 8x8
#: pixels are little to learn from twice, so the student is middling: with more data, it gets better
#: fast.
TEACHERS = 150
ENSEMBLE_BUDGET = dpsd.Budget(epsilon=10.0, delta=1e-5, adjacency=dpsd.Adjacency.TEACHER)
ENSEMBLE_RECIPE = {"queries": 2_000, "student_steps": 800, "generator_steps": 60}

#: The more various the queries, the better.
SOURCES = ("noise", "strokes", "silhouettes", "crops")

#: Under `response` rounds cost nothing, so there are many short ones. Under `round` every round
#: costs, so there are few, of many queries.
PROTECTIONS = {
    "labels": (
        dpsd.RandomizedResponse(),
        dpsd.Budget(epsilon=2.0, delta=1e-5, adjacency=dpsd.Adjacency.RESPONSE),
        dpsd.Recipe(
            rounds=16,
            queries=10_000,
            first_queries=16_000,
            sources=SOURCES,
            generator_steps=50,
        ),
    ),
    "data": (
        dpsd.Gaussian(),
        dpsd.Budget(epsilon=10.0, delta=1e-6, adjacency=dpsd.Adjacency.ROUND),
        dpsd.Recipe(rounds=3, queries=60_000, sources=SOURCES, generator_steps=100),
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
    limits: list[str] = []

    def play(
        title: str,
        asked: Teacher,
        mechanism: dpsd.Mechanism,
        budget: dpsd.Budget,
        recipe: dpsd.Recipe,
    ) -> None:
        console.print(
            f"\n[bold]{title}[/bold]: ε = {budget.epsilon:g} under `{budget.adjacency.value}`, "
            f"δ = {budget.delta:g}; {asked.description}"
        )
        start = time.perf_counter()
        with ProgressObserver(rounds=recipe.rounds) as observer:
            run = dpsd.transcribe(
                asked,
                mechanism=mechanism,
                budget=budget,
                out=OUT / title,
                budget_file=OUT / "budget.jsonl",
                recipe=recipe,
                observer=observer,
            )
        seconds = time.perf_counter() - start
        measured = evaluate(run.directory, rest, teacher=asked)
        spent = run.certificate.spent
        limits.append(run.certificate.limits)
        columns[title] = [
            str(asked.members),
            f"{measured.teacher_accuracy:.1%}",
            f"{measured.student_accuracy:.1%}",
            f"{measured.agreement:.1%}",
            *(format_epsilon(spent.under(adjacency)) for adjacency in dpsd.Adjacency),
            "a record" if asked.members > 1 else "an answer",
            f"{run.certificate.events['teacher']:,}",
            f"{seconds:.0f}",
        ]

    for protect, (mechanism, budget, recipe) in PROTECTIONS.items():
        play(protect, teacher, mechanism, budget, recipe)
    many = ensemble(private)
    recipe = dpsd.Recipe.suited_to(many, **ENSEMBLE_RECIPE)
    play("records", many, dpsd.NoisyVotes(), ENSEMBLE_BUDGET, recipe)
    console.print()
    console.print(summary(columns))
    for text in dict.fromkeys(limits):
        console.print(text, style="dim")
    console.print(f"\nPictures, reports and certificates: {OUT}/*/")


def ensemble(private: LabelledImages) -> Teacher:
    """Small teachers on disjoint shards of the private part, stored and loaded as a user's are."""
    shards = Shards.assign(private, teachers=TEACHERS, seed=0)
    path = OUT / "teachers"
    path.mkdir(parents=True)
    shards.save(path)
    record = TeacherRecord(
        model="scattering",
        input_shape=private.input_shape,
        num_classes=private.num_classes,
        members=TEACHERS,
        data=private.name,
    )
    return dpsd.load_teacher(save_teacher(path, train_ensemble(private, shards), record))


def summary(columns: dict[str, list[str]]) -> Table:
    """The runs side by side."""
    table = Table(title="Digits, from privatised answers to synthetic queries alone")
    table.add_column("")
    for protect in columns:
        table.add_column(f"protecting {protect}", justify="right")
    names = [
        "teachers",
        "accuracy of the teacher, or of most",
        "student's accuracy",
        "agreement of the two",
    ]
    names += [f"ε under `{adjacency.value}`" for adjacency in dpsd.Adjacency]
    for name, *cells in zip(
        [*names, "which protects", "queries", "seconds"], *columns.values(), strict=True
    ):
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    main()

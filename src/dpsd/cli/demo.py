"""``dpsd demo``: shows the whole process on real data, from a teacher to private students.

The digits ship with scikit-learn, so nothing is downloaded. A teacher is trained on 60 % of them,
the private part; dpsd transcribes the teacher once with labels protected and once with data
protected, without using the private part. Then many small teachers are trained on disjoint shards
of the private part, and their noisy votes are transcribed, so that ε protects a record of the data.
All students are measured on the rest of the digits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpsd.cli.console import grid, say, show, shown_warnings
from dpsd.errors import ConfigError
from dpsd.shell import command_line

if TYPE_CHECKING:
    from rich.table import Table

    from dpsd.config.recipe import Recipe
    from dpsd.datasets import LabelledImages
    from dpsd.privacy.mechanisms import Mechanism
    from dpsd.privacy.targets import Budget
    from dpsd.results.evaluation import Evaluation
    from dpsd.runs.directory import Run
    from dpsd.teachers import Teacher, TeacherRecord
    from dpsd.teachers.base import Precision
    from dpsd.training.classifier import TrainingProgress

#: The public sources of queries. The defaults of a run suit more kinds of images, and take
#: longer.
_SOURCES = ("noise", "strokes", "silhouettes", "crops")

#: The number of small teachers for record-level protection, trained on seven records each.
_MANY = 150


@dataclass(frozen=True)
class _Scene:
    """One transcription of the demo: what is protected, by which mechanism and budget."""

    protects: str
    asked: Teacher
    mechanism: Mechanism
    budget: Budget
    recipe: Recipe


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            help="The directory to write to, which must be new or empty.",
            show_default="runs/demo-DATE-TIME",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Do a small part of the work, in half a minute. Every ε stays the same, but the "
            "students learn little.",
        ),
    ] = False,
) -> None:
    """Show the whole process on handwritten digits that come with dpsd, in about three minutes.

    Three transcriptions are made: one of a teacher with labels protected, one of it with data
    protected, and one of many small teachers with each training record protected. The students are
    measured and compared, and all runs are kept, with their certificates, pictures and budget.

    Example: dpsd demo --quick

    The flags to know first are --quick, for half a minute's work, and --out, where to write.
    """
    out = out or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} already exists and is not empty: give another --out")
    with shown_warnings():
        _play(out, quick=quick)


def _play(out: Path, *, quick: bool) -> None:
    """Train, transcribe three times, measure, and say what was spent and learned."""
    from dpsd.datasets import load_dataset
    from dpsd.results.evaluation import evaluate
    from dpsd.storage.files import write_text

    private, rest = load_dataset("digits", "train"), load_dataset("digits", "test")
    say(
        f"Teacher: trained on {len(private):,} real digits that stay private; {len(rest):,} others "
        "are used for measuring only."
    )
    teacher = _teacher(private, out / "teacher", epochs=10 if quick else None)
    many = _ensemble(private, out / "teachers")
    columns: dict[str, list[str]] = {}
    limits: list[str] = []
    measured: list[tuple[Run, Evaluation]] = []
    for scene in _scenes(teacher, many, quick=quick):
        say()
        say(
            f"Protecting {scene.protects}: ε = {scene.budget.epsilon:g} under "
            f"{scene.budget.adjacency.value}, δ = {scene.budget.delta:g}; "
            f"{scene.asked.description}"
        )
        started = time.perf_counter()
        run = _transcribed(scene, out)
        seconds = time.perf_counter() - started
        measured.append((run, evaluate(run.directory, rest, teacher=scene.asked)))
        columns[scene.protects] = _column(scene, *measured[-1], seconds)
        limits.append(run.certificate.limits)
    say()
    say("Digits, from privatised answers to synthetic queries alone", style="bold")
    show(_summary(columns))
    if quick:
        say(
            "These students learned little because of --quick. Without it, the demo takes about "
            "three minutes."
        )
    for text in dict.fromkeys(limits):
        say()
        say(text, style="dim")
    write_text(out / "report.html", _page(measured))
    say(f"\nAll of this on one page, with pictures: {out / 'report.html'}")
    say(f"Pictures, reports and certificates of each run are in {out}. For example:")
    say(f"  {command_line('dpsd', 'certify', out / 'records')}")


def _scenes(teacher: Teacher, many: Teacher, *, quick: bool) -> list[_Scene]:
    """The three transcriptions; with ``quick``, of fewer queries and fewer training steps."""
    import dpsd

    # Under `response`, rounds cost nothing, so there are many short ones. Under `round`, every
    # round costs, so there are few, with many queries each.
    labels = {"rounds": 16, "queries": 10_000, "first_queries": 16_000, "generator_steps": 50}
    data = {"rounds": 3, "queries": 60_000, "generator_steps": 100}
    # A thousand images of 8x8 pixels are few for both teachers and student, so this student is only
    # middling; with more data, it improves fast.
    records = {"queries": 2_000, "student_steps": 800, "generator_steps": 60}
    if quick:
        labels |= {"rounds": 2, "queries": 2_000, "first_queries": 4_000, "generator_steps": 10}
        data |= {"rounds": 1, "queries": 8_000, "generator_steps": 10}
        records |= {"student_steps": 100, "generator_steps": 10}

    def recipe(settings: dict[str, Any]) -> Recipe:
        return dpsd.Recipe(sources=_SOURCES, generator_share=0.6, selection=1.0, **settings)

    def budget(epsilon: float, delta: float, adjacency: str) -> Budget:
        return dpsd.Budget(epsilon=epsilon, delta=delta, adjacency=dpsd.Adjacency(adjacency))

    one_answer, one_a_round = budget(2.0, 1e-5, "response"), budget(10.0, 1e-6, "round")
    a_record = budget(10.0, 1e-5, "teacher")
    few = dpsd.Recipe.suited_to(many, **records)
    return [
        _Scene("labels", teacher, dpsd.RandomizedResponse(), one_answer, recipe(labels)),
        _Scene("data", teacher, dpsd.Gaussian(), one_a_round, recipe(data)),
        _Scene("records", many, dpsd.NoisyVotes(), a_record, few),
    ]


def _teacher(private: LabelledImages, path: Path, *, epochs: int | None) -> Teacher:
    """Train one teacher on all records, then store and load it as a user's would be."""
    from dpsd.teachers import load_teacher, save_teacher
    from dpsd.training.classifier import train_teacher

    done = 0

    def count(at: TrainingProgress) -> None:
        nonlocal done
        done = at.epoch

    precision: Precision = "bfloat16"
    module = train_teacher(
        private, model="cnn", seed=0, epochs=epochs, precision=precision, on_epoch=count
    )
    record = replace(_record("cnn", private), precision=precision, epochs=done)
    return load_teacher(save_teacher(path, module, record))


def _ensemble(private: LabelledImages, path: Path) -> Teacher:
    """Train small teachers on disjoint shards, then store and load them as a user's would be."""
    from dpsd.teachers import load_teacher, save_teacher
    from dpsd.teachers.sharding import Shards
    from dpsd.training.ensemble import train_ensemble

    shards = Shards.assign(private, teachers=_MANY, seed=0)
    path.mkdir(parents=True)
    shards.save(path)
    record = replace(_record("scattering", private), members=_MANY)
    return load_teacher(save_teacher(path, train_ensemble(private, shards), record))


def _record(model: str, private: LabelledImages) -> TeacherRecord:
    """What is on record of a teacher, by which the runs are attacked and made again."""
    from dpsd.datasets.sameness import place_of
    from dpsd.teachers import TeacherRecord

    return TeacherRecord(
        model=model,
        input_shape=private.input_shape,
        num_classes=private.num_classes,
        class_names=private.class_names,
        data=private.name,
        data_place=str(place_of(private.name)),
        seed=0,
    )


def _transcribed(scene: _Scene, out: Path) -> Run:
    import dpsd
    from dpsd.cli.progress import ProgressObserver

    with ProgressObserver(rounds=scene.recipe.rounds) as observer:
        return dpsd.transcribe(
            scene.asked,
            mechanism=scene.mechanism,
            budget=scene.budget,
            out=out / scene.protects,
            budget_file=out / "budget.jsonl",
            recipe=scene.recipe,
            observer=observer,
        )


def _page(measured: list[tuple[Run, Evaluation]]) -> str:
    """The report of all runs side by side."""
    from dpsd.reporting.report import Report
    from dpsd.reporting.sections import Subject

    subjects = [
        Subject(
            run=run.directory,
            certificate=run.certificate,
            number=number,
            evaluations=[found.to_dict()],
        )
        for number, (run, found) in enumerate(measured, start=1)
    ]
    return Report(subjects=subjects).html()


def _column(scene: _Scene, run: Run, measured: Evaluation, seconds: float) -> list[str]:
    """The results of a run, in the order of :func:`_summary`'s rows."""
    import dpsd
    from dpsd.privacy.accounting import format_epsilon

    return [
        f"{scene.asked.members}",
        f"{measured.teacher_accuracy:.1%}",
        f"{measured.student_accuracy:.1%}",
        f"{measured.agreement:.1%}",
        *(format_epsilon(run.certificate.spent.under(kind)) for kind in dpsd.Adjacency),
        "a record" if scene.asked.members > 1 else "an answer",
        f"{run.certificate.events['teacher']:,}",
        f"{seconds:.0f}",
    ]


def _summary(columns: dict[str, list[str]]) -> Table:
    """A table of the runs side by side."""
    import dpsd

    titles = [f"protecting {protects}" for protects in columns]
    table = grid("", *titles, right=tuple(titles))
    names = [
        "teachers",
        "accuracy of the teacher, or of most",
        "student's accuracy",
        "agreement of the two",
        *(f"ε under {kind.value}" for kind in dpsd.Adjacency),
        "the calibrated ε protects",
        "queries",
        "seconds",
    ]
    for name, *cells in zip(names, *columns.values(), strict=True):
        table.add_row(name, *cells)
    return table

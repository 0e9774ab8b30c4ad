"""``dpsd train-teacher``: the ordinary, unprotected training of the teachers to transcribe."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpsd.cli.choices import Words
from dpsd.cli.console import say, shown_warnings
from dpsd.cli.declaring import (
    RULE_HELP,
    Channels,
    Classes,
    Range,
    Share,
    Size,
    declared_by,
)
from dpsd.datasets import check_dataset, settled_in_full
from dpsd.datasets import data_root as default_root
from dpsd.errors import ConfigError
from dpsd.models.names import CLOSED_FORM, check_features, check_model
from dpsd.shell import command_line
from dpsd.teachers.kinds import BUDGET_FILE
from dpsd.teachers.record import DESCRIPTION_FILE

if TYPE_CHECKING:
    from dpsd.datasets import LabelledImages
    from dpsd.images.names import Shape
    from dpsd.teachers.backbones import Backbone
    from dpsd.teachers.record import TeacherRecord
    from dpsd.teachers.sharding import Shards
    from dpsd.training.classifier import TrainingProgress


def train_teacher(
    data: Annotated[str, typer.Option(help="The data set, as `dpsd data list` names it.")],
    out: Annotated[Path, typer.Option(help="The directory to write the teacher to.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="The architecture, as `dpsd models` names it.",
            show_default="cnn, and scattering for shards",
        ),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Train this number of small teachers, each on its own shard of the data, so that "
            "`transcribe --adjacency teacher` protects every record. The more teachers, the less "
            "each answer costs, and the less each teacher knows. The images' shape and the classes "
            "must not be read off the data: the data set's name fixes them, or --size, --channels "
            "and --classes declare them.",
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="With --shards: assign records to shards by person instead of one by one, so that "
            "epsilon protects all records of a person. With --validation-share: hold out persons. "
            f"{RULE_HELP}",
        ),
    ] = None,
    validation_share: Share = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="With --shards: frozen public features that teachers are linear on: glyphs (for "
            "written characters) or cifar100 (for natural images), which dpsd trains once on "
            "public images, for minutes; a .pt2 or .onnx file; package.module:factory. They must "
            "know nothing of the private data, as epsilon does not cover it.",
            show_default="wavelets",
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Distorted copies of each record that the teacher of its shard is also trained "
            "on; for scattering teachers only.",
            show_default="8",
        ),
    ] = None,
    drop_duplicates: Annotated[
        bool,
        typer.Option(
            "--drop-duplicates",
            help="Keep only one of several identical records, which no two shards may share.",
        ),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over the data.", show_default="about 3,000 steps"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="The most images per step.")] = 256,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 4e-3,
    seed: Annotated[
        int, typer.Option(help="Seed of the initial weights and of the order of the data.")
    ] = 0,
    device: Annotated[
        str, typer.Option(help="Where to train: auto, cpu, cuda, cuda:1, mps.")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            click_type=Words(["auto", "float32", "bfloat16"]),
            help="Precision of the training; bfloat16 uses autocast.",
        ),
    ] = "auto",
    data_root: Annotated[
        Path | None, typer.Option(help="The folder of data sets.", show_default="DPSD_DATA")
    ] = None,
    size: Size = None,
    channels: Channels = None,
    classes: Classes = None,
    value_range: Range = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing teacher.")] = False,
) -> None:
    """Train a teacher, or many on disjoint shards, on private data, without any protection.

    Example: dpsd train-teacher --data digits --out teacher

    The flags to know first are --data, --out, and --shards for many small teachers, whose
    transcription can protect every training record.
    """
    if (out / DESCRIPTION_FILE).exists() and not force:
        raise ConfigError(f"{out} already holds a teacher: give another --out, or --force")
    if (out / BUDGET_FILE).exists():
        # The new teacher's budget would start empty, although its data have been asked about.
        raise ConfigError(
            f"{out} has a budget, {out / BUDGET_FILE}, of what its teacher's data have spent; a "
            "new teacher of the same data would not be charged for it. Give another --out, or move "
            "that file away if the data are different"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is not a directory: give another --out")
    if views is not None and (shards is None or model not in (None, CLOSED_FORM)):
        raise ConfigError(
            f"--views {views} applies to many {CLOSED_FORM} teachers only: give --shards, and no "
            "other --model"
        )
    if features is not None:
        if shards is None:
            raise ConfigError(f"--features {features} applies to many teachers only: give --shards")
        check_features(features, model=model or CLOSED_FORM)
    if group_by is not None and shards is None and not validation_share:
        raise ConfigError(
            f"--group-by {group_by} applies to many teachers and to what is held out: give "
            "--shards or --validation-share too"
        )
    check_dataset(data)
    if model is not None:
        check_model(model)
    declared = declared_by(size, channels, classes, value_range)
    if shards is not None:
        declared = settled_in_full(data, declared)

    from dpsd.cli.progress import training_bars, training_lines
    from dpsd.datasets import load_dataset, load_training
    from dpsd.datasets.sameness import place_of
    from dpsd.devices.execution import Execution
    from dpsd.teachers import TeacherRecord, save_teacher
    from dpsd.teachers.sharding import Shards, distinct_rows
    from dpsd.training.classifier import evaluate_accuracy
    from dpsd.training.classifier import train_teacher as train

    execution = Execution.of(device, precision)  # type: ignore[arg-type]
    root = data_root or default_root()
    with shown_warnings():
        # The test split is small, so that a fault in it is told before the other is read.
        testing = load_dataset(data, "test", root=root, declared=declared)
        training, validation = load_training(
            data,
            root=root,
            declared=declared,
            validation_share=validation_share or 0.0,
            group_by=group_by,
        )
    if validation is not None:
        say(_held_out(validation))
    about = TeacherRecord(
        model=model or ("cnn" if shards is None else CLOSED_FORM),
        input_shape=training.input_shape,
        num_classes=training.num_classes,
        class_names=training.class_names,
        data=data,
        data_place=str(place_of(data, root=root)),
        value_range=declared.value_range,
        validation_share=training.validation_share,
        group_by=group_by,
        precision=execution.precision,
        seed=seed,
    )
    if shards is not None:
        dealt = Shards.assign(
            training,
            teachers=shards,
            seed=seed,
            persons=training.persons,
            drop_duplicates=drop_duplicates,
        )
        _say_dropped(dealt.records, len(training))
        _train_ensemble(
            training,
            dealt,
            testing,
            validation,
            about=replace(about, members=shards),
            backbone=_backbone(features, training.input_shape, root),
            out=out,
            views=views,
            seed=seed,
            settings={
                "epochs": epochs,
                "batch_size": batch_size,
                "learning_rate": learning_rate,
                "device": str(execution.device),
                "precision": execution.precision,
            },
        )
        return
    if drop_duplicates:
        kept = distinct_rows(training.images)
        _say_dropped(len(kept), len(training))
        training = training.subset(kept)
    started = time.monotonic()
    done = 0
    tell = training_lines(f"{about.model} on {data}", "epochs")
    with training_bars() as progress:
        task = progress.add_task(f"{about.model} on {data}", total=epochs, state="first epoch")

        def advance(at: TrainingProgress) -> None:
            nonlocal done
            done = at.epoch
            rate = at.epoch * len(training) / at.seconds
            state = f"epoch {at.epoch}/{at.epochs}  loss {at.loss:.3f}  {rate:,.0f} images/s"
            progress.update(task, completed=at.epoch, total=at.epochs, state=state)
            tell(at.epoch, at.epochs)

        module = train(
            training,
            model=about.model,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            device=str(execution.device),
            precision=execution.precision,
            on_epoch=advance,
        )
    seconds = time.monotonic() - started
    accuracies = [
        None if part is None else evaluate_accuracy(module, part, precision=execution.precision)
        for part in (testing, validation)
    ]
    record = replace(
        about,
        accuracy=accuracies[0],
        validation_accuracy=accuracies[1],
        epochs=done,
        seconds=round(seconds, 1),
    )
    save_teacher(out, module, record)
    say(f"{_measured(record, testing, validation)}, after {seconds:.0f} s")
    say(f"wrote {out}/teacher.safetensors and {out}/{DESCRIPTION_FILE}")
    say("\nThis teacher may leak its training data. Next:")
    _say_next(out, epsilon=1, adjacency="response")


def _train_ensemble(
    training: LabelledImages,
    dealt: Shards,
    testing: LabelledImages,
    validation: LabelledImages | None,
    *,
    about: TeacherRecord,
    backbone: Backbone | None,
    out: Path,
    views: int | None,
    seed: int,
    settings: dict[str, Any],
) -> None:
    """Train a teacher on every shard and write them all to ``out``."""
    from dpsd.cli.progress import training_bars, training_lines
    from dpsd.reporting.progress import counting
    from dpsd.teachers import load_teacher, save_teacher
    from dpsd.training.ensemble import train_ensemble

    teachers, model = dealt.teachers, about.model
    started = time.monotonic()
    parts = out / "parts"
    closed_form = model == CLOSED_FORM
    counted = counting(
        training_lines(f"{teachers} {model} on shards of {training.name}", "teachers"), teachers
    )

    def advance(count: int) -> None:
        progress.update(task, advance=count, state="teachers")
        counted(count)

    with training_bars() as progress:
        task = progress.add_task(
            f"{teachers} {model} on shards of {training.name}", total=teachers, state="first shards"
        )
        stacked = train_ensemble(
            training,
            dealt,
            model=model,
            views=views,
            seed=seed,
            features=backbone,
            parts=None if closed_form else parts,
            advance=advance,
            **{} if closed_form else settings,
        )
    seconds = time.monotonic() - started
    out.mkdir(parents=True, exist_ok=True)
    dealt.save(out)
    record = replace(about, seconds=round(seconds, 1))
    if backbone is not None:
        backbone.save(out)
        record = replace(record, features=backbone.stated())
    save_teacher(out, stacked, record)
    majority = load_teacher(out, device=settings["device"])
    accuracies = [
        None
        if part is None
        else float((majority.predict_classes(part.images) == part.labels).double().mean())
        for part in (testing, validation)
    ]
    record = replace(record, accuracy=accuracies[0], validation_accuracy=accuracies[1])
    save_teacher(out, stacked, record)
    if not closed_form:
        shutil.rmtree(parts)
    least, *_, most = sorted(len(rows) for rows in dealt.rows())
    sizes = f"{least} to {most}" if least < most else f"{least}"
    say(
        f"{teachers:,} teachers of {sizes} records; by majority vote, "
        f"{_measured(record, testing, validation)}, after {seconds:.0f} s"
    )
    say(f"wrote {out}/teacher.safetensors, {out}/teacher.json and {out}/shards.safetensors")
    whose = "A record" if dealt.persons is None else f"Each of {dealt.persons:,} persons"
    say(f"\nKeep these teachers as private as their data. {whose} reached one of them, so:")
    _say_next(out, epsilon=10, adjacency="teacher")


def _backbone(features: str | None, shape: Shape, root: Path) -> Backbone | None:
    """Return the backbone of that name, which is trained first if it is dpsd's own and new."""
    if features is None:
        return None

    from dpsd.cli.progress import pretraining
    from dpsd.training.pretraining import find_backbone

    return find_backbone(features, input_shape=shape, root=root, started=pretraining)


def _say_next(teacher: Path, *, epsilon: int, adjacency: str) -> None:
    """Show the command that transcribes a teacher, with a suggested directory for the run."""
    run = Path("runs") / teacher.name
    run = run if run != teacher else run.with_name(f"{run.name}-student")
    target = ("--epsilon", epsilon, "--adjacency", adjacency)
    say(f"  {command_line('dpsd', 'transcribe', teacher, *target, '--out', run)}")


def _held_out(validation: LabelledImages) -> str:
    """Return a sentence that says what the validation part is."""
    count = f"{len(validation):,} images"
    if not validation.validation_share:
        return f"the data set has a validation split of its own, of {count}; nothing is held out"
    whose = "" if validation.persons is None else f" of {len(set(validation.persons)):,} persons"
    return f"{count}{whose} of the training split are held out for validation"


def _measured(
    record: TeacherRecord, testing: LabelledImages, validation: LabelledImages | None
) -> str:
    """Return the accuracies of a teacher in words, with what each was measured on."""
    said = f"test accuracy {record.accuracy:.2%} on {len(testing):,} images"
    if validation is None:
        return said
    where = "held out" if validation.validation_share else "of the validation split"
    return (
        f"{said}, validation accuracy {record.validation_accuracy:.2%} on {len(validation):,} "
        f"images {where}"
    )


def _say_dropped(kept: int, records: int) -> None:
    if kept < records:
        say(f"{records - kept:,} of {records:,} records are duplicates and were left out")

"""``dpsd evaluate``: teacher and student, measured on labelled data of the owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dpsd.cli.choices import Words
from dpsd.cli.console import grid, say, say_json, show, shown_warnings
from dpsd.cli.declaring import (
    RULE_HELP,
    Channels,
    Classes,
    Range,
    Share,
    Size,
    declared_by,
)
from dpsd.cli.measuring import DataName, DataRoot, TeacherPath, declared_by_run, teacher_of
from dpsd.cli.results import Device, RunPath, opened
from dpsd.datasets import check_dataset, is_folder
from dpsd.errors import ConfigError
from dpsd.runs.files import check_run

if TYPE_CHECKING:
    from dpsd.results.evaluation import Evaluation


def evaluate(
    run: RunPath,
    data: DataName,
    data_root: DataRoot = None,
    teacher: TeacherPath = None,
    split: Annotated[
        str,
        typer.Option(
            click_type=Words(["test", "validation", "train"]),
            help="The part of the data to measure on: test; validation, the validation split of "
            "the data set, or else the part of its training split that `train-teacher "
            "--validation-share` held out; or train, all of the training split.",
        ),
    ] = "test",
    validation_share: Share = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="With --split validation: the rule by which persons were held out, if the "
            f"teacher's record does not state it or its file has moved. {RULE_HELP}",
            show_default="as in the teacher's record",
        ),
    ] = None,
    size: Size = None,
    channels: Channels = None,
    classes: Classes = None,
    value_range: Range = None,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure teacher and student on labelled data, as the owner of the data.

    Example: dpsd evaluate runs/digits --data digits

    The flags to know first are --data, and --teacher if the teacher has moved. The measurements
    are not privatised: they are for the owner's eyes.
    """
    check_run(run)
    check_dataset(data)
    declared = declared_by(size, channels, classes, value_range)
    if split != "validation" and (validation_share is not None or group_by is not None):
        raise ConfigError(
            "--validation-share and --group-by say what was held out: give --split validation too"
        )

    from dpsd.datasets import has_validation, load_dataset
    from dpsd.results.evaluation import check_fits
    from dpsd.results.evaluation import evaluate as measure
    from dpsd.results.validation import held_out_by

    directory = opened(run)
    if is_folder(data):
        declared = declared.over(declared_by_run(directory, teacher))
    share = 0.0
    if split == "validation" and not has_validation(data, root=data_root):
        try:
            share, group_by = held_out_by(
                directory,
                data,
                teacher=teacher,
                share=validation_share,
                group_by=group_by,
                root=data_root,
            )
        except ConfigError:
            # Data that do not fit are refused for that, whatever is known of what was held out.
            check_fits(load_dataset(data, "test", root=data_root, declared=declared), directory)
            raise
    with shown_warnings():
        labelled = load_dataset(
            data,
            split,  # type: ignore[arg-type]
            root=data_root,
            declared=declared,
            validation_share=share,
            group_by=group_by,
        )
    loaded = teacher_of(directory, teacher, device)
    measured = measure(directory, labelled, teacher=loaded, device=device)
    if as_json:
        say_json(measured.to_dict())
    else:
        _show_evaluation(measured)


def _show_evaluation(measured: Evaluation) -> None:
    what = f"{measured.split} split"
    if measured.validation_share:
        what = f"{measured.validation_share:g} of the training split, held out for validation"
    say(f"{measured.data}, {what} ({measured.images:,} images)")
    summary = grid("", "share", "± s.e.", right=("share", "± s.e."))
    for words, name, style in (
        ("teacher accuracy", "teacher_accuracy", None),
        ("student accuracy", "student_accuracy", "bold"),
        ("teacher balanced accuracy", "teacher_balanced_accuracy", None),
        ("student balanced accuracy", "student_balanced_accuracy", None),
        ("student agrees with teacher", "agreement", None),
    ):
        if (share := getattr(measured, name)) is not None:
            error = f"{100 * measured.standard_errors[name]:.2f} points"
            summary.add_row(words, f"{share:.2%}", error, style=style)
    if (most := measured.dominant()) is not None:
        summary.add_row(
            f"student says {most.name!r} for nearly all images",
            f"{most.predicted / measured.images:.2%}",
            style="bold red",
        )
    show(summary)
    say()
    shares = {
        "teacher": "teacher_accuracy",
        "student": "student_accuracy",
        "agreement": "agreement",
    }
    if measured.teacher_accuracy is None:
        shares = {"student": "student_accuracy"}
    numbers = ("images", "predicted", *shares)
    table = grid("class", *numbers, right=numbers)
    for row in measured.classes:
        counts = f"{row.images:,}", f"{row.predicted:,}"
        cells = (_percent(getattr(row, name)) for name in shares.values())
        table.add_row(row.name, *counts, *cells)
    show(table)
    say(
        "\nBalanced accuracy is the mean over classes of the share that is right; `predicted` "
        "counts the images for which the student says the class. A standard error (s.e.) covers "
        "which images were measured on, if they are a random sample, and no choice made by them."
    )
    say(
        "Measured on the owner's own data: these numbers are not privatised, and the run's "
        "certificate does not cover publishing them."
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"

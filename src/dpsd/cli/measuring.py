"""What the commands that measure a run share: the owner's data, and the teacher if it is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpsd.cli.console import warn
from dpsd.datasets import Declared
from dpsd.errors import DpsdError

if TYPE_CHECKING:
    from dpsd.runs.directory import RunDirectory
    from dpsd.teachers import Teacher

DataName = Annotated[str, typer.Option(help="The data set, as `dpsd data list` names it.")]
DataRoot = Annotated[
    Path | None, typer.Option(help="The folder of data sets.", show_default="DPSD_DATA")
]
TeacherPath = Annotated[
    str | None,
    typer.Option(help="The teacher, if it has moved since the run.", metavar="PATH"),
]


def declared_by_run(directory: RunDirectory, teacher: str | None) -> Declared:
    """The shape and classes that loose images must have for a run's student.

    Their values are read as those that the teacher was trained on.
    """
    from dpsd.teachers import read_record

    channels, height, width = directory.facts()["input_shape"]
    names = directory.class_names() or ()
    try:
        record = read_record(teacher or directory.config().teacher.teacher)
        # Runs of earlier versions did not record names.
        names, value_range = names or record.class_names, record.value_range
    except DpsdError:  # the teacher is not a directory with a record
        names, value_range = (), None
    return Declared(
        size=(height, width),
        channels=channels if channels in (1, 3) else None,
        classes=names if len(names) > 1 else None,
        value_range=value_range,
    )


def teacher_of(directory: RunDirectory, given: str | None, device: str | None) -> Teacher | None:
    """The run's teacher, or ``None``, with a warning, if it cannot be loaded."""
    if directory.is_federation and given is None:
        return None  # its clients have the teachers
    config = directory.config()
    if given is not None:
        config = config.changed(teacher=given)
    try:
        loaded = config.load_teacher(device=device)
    except DpsdError as error:
        if given is not None:
            raise
        warn(
            f"the run's teacher cannot be loaded, so only the student is measured ({error}). "
            "Say where the teacher is with --teacher"
        )
        return None
    if loaded.fingerprint != directory.facts().get("teacher"):
        warn("this is not the teacher that the run asked: its content differs")
    return loaded

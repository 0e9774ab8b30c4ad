"""``dpsd attack``: attacks on a finished run, by the owner of the data, who knows the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dpsd.attacks.names import INVERSION, KINDS, check_kinds, check_model, named_paths
from dpsd.cli.console import STATUS, grid, say, say_json, show, shown_warnings, warn
from dpsd.cli.declaring import RULE_HELP, Channels, Classes, Range, Size, declared_by
from dpsd.cli.measuring import DataName, DataRoot, TeacherPath, declared_by_run, teacher_of
from dpsd.cli.results import Device, RunPath, opened
from dpsd.datasets import check_dataset, is_folder
from dpsd.errors import ConfigError, DataError, DpsdError, RunError, Setting, TeacherError
from dpsd.runs.files import check_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dpsd.datasets import Declared, LabelledImages
    from dpsd.runs.directory import RunDirectory
    from dpsd.runs.findings import Findings, Table


def attack(
    run: RunPath,
    data: DataName,
    kind: Annotated[
        str,
        typer.Option(
            metavar="KINDS",
            help="What is attempted, in a list with commas: inversion, to reconstruct what the "
            "classes look like; membership, to tell who was in the training data; copies, to find "
            "training records among the generator's images.",
        ),
    ] = ",".join(KINDS),
    data_root: DataRoot = None,
    teacher: TeacherPath = None,
    validation_share: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=0.9,
            help="The share of the training records that was held out when the teacher was "
            "trained, 0 if none was, for a teacher without a record of its training.",
            show_default="as in the teacher's record",
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="The rule by which persons were held out, if the teacher's record does not state "
            f"it or its file has moved. {RULE_HELP}",
            show_default="as in the teacher's record",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="A further model to invert, to compare it with the run's own: another run, whose "
            "student is meant, an exported student, or a teacher of any kind; for images of the "
            "same shape, with the same classes. It is called by its file or folder without a "
            "NAME. The flag may be repeated.",
            show_default="none: the run's teacher and student",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of everything that is drawn.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Attack with little effort, to try the command out.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Attack even if findings with the same student, data, settings and seed are "
            "there.",
        ),
    ] = False,
    size: Size = None,
    channels: Channels = None,
    classes: Classes = None,
    value_range: Range = None,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Attack a finished run, as the owner of the data, and say what an attacker finds.

    Training records and held-out ones (the test split) are given to the attacks, so that what they
    claim can be checked. Each attack is also made on a leak that was planted. If it misses that, it
    proves nothing, and the command fails with exit code 1.

    Example: dpsd attack runs/digits --data digits --kind copies

    The flags to know first are --data, --kind and --quick. Findings are kept in RUN/attacks, so
    that a kind that is done is not played again, and an interrupted command goes on where it was.
    They are not privatised: they are for the owner's eyes.
    """
    check_run(run)
    check_dataset(data)
    kinds = check_kinds(kind)
    declared = declared_by(size, channels, classes, value_range)
    paths = _checked(also or (), kinds)

    from dpsd.attacks.attacking import Attacking
    from dpsd.attacks.inversion.further import further_model
    from dpsd.attacks.target import Target
    from dpsd.cli.progress import AttackProgress
    from dpsd.results.validation import trained_on_by

    directory = opened(run)
    if is_folder(data):
        declared = declared.over(declared_by_run(directory, teacher))
    share, group_by = trained_on_by(
        directory, data, teacher=teacher, share=validation_share, group_by=group_by
    )
    members, others = _loaded(data, data_root, declared, share, group_by)
    target = Target(
        run=directory,
        members=members,
        others=others,
        teacher=teacher_of(directory, teacher, device),
        device=device,
    )
    attacking = Attacking(
        target=target,
        seed=seed,
        is_quick=quick,
        also={
            name: further_model(path, run=directory, execution=target.execution)
            for name, path in paths.items()
        },
    )
    found: list[Findings] = []
    refused: list[DpsdError] = []
    for one in kinds:
        known = None if again else attacking.earlier(one)
        if known is None:
            try:
                with AttackProgress() as progress:
                    found.append(attacking.play(one, progress=progress))
            except (ConfigError, DataError, RunError) as error:
                refused.append(error)  # what the other kinds find is not lost
                warn(f"{one} is left out: {error}")
                continue
        else:
            STATUS.print(f"{one} was attacked before; --again repeats it", style="dim")
            found.append(known)
        if not as_json:
            _show(found[-1], directory)
    if as_json:
        say_json([one.to_dict() for one in found])
    else:
        say(
            "Measured on the owner's own data: no number or picture here is privatised, and the "
            "run's certificate does not cover publishing them."
        )
    if refused:
        raise refused[0]
    if invalid := [one.kind for one in found if not one.is_valid]:
        raise DpsdError(
            f"{' and '.join(invalid)}: the attack is invalid, as it failed its own controls, so "
            "its findings say nothing. Give it more records or, without --quick, more effort"
        )


def _checked(also: Sequence[str], kinds: Sequence[str]) -> dict[str, str]:
    """The paths of further models by name, which are models by their names.

    Raises:
        ConfigError: names collide, or nothing is attempted that could attack further models.
        TeacherError: there is no model.
    """
    paths = named_paths(also)
    if paths and INVERSION not in kinds:
        raise ConfigError(
            *(Setting("also"), f" is for {INVERSION}, which attacks models one by one: add it to "),
            *(Setting("kind"), ", or leave out ", Setting("also")),
        )
    for path in paths.values():
        try:
            check_model(path)
        except TeacherError as error:
            raise TeacherError(Setting("also"), ": ", *error.parts) from None
    return paths


def _loaded(
    data: str, root: Path | None, declared: Declared, share: float, group_by: str | None
) -> tuple[LabelledImages, LabelledImages]:
    """The records that the teacher was trained on, and those of the test split."""
    from dpsd.datasets import load_dataset

    with shown_warnings():
        members = load_dataset(
            data,
            "train",
            root=root,
            declared=declared,
            validation_share=share,
            group_by=group_by,
        )
        return members, load_dataset(data, "test", root=root, declared=declared)


def _show(found: Findings, directory: RunDirectory) -> None:
    from dpsd.runs.findings import FOLDER

    say(f"{found.kind} ({found.data}, seed {found.seed}, {found.seconds:,.0f} s)", style="bold")
    say(found.sentence(), style=None if found.is_valid else "bold red")
    for table in found.tables:
        say(f"\n{table.title}:")
        _show_table(table)
    say("\nControls:")
    for control in found.controls:
        say(f"  {'passed' if control.found else 'FAILED'}: {control.sentence}")
    folder = directory.path / FOLDER
    for picture in found.pictures:
        for path in sorted(folder.glob(f"{picture.name}.*")):
            records = "; it shows private records" * picture.shows_records
            say(f"  picture: {path}{records}")
    say(f"  findings: {folder / found.kind}.json\n")


def _show_table(table: Table) -> None:
    headings = table.headings()
    shown = grid(*headings, right=headings[1:])
    for row in table.texts():
        shown.add_row(*row)
    show(shown)

"""``dpsd attack``: attacks on a finished run, by the owner of the data, who knows the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpsd.attacks.names import (
    INVERSION,
    KINDS,
    LETTERS,
    check_kinds,
    check_model,
    named_paths,
)
from dpsd.cli.console import STATUS, say, say_json, shown_warnings, warn
from dpsd.cli.declaring import RULE_HELP, Channels, Classes, Range, Size, declared_by
from dpsd.cli.errors import INTERRUPTED, worded
from dpsd.cli.findings import show_findings
from dpsd.cli.measuring import DataName, DataRoot, TeacherPath, declared_by_run, teacher_of
from dpsd.cli.results import Device, RunPath, opened
from dpsd.datasets import check_dataset, is_folder
from dpsd.errors import ConfigError, DataError, DpsdError, RunError, Setting, TeacherError
from dpsd.runs.files import ATTACKS_FOLDER, check_run
from dpsd.shell import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dpsd.runs.findings import Findings


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
    public: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGES",
            help="What the attacker's generator of inversion learns from: letters (printed ones, "
            "without digits), a drawn source as `dpsd transcribe --sources` names it, FOLDER, "
            "PATH.npz, the name of a data set, or classes:NAME,NAME, the held-out records of some "
            "classes of the private data set: then the others are attacked (GMI's milder setting).",
            show_default=LETTERS,
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
            "there, or if a quick attack would replace those of one of full size.",
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
    _refuse_alone(kinds, also=also, public=public)
    paths = _checked(also or (), run)
    flags = _flags(
        data_root=data_root,
        teacher=teacher,
        validation_share=validation_share,
        group_by=group_by,
        size=size,
        channels=channels,
        classes=classes,
        value_range=value_range,
        device=device,
    )
    inverting = [
        *_flags(public=public),
        *(word for name, path in paths.items() for word in ("--also", f"{name}={path}")),
    ]

    from dpsd.attacks.attacking import Attacking
    from dpsd.attacks.inversion.further import further_model
    from dpsd.attacks.inversion.public import check_public
    from dpsd.attacks.target import Target
    from dpsd.cli.progress import AttackProgress
    from dpsd.datasets import load_dataset
    from dpsd.results.evaluation import check_fits
    from dpsd.results.validation import trained_on_by

    directory = opened(run, to="attack it")
    if is_folder(data):
        declared = declared.over(declared_by_run(directory, teacher))
    with shown_warnings():
        others = load_dataset(data, "test", root=data_root, declared=declared)
    check_fits(others, directory)  # before it is asked what was held out of data that do not fit
    share, group_by = trained_on_by(
        directory,
        data,
        teacher=teacher,
        share=validation_share,
        group_by=group_by,
        root=data_root,
    )
    with shown_warnings():
        members = load_dataset(
            data,
            "train",
            root=data_root,
            declared=declared,
            validation_share=share,
            group_by=group_by,
        )
    target = Target(
        run=directory,
        members=members,
        others=others,
        teacher=teacher_of(directory, teacher, device),
        device=device,
    )
    if public is not None:  # before hours are spent on the other kinds
        check_public(public, others, [target.teacher] if target.teacher else ())
    attacking = Attacking(
        target=target,
        seed=seed,
        is_quick=quick,
        also={
            name: further_model(path, run=directory, execution=target.execution)
            for name, path in paths.items()
        },
        public=public,
        asked={one: (*flags, *(inverting if one == INVERSION else ())) for one in kinds},
    )
    found: list[Findings] = []
    refused: dict[str, DpsdError] = {}
    for one in kinds:
        known = None if again else attacking.earlier(one)
        if known is None:
            try:
                if not again:
                    attacking.require_no_loss(one)
                STATUS.print(attacking.plan(one), style="dim", soft_wrap=True)
                with AttackProgress() as progress:
                    found.append(attacking.play(one, progress=progress))
            except (ConfigError, DataError, RunError) as error:
                if len(kinds) == 1:
                    raise
                refused[one] = error  # what the other kinds find is not lost
                warn(f"{one} is left out: {worded(error)}")
                continue
            except KeyboardInterrupt:
                size_flags = ("--quick",) * quick + ("--again",) * again
                seed_flags = ("--seed", seed) * bool(seed)
                left = kinds[kinds.index(one) :]
                own = inverting if INVERSION in left else ()
                going_on = _command(run, data, left, *seed_flags, *size_flags, *flags, *own)
                STATUS.print("interrupted; what is finished is kept", soft_wrap=True)
                STATUS.print(f"continue with: {going_on}", soft_wrap=True)
                raise typer.Exit(INTERRUPTED) from None
        else:
            of_full_size = " at full size" * (quick and not known.is_quick)
            STATUS.print(
                f"{one}: the run was attacked{of_full_size} before; "
                + ("--again repeats the attack" if known.is_valid else _anew(seed)),
                style="dim",
                soft_wrap=True,
            )
            found.append(known)
        if not as_json:
            show_findings(found[-1], directory)
    if as_json:
        say_json([one.to_dict() for one in found])
    elif found:
        say(
            "Measured on the owner's own data: no number or picture here is privatised, and the "
            "run's certificate does not cover publishing them. "
            f"{directory.path / ATTACKS_FOLDER} is for the owner alone: leave it out when the run "
            "is handed over."
        )
    _fail(found, refused, seed=seed)


def _fail(found: Sequence[Findings], refused: Mapping[str, DpsdError], *, seed: int) -> None:
    """Fail if a kind was left out, or is invalid.

    Raises:
        DpsdError: it is so.
    """
    if refused:
        failed = DpsdError(f"left out, as said above: {', '.join(refused)}")
        failed.exit_code = next(iter(refused.values())).exit_code
        raise failed
    if invalid := [one.kind for one in found if not one.is_valid]:
        more_effort = " or, without --quick, more effort" * any(one.is_quick for one in found)
        raise DpsdError(
            f"{' and '.join(invalid)}: the attack is invalid, as it failed its own controls, so "
            f"its findings say nothing: give it more records{more_effort}, or another draw: "
            + _anew(seed)
        )


def _anew(seed: int) -> str:
    """How an attack that failed its controls is made again with other models and draws."""
    return (
        f"--seed {seed + 1} trains and draws anew, while --again alone would find the same, from "
        "the same models"
    )


def _flags(**given: object) -> tuple[str, ...]:
    """The flags that were given, as they are typed."""
    return tuple(
        word
        for name, value in given.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    )


def _command(run: Path, data: str, left: Sequence[str], *flags: object) -> str:
    """The command that goes on with the kinds of attack that are left."""
    kinds = ("--kind", ",".join(left)) * (tuple(left) != tuple(KINDS))
    return command_line("dpsd", "attack", run, "--data", data, *kinds, *flags)


def _refuse_alone(kinds: Sequence[str], *, also: Sequence[str] | None, public: str | None) -> None:
    """Refuse what is for inversion alone, if that is not attempted.

    Raises:
        ConfigError: it is given.
    """
    for name, given, why in (
        ("also", also, "which attacks models one by one"),
        ("public", public, "whose attacker learns from public images"),
    ):
        if given and INVERSION not in kinds:
            raise ConfigError(
                *(Setting(name), f" is for {INVERSION}, {why}: add it to ", Setting("kind")),
                *(", or leave out ", Setting(name)),
            )


def _checked(also: Sequence[str], run: Path) -> dict[str, str]:
    """The paths of further models by name, which are models by their names.

    Raises:
        ConfigError: names collide, or one is the run that is attacked anyway.
        TeacherError: there is no model.
    """
    paths = named_paths(also)
    for path in paths.values():
        if Path(path).resolve() == run.resolve():
            raise ConfigError(
                Setting("also"), f": {path} is the run itself, whose student is attacked anyway"
            )
        try:
            check_model(path)
        except TeacherError as error:
            raise TeacherError(Setting("also"), ": ", *error.parts) from None
    return paths

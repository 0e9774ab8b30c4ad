"""``dpsd transcribe``: the main job. Its flags are the configuration's fields.

What can be told without torch is told before it is imported: :mod:`dpsd.cli.playing` does that.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from dpsd.cli.console import say
from dpsd.cli.errors import Command, spell, unwrapped
from dpsd.cli.options import RUN_PANEL, flag_name, given, with_config_flags
from dpsd.config.base import read_toml, to_toml
from dpsd.config.recipe import ENSEMBLE_DEFAULTS, ENSEMBLE_STUDENT
from dpsd.config.transcription import TranscriptionConfig
from dpsd.errors import ConfigError
from dpsd.runs.files import check_run
from dpsd.teachers.kinds import check_source, is_ensemble

#: All that may be said anew when a run continues: where the same teacher is found, what it may
#: spend, and how many processes share the work.
_CHANGEABLE = {"teacher_weights", "cap", "budget_file", "count_earlier", "devices"}


#: What loading a teacher calls by other names than the flags.
_PARTS_OF_TEACHER = {
    "weights": flag_name("teacher_weights"),
    "normalization": f"{flag_name('mean')} and {flag_name('deviation')}",
}


#: Asked for nothing else, an ensemble protects records.
_ENSEMBLE = {**ENSEMBLE_DEFAULTS, "student": ENSEMBLE_STUDENT, "adjacency": "teacher"}


def command() -> click.Command:
    """The command with all its flags."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    text = unwrapped(inspect.cleandoc(_transcribe.__doc__ or ""))
    app.command("transcribe", cls=Command, help=text)(with_config_flags(_transcribe))
    return typer.main.get_command(app)


def _transcribe(
    ctx: typer.Context,
    teacher: Annotated[
        str | None,
        typer.Argument(help="Teacher: directory, .onnx, .pt2 or package.module:factory."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; new or empty.", rich_help_panel=RUN_PANEL),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Continue the run in this directory, as it was started.",
            metavar="RUN",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file of settings; flags override it.", rich_help_panel=RUN_PANEL),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            help="Print the resolved settings as TOML and exit.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="Also write RUN/tensorboard (needs the extra).",
            rich_help_panel=RUN_PANEL,
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", help="Show warnings and errors only.", rich_help_panel=RUN_PANEL),
    ] = False,
    **flags: Any,
) -> None:
    """Turn a teacher into a student through privatised answers to synthetic queries.

    TEACHER is what train-teacher wrote, a .onnx or .pt2 file, package.module:factory, or a
    directory of several of these: an ensemble, whose ε under teacher adjacency, its default,
    protects a training record; it asks few queries and reads them often (see --print-config).

    The noise is calibrated so that the whole run spends --epsilon under --adjacency at --delta.

    Each flag is also a key of the TOML file. Lists are separated by commas.
    """
    chosen = given(ctx, flags)
    spell(ctx, _PARTS_OF_TEACHER)
    if resume is not None:
        if out is not None or config is not None:
            raise ConfigError("--resume takes everything from the run: leave --out, --config out")
        directory, settings = resume, _resumed_settings(resume, teacher, chosen)
    else:
        values = {} if config is None else read_toml(config)
        spell(ctx, {name: name for name in values.keys() - chosen.keys()})
        values |= chosen | ({} if teacher is None else {"teacher": teacher})
        defaults = _ENSEMBLE if is_ensemble(values.get("teacher")) else {}
        settings = TranscriptionConfig(**defaults | values)
        settings.privacy.require_effect()
        settings.teacher.check_normalization()
        settings.check_names()
        if out is None and not print_config:
            raise ConfigError("say where to write the run with --out, or --resume a run")
        directory = out or Path()
    if print_config:
        # What the images decide is left open: the teacher, which knows their size, is not loaded.
        recipe = settings.recipe.resolved(budget=settings.privacy.budget())
        settings = settings.model_copy(update={"recipe": recipe})
        say(to_toml(settings, without=recipe.left_open()).rstrip())
        return
    check_source(settings.teacher.teacher)

    from dpsd.cli.playing import play

    play(
        settings,
        directory,
        is_new=resume is None,
        # A cap that was given at the start is a limit; given now, it also lets the run go on.
        allowance=settings.privacy.limit() if "cap" in chosen else None,
        quiet=quiet,
        tensorboard=tensorboard,
    )


def _resumed_settings(
    path: Path, teacher: str | None, chosen: dict[str, Any]
) -> TranscriptionConfig:
    if fixed := sorted(chosen.keys() - _CHANGEABLE):
        raise ConfigError(
            f"--resume continues a run as it was started: {', '.join(map(flag_name, fixed))} "
            "cannot change"
        )
    check_run(path)

    from dpsd.runs.directory import RunDirectory

    stored = RunDirectory.open(path).config()
    return stored.changed(**chosen, **({} if teacher is None else {"teacher": teacher}))

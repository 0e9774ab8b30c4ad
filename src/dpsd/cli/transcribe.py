"""``dpsd transcribe``: transcribes a teacher. Its flags are the configuration's fields.

Everything that can be checked without torch is checked before torch is imported, which
:mod:`dpsd.cli.playing` does.
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

#: The settings that may change when a run is resumed: where the same teacher is found, what it may
#: spend, and how many processes share the work.
_CHANGEABLE = {"teacher_weights", "cap", "budget_file", "count_earlier", "devices"}


#: The flags for settings that have other names where a teacher is loaded.
_PARTS_OF_TEACHER = {
    "weights": flag_name("teacher_weights"),
    "normalization": f"{flag_name('mean')} and {flag_name('deviation')}",
}


#: The defaults for an ensemble, which protect records unless the user chooses otherwise.
_ENSEMBLE = {**ENSEMBLE_DEFAULTS, "student": ENSEMBLE_STUDENT, "adjacency": "teacher"}


def command() -> click.Command:
    """Return the command with all its flags."""
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
        typer.Argument(
            help="The teacher: a directory, an .onnx or .pt2 file, hf:FOLDER, or "
            "package.module:factory."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The run directory, which must be new or empty.", rich_help_panel=RUN_PANEL
        ),
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
        typer.Option(help="A TOML file of settings; flags override it.", rich_help_panel=RUN_PANEL),
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
            help="Also write RUN/tensorboard (needs the extra 'tensorboard').",
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

    Example: dpsd transcribe teacher --epsilon 1 --adjacency response --out runs/digits

    The flags to know first are --epsilon, --adjacency (what ε protects), --protect (labels or data)
    and --out. The noise is calibrated so that the whole run spends --epsilon under --adjacency at
    --delta. An interrupted run is continued with --resume.

    TEACHER is a directory that train-teacher wrote, an .onnx or .pt2 file, package.module:factory,
    hf:FOLDER (a Hugging Face image classifier that `hf download` wrote to FOLDER), or a directory
    of several of the first three. Several teachers are an ensemble, whose default adjacency is
    teacher: there, ε protects a training record. An ensemble is asked few queries, on which the
    student is trained many times (see --print-config).

    Each flag is also a key of the TOML file. Lists are separated by commas.
    """
    chosen = given(ctx, flags)
    spell(ctx, _PARTS_OF_TEACHER)
    if resume is not None:
        if out is not None or config is not None:
            raise ConfigError(
                "--resume takes all settings from the run: leave out --out and --config"
            )
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
        # Settings that depend on the images stay open, as the teacher is not loaded.
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
        # At the start, a cap only limits the run; on resuming, it also lets the run continue.
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

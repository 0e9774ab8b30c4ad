"""``dpsd transcribe``: transcribes a teacher. Its flags are the configuration's fields.

Everything that can be checked without torch is checked before torch is imported, which
:mod:`dpsd.cli.playing` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from dpsd.cli.console import say_toml
from dpsd.cli.errors import PARTS_OF_TEACHER, spell
from dpsd.cli.options import RUN_PANEL, built_command, flag_name, given
from dpsd.config.base import read_toml, to_toml
from dpsd.config.ensembles import ENSEMBLE_DEFAULTS, ENSEMBLE_STUDENT
from dpsd.config.transcription import TranscriptionConfig
from dpsd.errors import ConfigError
from dpsd.models.names import CLOSED_FORM
from dpsd.runs.files import check_run
from dpsd.teachers.address import ServiceOptions
from dpsd.teachers.kinds import TEACHER_HELP, is_ensemble

#: The settings that may change when a run is resumed: where the same teacher is found, how a
#: service is called, what may be spent, and how many processes share the work.
_CHANGEABLE = {
    *("teacher_weights", "cap", "budget_file", "count_earlier", "devices"),
    *(field.name for field in fields(ServiceOptions)),
}


#: The settings that have no default, with values that show how they are written.
_TO_FILL_IN = {"teacher": "PATH", "epsilon": 1.0}

#: The defaults for an ensemble, which protect records unless the user chooses otherwise.
_ENSEMBLE = {**ENSEMBLE_DEFAULTS, "student": ENSEMBLE_STUDENT, "adjacency": "teacher"}


def command() -> click.Command:
    """Return the command with all its flags."""
    return built_command("transcribe", _transcribe)


def _transcribe(
    ctx: typer.Context,
    teacher: Annotated[
        str | None,
        typer.Argument(help=TEACHER_HELP),
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
    mlflow: Annotated[
        bool,
        typer.Option(
            "--mlflow",
            help="Also write metrics to MLflow, where MLFLOW_TRACKING_URI says (needs the extra "
            "'mlflow').",
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
    hf:FOLDER (a Hugging Face image classifier that `hf download` wrote to FOLDER), the address of
    a service that speaks the Open Inference Protocol (https://HOST/v2/models/NAME, with its token
    in the environment variable DPSD_TEACHER_TOKEN; it needs --budget-file), or a directory of
    several directories and files. Several teachers are an ensemble, whose default adjacency is
    teacher: there, ε protects a training record. An ensemble is asked few queries, on which the
    student is trained many times (see --print-config).

    Each flag is also a key of the TOML file. Lists are separated by commas.
    """
    chosen = given(ctx, flags)
    spell(ctx, PARTS_OF_TEACHER)
    unset: dict[str, Any] = {}
    if resume is not None:
        if out is not None or config is not None:
            raise ConfigError(
                "--resume takes all settings from the run: leave out --out and --config"
            )
        directory, settings = resume, _resumed_settings(resume, teacher, chosen)
    else:
        values = {} if config is None else read_toml(config)
        unknown = values.keys() - TranscriptionConfig.fields().keys()
        spell(ctx, {name: name for name in values.keys() - chosen.keys()})
        spell(ctx, {name: f"{config}: {name}" for name in unknown})
        values |= chosen | ({} if teacher is None else {"teacher": teacher})
        if print_config:  # for the user to fill in
            unset = {name: value for name, value in _TO_FILL_IN.items() if name not in values}
            values |= unset
        defaults = _ENSEMBLE if is_ensemble(values.get("teacher")) else {}
        if values.get("features"):
            defaults = {**defaults, "student": CLOSED_FORM}
        settings = TranscriptionConfig(**defaults | values)
        settings.privacy.require_effect()
        settings.teacher.check_normalization()
        settings.check_names()
        if out is None and not print_config:
            raise ConfigError("say where to write the run with --out, or --resume a run")
        directory = out or Path()
    if print_config:
        # Settings that depend on the images stay open, as the teacher is not loaded.
        _print(settings, unset)
        return
    settings.teacher.check_source(budget_file=settings.privacy.budget_file)

    from dpsd.cli.playing import play

    play(
        settings,
        directory,
        is_new=resume is None,
        # At the start, a cap only limits the run; on resuming, it also lets the run continue.
        allowance=settings.privacy.limit() if "cap" in chosen else None,
        quiet=quiet,
        tensorboard=tensorboard,
        mlflow=mlflow,
    )


def _print(settings: TranscriptionConfig, unset: Mapping[str, object]) -> None:
    """Print settings as TOML, with those that the user has yet to choose in comments.

    Settings that depend on what is not known are left out: the images, as the teacher is not
    loaded, and possibly ε.
    """
    budget = settings.privacy.budget()
    is_open = "epsilon" in unset
    recipe = settings.recipe if is_open else settings.recipe.resolved(budget=budget)
    left_out = {*recipe.left_open(budget=budget if is_open else None), *unset}
    settings = settings.model_copy(update={"recipe": recipe})
    lines = [f"# {name} = {json.dumps(value)}  # required" for name, value in unset.items()]
    say_toml("\n".join([*lines, to_toml(settings, without=left_out)]))


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

    run = RunDirectory.open(path)
    given_again = () if teacher is None else ("teacher",)
    if missing := [name for name in run.objects if name not in given_again]:
        raise ConfigError(
            f"{path} was given its {' and '.join(missing)} in Python, which no command can load: "
            f"continue it with {run.resuming}"
        )
    stored = run.config()
    return stored.changed(**chosen, **({} if teacher is None else {"teacher": teacher}))

"""``dpsd transcribe``: the main job. Its flags are the configuration's fields."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from dpsd import starting
from dpsd.cli.console import RESULTS, STATUS, hint, say, shown_warnings, warn
from dpsd.cli.errors import INTERRUPTED, unwrapped
from dpsd.cli.options import RUN_PANEL, flag_name, given, with_config_flags
from dpsd.cli.privacy import show_privacy
from dpsd.cli.progress import ProgressObserver, QuietObserver
from dpsd.config import ENSEMBLE_DEFAULTS, ENSEMBLE_STUDENT, TranscriptionConfig, read_toml, to_toml
from dpsd.errors import AnswerError, ConfigError, WriteError
from dpsd.launching import is_follower
from dpsd.privacy.accounting import Budget
from dpsd.privacy.certificate import NOT_PRIVATE
from dpsd.runs import Run, RunDirectory
from dpsd.teachers.loading import is_ensemble
from dpsd.transcription import Observer

#: All that may be said anew when a run continues: where the same teacher is found, what it may
#: spend, and how many processes share the work.
_CHANGEABLE = {"teacher_weights", "cap", "budget_file", "count_earlier", "devices"}


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
    app.command("transcribe", help=text)(with_config_flags(_transcribe))
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
    if resume is not None:
        if out is not None or config is not None:
            raise ConfigError("--resume takes everything from the run: leave --out, --config out")
        directory, settings = resume, _resumed_settings(resume, teacher, chosen)
    else:
        values = {} if config is None else read_toml(config)
        values |= chosen | ({} if teacher is None else {"teacher": teacher})
        defaults = _ENSEMBLE if is_ensemble(values.get("teacher")) else {}
        settings = TranscriptionConfig(**defaults | values)
        settings.require_effect()
        if out is None and not print_config:
            raise ConfigError("say where to write the run with --out, or --resume a run")
        directory = out or Path()
    if print_config:
        settings = settings.for_budget(settings.budget())
        # What the images decide is left open: the teacher, which knows their size, is not loaded.
        say(to_toml(settings, without=settings.left_open()).rstrip())
        return
    if is_follower(settings.devices):
        # Process 0 says everything.
        quiet, tensorboard = True, False
        STATUS.quiet = RESULTS.quiet = True
    if settings.reproducible_noise is not None:
        warn(NOT_PRIVATE)
    run = _played(
        settings,
        directory,
        is_new=resume is None,
        # A cap that was given at the start is a limit; given now, it also lets the run go on.
        allowance=settings.limit() if "cap" in chosen else None,
        quiet=quiet,
        tensorboard=tensorboard,
    )
    if not quiet:
        _show_summary(run)


def _resumed_settings(
    path: Path, teacher: str | None, chosen: dict[str, Any]
) -> TranscriptionConfig:
    if fixed := sorted(chosen.keys() - _CHANGEABLE):
        raise ConfigError(
            f"--resume continues a run as it was started: {', '.join(map(flag_name, fixed))} "
            "cannot change"
        )
    stored = RunDirectory.open(path).config().model_dump()
    return TranscriptionConfig(
        **stored | chosen | ({} if teacher is None else {"teacher": teacher})
    )


def _played(
    settings: TranscriptionConfig,
    path: Path,
    *,
    is_new: bool,
    allowance: Budget | None,
    quiet: bool,
    tensorboard: bool,
) -> Run:
    """The run from here to its end; what stops it on the way is told with how to go on."""
    done = 0 if is_new else len(RunDirectory.open(path).metrics())
    loaded = settings.load_teacher()
    if is_new:
        settings = settings.for_images(loaded.input_shape).for_budget(settings.budget())
    # A run may be evaluated and continued from another folder: paths must hold there too.
    settings = settings.model_copy(
        update={
            "teacher": loaded.location or settings.teacher,
            "teacher_weights": loaded.weights_location,
            "budget_file": settings.budget_file and str(Path(settings.budget_file).absolute()),
        }
    )
    try:
        with ExitStack() as stack:
            observer: Observer = QuietObserver()
            if not quiet:
                observer = stack.enter_context(
                    ProgressObserver(rounds=settings.rounds, finished=done)
                )
            stack.enter_context(shown_warnings(observer.warn))
            if tensorboard:
                from dpsd.reporting.tensorboard import TensorBoardObserver

                observer = stack.enter_context(TensorBoardObserver(observer, path / "tensorboard"))
            if is_new:
                return starting.start(settings, loaded, out=path, observer=observer)
            return starting.resume(
                path,
                loaded,
                cap=allowance,
                budget_file=settings.budget_file,
                count_earlier=settings.count_earlier,
                devices=settings.devices,
                observer=observer,
            )
    except KeyboardInterrupt:
        _say_interrupted(path)
        raise typer.Exit(INTERRUPTED) from None
    except (AnswerError, WriteError, OSError, MemoryError):
        if _has_begun(path, settings, is_new=is_new):
            hint(f"what was released so far is kept; continue with: {_resume_command(path)}")
        raise


def _has_begun(path: Path, settings: TranscriptionConfig, *, is_new: bool) -> bool:
    """Whether the directory holds this run rather than another or nothing."""
    if not (path / "ledger.jsonl").exists():
        return False
    return not is_new or RunDirectory.open(path).config() == settings


def _say_interrupted(path: Path) -> None:
    ledger = path / "ledger.jsonl"
    if not ledger.exists():
        STATUS.print("interrupted; nothing was asked yet")
        return
    message = "interrupted; everything that was released is kept"
    entries = RunDirectory.open(path).ledger.entries()
    if entries and entries[-1]["entry"] == "reserve":
        message += (
            f". Round {entries[-1]['round']} was being answered: its answers count as spent, and "
            "are lost; --resume says what asking again would cost"
        )
    STATUS.print(message, soft_wrap=True)
    STATUS.print(f"continue with: {_resume_command(path)}", soft_wrap=True)


def _resume_command(path: Path) -> str:
    return f"dpsd transcribe --resume {path}"


def _show_summary(run: Run) -> None:
    path = run.directory.path
    say()
    show_privacy(run.certificate)
    say(f"\nWritten to {path}:")
    say("  student.safetensors, student.json   the student")
    say("  generator.safetensors               the generator of synthetic images")
    say("  certificate.json, report.html       what was spent, and how it went")
    say("\nNext:")
    say(f"  dpsd evaluate {path} --data NAME")
    say(f"  dpsd sample {path} --count 10000 --out synthetic")
    say(f"  dpsd export {path} --to student.onnx")
    say(f"  dpsd certify {path}")

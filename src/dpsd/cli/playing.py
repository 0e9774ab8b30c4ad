"""Playing the run that ``dpsd transcribe`` was asked for, and telling how it goes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import typer

from dpsd.cli.console import RESULTS, STATUS, hint, say, shown_warnings, warn
from dpsd.cli.errors import INTERRUPTED
from dpsd.cli.privacy import show_privacy
from dpsd.cli.progress import ProgressObserver, QuietObserver
from dpsd.config.transcription import TranscriptionConfig
from dpsd.errors import AnswerError, WriteError
from dpsd.privacy.records.certificate import NOT_PRIVATE
from dpsd.privacy.targets import Budget
from dpsd.runs.directory import Run, RunDirectory
from dpsd.runs.observing import Observer
from dpsd.teachers import Teacher
from dpsd.transcription import starting
from dpsd.transcription.launching import is_follower


def play(
    settings: TranscriptionConfig,
    path: Path,
    *,
    is_new: bool,
    allowance: Budget | None,
    quiet: bool,
    tensorboard: bool,
) -> None:
    """Play a run and show what came of it.

    Args:
        settings: of the run.
        path: the run directory.
        is_new: whether it begins, or goes on.
        allowance: a cap that was given now; it lets a run go over its target where it was broken
            off.
        quiet: show warnings and errors only.
        tensorboard: also write figures for TensorBoard.
    """
    if is_follower(settings.recipe.devices):
        # Process 0 says everything.
        quiet, tensorboard = True, False
        STATUS.quiet = RESULTS.quiet = True
    if settings.privacy.reproducible_noise is not None:
        warn(NOT_PRIVATE)
    run = _played(
        settings,
        path,
        is_new=is_new,
        allowance=allowance,
        quiet=quiet,
        tensorboard=tensorboard,
    )
    if not quiet:
        _show_summary(run)


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
    budget_file = settings.privacy.budget_file
    if budget_file is not None:
        # A run may be continued from another folder: paths must hold there too.
        settings = settings.changed(budget_file=str(Path(budget_file).absolute()))
    another = is_new and _is_begun(path)
    try:
        with ExitStack() as stack:
            observer: Observer = QuietObserver()
            if not quiet:
                observer = stack.enter_context(
                    ProgressObserver(rounds=_rounds(settings, loaded), finished=done)
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
                budget_file=settings.privacy.budget_file,
                count_earlier=settings.privacy.count_earlier,
                devices=settings.recipe.devices,
                observer=observer,
            )
    except KeyboardInterrupt:
        _say_interrupted(path)
        raise typer.Exit(INTERRUPTED) from None
    except (AnswerError, WriteError, OSError, MemoryError):
        if _is_begun(path) and not another:
            hint(f"what was released so far is kept; continue with: {_resume_command(path)}")
        raise


def _is_begun(path: Path) -> bool:
    return (path / "ledger.jsonl").exists()


def _rounds(settings: TranscriptionConfig, teacher: Teacher) -> int:
    budget = settings.privacy.budget()
    return settings.recipe.resolved(members=teacher.members, budget=budget).rounds


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

"""Executing the run of a ``dpsd transcribe`` command, and reporting its progress."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import typer

from dpsd.cli.console import RESULTS, STATUS, grid, hint, say, show, shown_warnings, warn
from dpsd.cli.errors import INTERRUPTED
from dpsd.cli.privacy import show_privacy
from dpsd.cli.progress import ProgressObserver, QuietObserver, pretraining
from dpsd.cli.results import measurable_on, show_written
from dpsd.config.transcription import TranscriptionConfig
from dpsd.errors import AnswerError, WriteError
from dpsd.privacy.records.certificate import NOT_PRIVATE
from dpsd.privacy.targets import Budget
from dpsd.reporting.agreement import WITHOUT_PROBE, final_probe, left_out
from dpsd.runs.directory import Run, RunDirectory
from dpsd.runs.files import check_new
from dpsd.runs.observing import Observer
from dpsd.shell import command_line
from dpsd.synthesis.sources import unseen
from dpsd.teachers import Teacher
from dpsd.transcription import starting
from dpsd.transcription.features import settled
from dpsd.transcription.launching import is_follower


def play(
    settings: TranscriptionConfig,
    path: Path,
    *,
    is_new: bool,
    allowance: Budget | None,
    quiet: bool,
    tensorboard: bool,
    mlflow: bool,
) -> None:
    """Execute a run and show its result.

    Args:
        settings: the configuration of the run.
        path: the run directory.
        is_new: whether the run begins, or else continues.
        allowance: the cap given on resuming, up to which the run may exceed its target if it was
            interrupted.
        quiet: whether to show warnings and errors only.
        tensorboard: whether to write metrics for TensorBoard as well.
        mlflow: whether to write them to MLflow as well.
    """
    if is_follower(settings.recipe.devices):
        # Only process 0 reports.
        quiet, tensorboard, mlflow = True, False, False
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
        mlflow=mlflow,
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
    mlflow: bool,
) -> Run:
    """Execute a run to its end; if it is stopped, say how to continue it."""
    if is_new and not is_follower(settings.recipe.devices):
        check_new(path)  # as a backbone may be trained first, for minutes
    done = 0 if is_new else len(RunDirectory.open(path).metrics())
    loaded = settings.load_teacher()
    if loaded.applied is not None and not quiet:
        STATUS.print(f"the teacher takes {loaded.applied}", style="dim", soft_wrap=True)
    features = None
    if is_new:
        student, named = settings.student, settings.features
        shown = unseen if quiet else pretraining
        features = settled(named, student=student, teacher=loaded, started=shown)
    budget_file = settings.privacy.budget_file
    if budget_file is not None:
        # A run may be continued from another working directory, so paths must be absolute.
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
            if mlflow:
                from dpsd.reporting.mlflow import MLflowObserver

                observer = stack.enter_context(MLflowObserver(observer, name=path.name))
            if is_new:
                return starting.start(
                    settings, loaded, out=path, features=features, observer=observer
                )
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
    if not _is_begun(path):
        STATUS.print("interrupted; nothing was asked yet")
        return
    message = "interrupted; all releases are kept"
    entries = RunDirectory.open(path).ledger.entries()
    if entries and entries[-1]["entry"] == "reserve":
        message += (
            f". Round {entries[-1]['round']} was being answered: its answers are lost but count as "
            "spent; --resume says what asking again would cost"
        )
    STATUS.print(message, soft_wrap=True)
    STATUS.print(f"continue with: {_resume_command(path)}", soft_wrap=True)


def _resume_command(path: Path) -> str:
    return command_line("dpsd", "transcribe", "--resume", path)


def _show_summary(run: Run) -> None:
    path = run.directory.path
    say()
    show_privacy(run.certificate)
    _show_probe(run)
    _show_left_out(run)
    pages = "certificate.json, report.html       the privacy spent, and a report of the run"
    on = measurable_on(run.directory)
    show_written(path, pages, "certify", path, measured_on=on)


def _show_probe(run: Run) -> None:
    """Show how the student does on the probe, or say that nothing tells how it does."""
    found = final_probe(run.directory)
    say(f"\n{WITHOUT_PROBE}." if found is None else f"\n{found['sentence']}")
    if found is None or not found["classes"]:
        return
    table = grid(
        "class", "teacher's share", "recall ± s.e.", right=("teacher's share", "recall ± s.e.")
    )
    for row in found["classes"]:
        table.add_row(row["name"], row["share"], row["recall"])
    show(table)


def _show_left_out(run: Run) -> None:
    """Show how students do on sources that they were not taught on, if the run left any out."""
    found = left_out(run.directory)
    if found is None:
        return
    say(f"\n{found['sentence']}")
    table = grid("source left out", "agreement ± s.e.", right=("agreement ± s.e.",))
    for row in found["sources"]:
        table.add_row(row["name"], row["agreement"])
    show(table)

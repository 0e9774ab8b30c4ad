"""``dpsd watch``: follows a run in the terminal, whichever process or machine makes it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from dpsd.cli.console import RESULTS, STATUS, say
from dpsd.cli.results import RunPath
from dpsd.errors import RunError
from dpsd.runs.files import CONFIG_FILE, check_run


def watch(
    run: RunPath,
    every: Annotated[
        float, typer.Option(min=0.1, help="The seconds between two looks at the run's files.")
    ] = 1.0,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for a run that has not begun yet.")
    ] = False,
) -> None:
    """Follow a run until it is finished, from its files alone.

    Example: dpsd watch runs/digits

    The flags to know first are --every and --wait. The run may be made by another process, or by
    another machine that shares the folder. Ctrl-C ends the watching and stops no run. If nobody
    executes the run, that is said with the command that continues it; where there is no terminal,
    the watching ends after 30 s of it, with exit code 5.
    """
    if not wait and not run.exists():
        raise RunError(f"there is no {run}: if the run begins later, wait for it with --wait")
    try:
        if wait:
            _wait_for(run, every)
    except KeyboardInterrupt:
        say("The waiting ended; no run has begun there.")
        return
    check_run(run)

    from dpsd.privacy.records.statement import Statement
    from dpsd.reporting.watching import follow
    from dpsd.runs.directory import RunDirectory

    directory = RunDirectory.open(run)
    try:
        look = follow(directory, RESULTS, every=every)
    except KeyboardInterrupt:
        if directory.is_executed() is False and not directory.is_finished():
            say(
                "The watching ended. Nobody is executing the run here; continue it with: "
                f"{directory.resuming}"
            )
        else:
            say("The watching ended; the run goes on.")
        return
    if look.certificate is not None:
        claim = Statement(certificate=look.certificate).claim.replace("`", "")
        say(f"The run is finished. It spent {claim}.")


def _wait_for(run: Path, every: float) -> None:
    """Wait until a run has written its settings."""
    if not (run / CONFIG_FILE).is_file():
        STATUS.print(
            f"waiting for a run to begin in {run}; Ctrl-C ends the waiting", soft_wrap=True
        )
    while not (run / CONFIG_FILE).is_file():
        time.sleep(every)

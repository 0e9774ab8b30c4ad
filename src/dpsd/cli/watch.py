"""``dpsd watch``: follows a run in the terminal, whichever process or machine makes it."""

from __future__ import annotations

from typing import Annotated

import typer

from dpsd.cli.console import RESULTS, say
from dpsd.cli.results import RunPath
from dpsd.runs.files import check_run


def watch(
    run: RunPath,
    every: Annotated[
        float, typer.Option(min=0.1, help="The seconds between two looks at the run's files.")
    ] = 1.0,
) -> None:
    """Follow a run until it is finished, from its files alone.

    Example: dpsd watch runs/digits

    The flag to know first is --every. The run may be made by another process, or by another machine
    that shares the folder. Ctrl-C ends the watching, and the run goes on.
    """
    check_run(run)

    from dpsd.privacy.records.statement import Statement
    from dpsd.reporting.watching import follow
    from dpsd.runs.directory import RunDirectory

    try:
        look = follow(RunDirectory.open(run), RESULTS, every=every)
    except KeyboardInterrupt:
        say("The watching ended; the run goes on.")
        return
    if look.certificate is not None:
        claim = Statement(certificate=look.certificate).claim.replace("`", "")
        say(f"The run is finished. It spent {claim}.")

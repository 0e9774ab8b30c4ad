"""``dpsd budget``: what a teacher has spent in all its runs, and the cap on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dpsd.cli.choices import Words
from dpsd.cli.console import grid, hint, say, say_json, show, warn
from dpsd.cli.errors import PARTS_OF_TEACHER, spell
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.teachers.address import ServiceOptions, is_service
from dpsd.teachers.kinds import TEACHER_HELP, check_source

if TYPE_CHECKING:
    from dpsd.privacy.records.accounts import Accounts
    from dpsd.teachers.calling import InputScale, Layout

_CALLED = "As for `dpsd transcribe`."


def budget(
    ctx: typer.Context,
    teacher: Annotated[
        str,
        typer.Argument(help=TEACHER_HELP),
    ],
    teacher_weights: Annotated[
        str | None, typer.Option(help="State dict for a teacher from a factory.", metavar="PATH")
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Channels, height and width of an image, if the teacher's file does not state "
            "them."
        ),
    ] = None,
    budget_file: Annotated[
        Path | None,
        typer.Option(help="A second budget file, in addition to the usual one beside the teacher."),
    ] = None,
    layout: Annotated[
        str, typer.Option(click_type=Words(["auto", "nchw", "nhwc", "flat"]), help=_CALLED)
    ] = "auto",
    input_scale: Annotated[
        str, typer.Option(click_type=Words(["1", "255", "uint8"]), help=_CALLED)
    ] = "1",
    output: Annotated[str | None, typer.Option(help=_CALLED)] = None,
    delta: Annotated[float, typer.Option(help="δ at which ε is stated.")] = 1e-5,
    cap: Annotated[
        str | None,
        typer.Option(
            help="Set the cap on what all runs together may spend: EPSILON,DELTA,ADJACENCY; none "
            "removes it. With --budget-file, the cap is recorded in that file.",
            metavar="EPSILON,DELTA,ADJACENCY",
        ),
    ] = None,
    count_earlier: Annotated[
        bool,
        typer.Option(
            "--count-earlier",
            help="Use this if the teacher's file was changed or replaced: what the budget beside "
            "it records of the earlier file counts for this teacher from now on.",
        ),
    ] = False,
    ca_bundle: Annotated[
        str | None,
        typer.Option(help="PEM file with the authorities that certify a service.", metavar="PATH"),
    ] = None,
    plain_http: Annotated[
        bool,
        typer.Option(
            "--plain-http", help="Ask a service on another machine without encryption (http://)."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every run that asked a teacher, and what the runs spent together.

    A budget belongs to a teacher, which is identified by the hash of its content, and the costs of
    the teacher's runs add up. Once --cap is set, a run that would exceed the cap is refused before
    it asks anything.

    Example: dpsd budget teacher --cap 10,1e-5,round

    The flags to know first are --cap, and --delta, the δ at which ε is stated.

    In a directory of several teachers, each has a budget of its own: the budget of the teacher that
    has spent most is shown, and --cap is set for each teacher.
    """
    spell(ctx, PARTS_OF_TEACHER)
    Budget(epsilon=1.0, delta=delta)  # checks δ
    limit = None if cap == "none" else Budget.of_cap(cap)
    shape: Any = None
    if input_shape is not None:
        try:
            shape = tuple(int(side) for side in input_shape.split(","))
        except ValueError:
            raise ConfigError(
                f"--input-shape is {input_shape!r}; give channels, height, width, as in 1,28,28"
            ) from None
    check_source(teacher, plain_http=plain_http)
    called = ServiceOptions(ca_bundle=ca_bundle, plain_http=plain_http)

    from dpsd.runs.budgets import budget_of, count_uncounted, set_cap
    from dpsd.teachers import load_teacher

    loaded = load_teacher(
        teacher,
        weights=teacher_weights,
        input_shape=shape,
        layout=cast("Layout", layout),
        input_scale=cast("InputScale", input_scale),
        output=output,
        service=called if called.chosen() or is_service(teacher) else None,
    )
    found = budget_of(loaded, budget_file)
    if found is None or (cap is not None and found.unknown):
        which = teacher if found is None else found.unknown[0]
        raise ConfigError(
            f"{which} has no content to identify it by; say with --budget-file where its budget is"
        )
    if count_earlier:
        count_uncounted(found)
    if cap is not None:
        set_cap(found, limit, path=budget_file)
    if as_json:
        say_json(_as_json(found, delta))
    else:
        _show(found, delta)


def _as_json(accounts: Accounts, delta: float) -> dict[str, Any]:
    account = accounts.most_spent(delta=delta)
    caps = account.caps()
    return {
        "teacher": account.teacher,
        "file": str(account.budgets[0].path),
        "cap": caps[0][0].to_dict() if caps else None,
        "runs": [
            {
                "run": run.run,
                "directory": run.directory,
                "started": run.started,
                "mechanism": run.mechanism,
                "events": asdict(run.spending.exposure),
                "private": run.private,
            }
            for run in account.runs()
        ],
        "spent": asdict(account.spent(delta=delta)),
        "accounts": [
            {
                "name": one.name,
                "teacher": one.teacher,
                "files": [str(budget.path) for budget in one.budgets],
                "caps": [{**cap.to_dict(), "file": str(path)} for cap, path in one.caps()],
                "spent": asdict(one.spent(delta=delta)),
            }
            for one in accounts.accounts
        ],
    }


def _show(accounts: Accounts, delta: float) -> None:
    from dpsd.privacy.accounting import format_epsilon, spent_together
    from dpsd.privacy.records.certificate import NOT_PRIVATE

    account = accounts.most_spent(delta=delta)
    if len(accounts.accounts) > 1:
        say(
            f"{len(accounts.accounts)} teachers, each with a budget of its own; the one that has "
            f"spent most is {account.name}:"
        )
    say(f"teacher {account.teacher}")
    for budget in account.budgets:
        is_there = "" if budget.path.exists() else " (no such file yet: nothing is on record)"
        say(f"budget  {budget.path}{is_there}")
    for path in dict.fromkeys(committee.path for committee in account.committees):
        say(f"budget  {path} (of a committee, by an earlier dpsd)")
    runs = account.runs()
    kinds = [f"ε {kind.value}" for kind in Adjacency]
    table = grid("started", "run", "answers", *kinds, right=("answers", *kinds))
    for run in runs:
        alone = spent_together([run.spending], delta=delta)
        table.add_row(
            run.started[:10],
            Path(run.directory).name + ("" if run.private else " (not private)"),
            f"{run.spending.exposure.teacher:,}",
            *(format_epsilon(alone.under(kind)) for kind in Adjacency),
        )
    together = account.spent(delta=delta)
    answers = sum(run.spending.exposure.teacher for run in runs)
    table.add_row(
        "",
        "all together",
        f"{answers:,}",
        *(format_epsilon(together.under(kind)) for kind in Adjacency),
        style="bold",
    )
    say(f"\nSpent, at δ = {delta:g} (replace-one), under each adjacency:")
    show(table)
    _show_caps(accounts)
    for _, uncounted in accounts.uncounted():
        hint(
            f"{uncounted.describe(delta=delta, adjacency=Adjacency.TEACHER)}. If the teacher's "
            "file was changed or replaced since, count them with --count-earlier"
        )
    for name in accounts.unknown:
        warn(f"{name} has no content to identify it by, and no budget: name one with --budget-file")
    if not all(run.private for run in runs):
        warn(NOT_PRIVATE)


def _show_caps(accounts: Accounts) -> None:
    """Show every cap once, with the spending of the teacher that is nearest to it."""
    from dpsd.privacy.accounting import format_epsilon

    highest: dict[Budget, tuple[float, Path]] = {}
    for account in accounts.accounts:
        for cap, path in account.caps():
            at_cap = account.spent(delta=cap.delta).under(cap.adjacency)
            if cap not in highest or at_cap > highest[cap][0]:
                highest[cap] = at_cap, path
    if not highest:
        say("No cap is set: --cap EPSILON,DELTA,ADJACENCY sets one.")
    for cap, (at_cap, path) in highest.items():
        say(
            f"Cap: ε = {cap.epsilon:g} at δ = {cap.delta:g} under {cap.adjacency.value}, of which "
            f"{format_epsilon(at_cap)} is spent ({path})."
            + (" It is exceeded: no further run is allowed." if cap.is_exceeded_by(at_cap) else "")
        )

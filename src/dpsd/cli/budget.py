"""``dpsd budget``: what a teacher has spent in all its runs, and how much it may."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpsd.cli.console import grid, say, show, warn
from dpsd.errors import ConfigError

if TYPE_CHECKING:
    from dpsd.privacy.teacher_budget import TeacherBudget


def budget(
    teacher: Annotated[
        str, typer.Argument(help="Teacher: directory, .onnx, .pt2 or package.module:factory.")
    ],
    weights: Annotated[
        str | None, typer.Option(help="State dict of a factory's teacher.", metavar="PATH")
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(help="Channels, height, width; where the teacher's file does not say."),
    ] = None,
    budget_file: Annotated[
        Path | None,
        typer.Option(help="Where the budget is kept.", show_default="beside the teacher"),
    ] = None,
    delta: Annotated[float, typer.Option(help="δ at which ε is stated.")] = 1e-5,
    cap: Annotated[
        str | None,
        typer.Option(
            help="Set what all runs together may spend: EPSILON,DELTA,ADJACENCY; none lifts it.",
            metavar="EPSILON,DELTA,ADJACENCY",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every run that asked a teacher, and what they spent together.

    Budget belongs to the teacher, known by the hash of its content: costs of its runs add up. With
    --cap, a run that would exceed it is refused before it asks anything.
    """
    from dpsd.budgets import budget_of
    from dpsd.locks import exclusively
    from dpsd.privacy.accounting import Budget
    from dpsd.teachers import load_teacher

    Budget(epsilon=1.0, delta=delta)  # is it a δ?
    shape: Any = None
    if input_shape is not None:
        try:
            shape = tuple(int(side) for side in input_shape.split(","))
        except ValueError:
            raise ConfigError(
                f"--input-shape is {input_shape!r}; write channels, height, width, as in 1,28,28"
            ) from None
    loaded = load_teacher(teacher, weights=weights, input_shape=shape)
    found = budget_of(loaded, budget_file)
    if found is None:
        raise ConfigError(
            f"{teacher} has no content to know it by; say with --budget-file where its budget is"
        )
    if cap is not None:
        limit = None if cap == "none" else Budget.parse(cap)
        found.path.parent.mkdir(parents=True, exist_ok=True)
        with exclusively(found.path):
            found.set_cap(limit)
    if as_json:
        say(json.dumps(_as_json(found, delta), indent=2))
    else:
        _show(found, delta)


def _as_json(budget: TeacherBudget, delta: float) -> dict[str, Any]:
    cap = budget.cap()
    return {
        "teacher": budget.teacher,
        "file": str(budget.path),
        "cap": None if cap is None else cap.to_dict(),
        "runs": [
            {
                "run": run.run,
                "directory": run.directory,
                "started": run.started,
                "mechanism": run.mechanism,
                "events": asdict(run.spending.exposure),
                "private": run.private,
            }
            for run in budget.runs()
        ],
        "spent": asdict(budget.spent(delta=delta)),
    }


def _show(budget: TeacherBudget, delta: float) -> None:
    from dpsd.privacy.accounting import Adjacency, format_epsilon, spent_together
    from dpsd.privacy.certificate import NOT_PRIVATE

    say(f"teacher {budget.teacher}")
    is_there = "" if budget.path.exists() else " (no such file yet: nothing is on record)"
    say(f"budget  {budget.path}{is_there}")
    runs = budget.runs()
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
    together = budget.spent(delta=delta)
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
    cap = budget.cap()
    if cap is None:
        say("No cap is set: --cap EPSILON,DELTA,ADJACENCY sets one.")
    else:
        at_cap = budget.spent(delta=cap.delta).under(cap.adjacency)
        say(
            f"Cap: ε = {cap.epsilon:g} at δ = {cap.delta:g} under {cap.adjacency.value}, of which "
            f"{format_epsilon(at_cap)} is spent."
            + (" It is exceeded: no further run is let in." if cap.is_exceeded_by(at_cap) else "")
        )
    if not all(run.private for run in runs):
        warn(NOT_PRIVATE)

"""``dpsd bench``: the field's tables, measured on this machine."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpsd.benchmarks.names import check_suite
from dpsd.cli.console import STATUS, grid, hint, say, show, warn
from dpsd.datasets import check_dataset
from dpsd.datasets.published import RECORDS
from dpsd.errors import (
    ConfigError,
    DataError,
    DpsdError,
    MissingDataError,
    RunError,
    UnknownNameError,
    unwritable,
)
from dpsd.models import model_names
from dpsd.shell import command_line

if TYPE_CHECKING:
    from dpsd.benchmarks.methods import Task
    from dpsd.benchmarks.rows import Row
    from dpsd.benchmarks.suites.suite import Suite


def bench(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="data-sensitive, label-sensitive, transfer, sensitivity, ablation, speed, "
            "scale, federated or synthetic.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="The data sets to measure on; by default the suite's own that are here.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row, with seeds 0, 1, ….")] = 1,
    share: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=100.0,
            help="Share of the queries that one teacher is asked, for a look. Generators, many "
            "teachers and baselines stay as they are.",
        ),
    ] = 1.0,
    only: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Only the row of this name, or all that contain it."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where results, table and figure go, in a folder of the suite's.")
    ] = Path("bench"),
    teachers: Annotated[
        Path | None,
        typer.Option(help="Where trained teachers are kept; under --out if not given."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The teacher's and students' architecture; suited to the data if unset."),
    ] = None,
    validation_share: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=0.9,
            help="Measure on validation data instead of the test split, to choose settings: on the "
            "data set's validation split, or without one, on this share of the training records, "
            "which teachers and baselines then do not get.",
            show_default="measure on the test split",
        ),
    ] = 0.0,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Another value of a setting of the chosen rows; may be given several times.",
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Measure anew what another version of dpsd kept; it is shown otherwise."
        ),
    ] = False,
    show_rows: Annotated[
        bool, typer.Option("--list", help="Name the suite's rows and stop; needs no data.")
    ] = False,
) -> None:
    """Measure one of the field's tables: methods and baselines side by side.

    Each row is a method on the same data and teacher, at a privacy target, and says what its ε is
    about. Rows run one after the other, each in a process of its own, and each result is kept as
    soon as it is there: after Ctrl-C the same command goes on where it was. A whole suite takes
    hours on two cores; --share 0.1 and --only give a look. Baselines with DP-SGD need Opacus.

    --set changes a setting of the chosen rows: of recipe, mechanism or baseline, or the target's
    epsilon or delta. Such rows are kept and shown under names that say so.

    Rows that were kept by another version of dpsd, whose code or defaults may give other figures,
    are shown and named as such, until --again measures them anew.

    Example: dpsd bench data-sensitive --only mnist/1/dp-sgd --set epochs=10
    """
    check_suite(name)
    if model is not None and model not in model_names():
        raise UnknownNameError("model", model, model_names())
    if not math.isfinite(share):
        raise ConfigError(f"--share {share} is no share: give 0.001 to 100")
    changed = _parsed(changes or [])
    named = [part.strip() for part in data.split(",")] if data else []
    for one in named:
        check_dataset(one)

    from dpsd.benchmarks.figures import draw
    from dpsd.benchmarks.kept import Measured
    from dpsd.benchmarks.methods import PublishedTask, Task
    from dpsd.benchmarks.rows import Quoted
    from dpsd.benchmarks.running import kept_by_others, measure_all
    from dpsd.benchmarks.suites.registry import SUITES
    from dpsd.benchmarks.tables import cells, comma_separated, markdown, summarise

    suite = SUITES[name]
    wanted = list(dict.fromkeys(named or [*suite.data, *suite.besides]))
    folder = out / name
    missed = named or suite.data
    present: list[Task] = []
    skipped: list[DpsdError] = []
    for one in wanted:
        # Rows of what is wanted can be named before it is here, but for data nobody describes.
        is_listed = show_rows and one in missed and one in RECORDS
        kind = PublishedTask if is_listed else Task
        task = kind(
            data=one,
            teachers=teachers or out / "teachers",
            model=model or "",
            validation_share=validation_share,
        )
        if is_listed or _is_here(task, missed=one in missed, skipped=skipped):
            present.append(task)
    rows = [row for task in present for row in _rows_of(suite, task, share, skipped)]
    for problem in skipped:
        # A list needs no data, but damaged ones are not passed over in silence.
        if not (show_rows and rows and isinstance(problem, MissingDataError)):
            warn(f"skipped: {problem}")
    if not present:
        raise DataError(f"none of these data sets is here: {', '.join(missed)}")
    if not rows:
        raise DataError(f"of {', '.join(wanted)} nothing can be measured; the warnings say why")
    rows = _chosen(rows, only, changed)
    if show_rows:
        for row in rows:
            say(row.key)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(
            error, f"--out {out}", mend="give a folder that can be written to", kind=ConfigError
        ) from None

    options = ["--data", ",".join(wanted)] if data else []
    options += ["--seeds", str(seeds)] + (["--share", f"{share:g}"] if share != 1 else [])
    options += ["--only", only] if only else []
    options += [part for change in changed.items() for part in ("--set", "=".join(change))]
    options += ["--model", model] if model else []
    options += ["--validation-share", f"{validation_share:g}"] if validation_share else []
    command = command_line("dpsd", "bench", name, *options)
    results = folder / "results.jsonl"
    if not again and (others := kept_by_others(rows, seeds=seeds, results=results)):
        warn(f"rows {others}; they are shown as they are, and --again measures them anew")
    found: list[Measured] = []
    lacking: list[str] = []

    def began(row: Row, seed: int) -> None:
        status.update(f"measuring {row.key}, seed {seed}")
        if not STATUS.is_terminal:  # which shows no status
            STATUS.print(f"measuring {row.key}, seed {seed}")

    def ended(measured: Measured) -> None:
        found.append(measured)
        accuracy = measured.outcome.accuracy
        reached = "" if accuracy is None else f"{accuracy:.2%}, "
        STATUS.print(
            f"{measured.row}, seed {measured.seed}: {reached}{measured.outcome.seconds:.0f} s"
        )

    def failed(row: Row, seed: int, error: DpsdError) -> None:
        lacking.append(f"{row.key}, seed {seed}")
        warn(f"{row.key}, seed {seed}: {error}")

    try:
        with STATUS.status("") as status:
            measure_all(
                rows,
                seeds=seeds,
                results=results,
                again=again,
                began=began,
                ended=ended,
                failed=failed,
            )
    except KeyboardInterrupt:
        wanted_runs = seeds * sum(not isinstance(row.method, Quoted) for row in rows)
        hint(f"{len(found)} of {wanted_runs} are measured and kept; the same command goes on")
        raise
    finally:  # of a suite that was interrupted, too
        summaries = summarise(rows, found)
        if found:
            title = suite.title + (f", a look at {share:g} of the queries" if share < 1 else "")
            title += ", on validation data" if validation_share else ""
            text = markdown(
                title,
                summaries,
                command=command,
                columns=suite.columns,
                note=suite.noted(summaries),
            )
            (folder / f"{name}.md").write_text(text, encoding="utf-8")
            (folder / f"{name}.csv").write_text(
                comma_separated(summaries, share=share), encoding="utf-8"
            )
            draw(suite.figure, title, summaries, folder / f"{name}.png")
    if lacking and not found:
        raise RunError(f"{name}: no row could be measured; the warnings above say why")
    columns = [column for column in suite.columns if column.in_terminal]
    right = tuple(column.name for column in columns if column.is_number)
    table = grid(*(column.name for column in columns), right=right)
    for summary in summaries:
        table.add_row(*cells(summary, columns, among=summaries))
    show(table)
    if share < 1:
        say(f"a look at {share:g} of the queries that one teacher is asked")
    if found:
        hint(
            f"{folder / name}.md, .csv and .png hold these rows; what else was measured stays in "
            f"{results}, and its command makes its table again"
        )
    if lacking:
        raise RunError(
            f"{name}: {len(lacking)} could not be measured ({', '.join(lacking)}); "
            "the warnings above say why"
        )


def _parsed(changes: list[str]) -> dict[str, str]:
    """The values of ``--set`` by field, which may be written as a flag is, with dashes."""
    found: dict[str, str] = {}
    for change in changes:
        name, sign, value = change.partition("=")
        field = name.strip().replace("-", "_")
        if not (sign and field):
            raise ConfigError(f"--set {change!r}: write FIELD=VALUE, as in --set queries=10000")
        if field in found:
            raise ConfigError(f"--set {field} is given twice: leave one out")
        found[field] = value.strip()
    return found


def _chosen(rows: list[Row], only: str | None, changes: dict[str, str]) -> list[Row]:
    """The rows that are to be measured, with their changes."""
    from dpsd.benchmarks.changing import changed

    if only is not None:
        names = [row.key for row in rows]
        rows = [row for row in rows if row.key == only] or [row for row in rows if only in row.key]
        if not rows:
            near = difflib.get_close_matches(only, names, n=1, cutoff=0.4)
            mend = f"did you mean {near[0]!r}? --list names all" if near else "--list names them"
            raise ConfigError(f"--only {only!r}: no row's name contains it; {mend}")
    try:
        return [changed(row, changes) for row in rows] if changes else rows
    except ConfigError as error:
        raise ConfigError(f"--set {error}") from None


def _rows_of(suite: Suite, task: Task, share: float, skipped: list[DpsdError]) -> list[Row]:
    try:
        return list(suite.rows(task, share))
    except DpsdError as error:  # the training split is not there, or too large to be read
        skipped.append(error)
        return []


def _is_here(task: Task, *, missed: bool, skipped: list[DpsdError]) -> bool:
    try:
        task.measured_on  # noqa: B018 - is it here?
    except DataError as error:
        if missed or not isinstance(error, MissingDataError):
            skipped.append(error)
        return False
    return True

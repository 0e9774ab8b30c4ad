"""``dpsd data`` and ``dpsd models``: list and fetch what has a name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from dpsd.cli.console import STATUS, grid, say, show
from dpsd.cli.errors import Command, spell
from dpsd.datasets import data_root, dataset_names, fetch, fetchable_names
from dpsd.models import generator_names, model_names
from dpsd.models.names import feature_names
from dpsd.synthesis.names import source_names

INTRODUCTION = """
List and fetch data sets for training and measuring teachers.

Example: dpsd data fetch mnist

A fetched data set is used by its name, as in `dpsd train-teacher --data mnist`.
"""

app = typer.Typer(no_args_is_help=True, help=INTRODUCTION)

Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="The folder of data sets; by default the one that DPSD_DATA names, else the cache.",
    ),
]


@app.command("list", cls=Command)
def list_data(root: Root = None) -> None:
    """List the data sets that dpsd can read, and those that it can fetch.

    Example: dpsd data list

    The flag to know first is --root, for data sets that lie elsewhere.
    """
    table = grid("name", "where it comes from")
    for name in dataset_names():
        if name == "digits":
            origin = "comes with scikit-learn"
        elif name in fetchable_names():
            origin = f"dpsd data fetch {name}"
        else:
            origin = ""
        table.add_row(name, origin)
    table.add_row("folder:PATH", "your own images, one folder per class")
    table.add_row("PATH.npz", "your own arrays, in MedMNIST's layout")
    show(table)
    say(
        "\nData sets without an entry here must be put in place by hand; the error on first use "
        "says where to get them."
    )
    say(f"Data sets are looked for in {root or data_root()} (set DPSD_DATA to change that).")


@app.command("fetch", cls=Command)
def fetch_data(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The data set: mnist or fashion-mnist.")],
    root: Root = None,
    mirror: Annotated[
        str | None, typer.Option(help="URL of a folder to fetch from instead.")
    ] = None,
) -> None:
    """Download a data set, and verify it by its checksums.

    Example: dpsd data fetch fashion-mnist

    The flags to know first are --root, the folder to store it in, and --mirror, another server.
    """
    spell(ctx, {"base_url": "--mirror"})
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=STATUS,
        disable=not STATUS.is_terminal,
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(file: str, done: int, total: int) -> None:
            if file not in tasks:
                tasks[file] = progress.add_task(file)
            progress.update(tasks[file], completed=done, total=total or None)

        files = fetch(name, root or data_root(), base_url=mirror, progress=advance)
    say(f"{name} is in {files[0].parent}")


def models() -> None:
    """List the names of models, generators, public sources of queries and frozen features.

    Example: dpsd models
    """
    table = grid("kind", "used as", "names")
    table.add_row("models", "--model, --student", ", ".join(model_names()))
    table.add_row("generators", "--generator", ", ".join(generator_names()))
    table.add_row("sources", "--sources", ", ".join(source_names()))
    table.add_row("features", "--features", ", ".join(feature_names()))
    show(table)
    say("\nGive a model, generator or features of your own as package.module:factory.")

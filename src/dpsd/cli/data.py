"""``dpsd data`` and ``dpsd models``: what there is by name."""

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
from dpsd.cli.errors import Command
from dpsd.datasets import data_root, dataset_names, fetch, fetchable_names
from dpsd.models import generator_names, model_names
from dpsd.synthesis.names import source_names

app = typer.Typer(no_args_is_help=True, help="Data sets for training and measuring teachers.")

Root = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of data sets; by default DPSD_DATA, else the cache."),
]


@app.command("list", cls=Command)
def list_data(root: Root = None) -> None:
    """List the data sets that dpsd can read, and those that it can fetch."""
    table = grid("name", "where it comes from")
    for name in dataset_names():
        if name == "digits":
            origin = "comes with scikit-learn"
        elif name in fetchable_names():
            origin = f"dpsd data fetch {name}"
        else:
            origin = ""
        table.add_row(name, origin)
    table.add_row("folder:PATH", "your own images, one folder a class")
    table.add_row("PATH.npz", "your own arrays, in MedMNIST's layout")
    show(table)
    say("\nWhere nothing is said, put it there yourself; using it says where to get it.")
    say(f"Data sets are looked for in {root or data_root()} (set DPSD_DATA to change that).")


@app.command("fetch", cls=Command)
def fetch_data(
    name: Annotated[str, typer.Argument(help="mnist or fashion-mnist.")],
    root: Root = None,
    mirror: Annotated[
        str | None, typer.Option(help="Address of a folder to fetch from instead.")
    ] = None,
) -> None:
    """Download a data set, checked by its checksums."""
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
    """List the names of models, generators and public sources of queries."""
    table = grid("kind", "used as", "names")
    table.add_row("models", "--model, --student", ", ".join(model_names()))
    table.add_row("generators", "--generator", ", ".join(generator_names()))
    table.add_row("sources", "--sources", ", ".join(source_names()))
    show(table)
    say("\nA model or generator of your own is package.module:factory.")

"""The commands by name, and the entry point of the command line."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import click
import typer

from dpsd.cli import (
    attack,
    audit,
    bench,
    budget,
    data,
    demo,
    evaluating,
    federate,
    report,
    results,
    train,
    watch,
)
from dpsd.cli.errors import BuiltCommand, Command, CommandGroup, accept_earlier_names

# Each paragraph is one line, which is wrapped to the width of the terminal when it is shown.
INTRODUCTION = """
Turn a trained classifier, the teacher, into a fresh one, the student, through privatised \
answers to synthetic queries alone.

`dpsd demo` shows the whole process in three minutes. A first session, on handwritten digits that \
come with dpsd:

\b
  dpsd train-teacher --data digits --out teacher
  dpsd transcribe teacher --epsilon 1 --adjacency response --out runs/digits
  dpsd evaluate runs/digits --data digits
  dpsd sample runs/digits --count 1000 --out synthetic
  dpsd export runs/digits --to student.onnx
  dpsd certify runs/digits
  dpsd report runs/digits

If you have a teacher of your own (.onnx, .pt2, hf:FOLDER or package.module:factory), start with \
`inspect`, then `transcribe`. An ε means nothing without its adjacency, so each ε is shown with \
its own; `dpsd certify` says in plain words what a run promises and what it does not. Every \
command explains itself with `--help`.
"""

app = typer.Typer(
    cls=CommandGroup,
    help=INTRODUCTION,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)


class _Built(BuiltCommand):
    def built(self) -> click.Command:
        if self.name == "inspect":
            from dpsd.cli.inspecting import command
        else:
            from dpsd.cli.transcribe import command
        return command()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dpsd {version('dpsd')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", hidden=True, envvar="DPSD_DEBUG", help="Show tracebacks.")
    ] = False,
) -> None:
    pass


@app.command("transcribe", cls=_Built)
def _transcribe() -> None:
    """Turn a teacher into a student through privatised answers."""


@app.command("inspect", cls=_Built)
def _inspect() -> None:
    """Say what a teacher is, how it would be called and how fast it answers."""


app.command("train-teacher", cls=Command)(train.train_teacher)
for _command in (
    *(watch.watch, evaluating.evaluate, results.sample, results.export, results.certify),
    *(report.report, budget.budget, attack.attack, audit.audit, bench.bench, data.models),
    demo.demo,
):
    _loads_teacher = _command is budget.budget
    app.command(
        cls=Command,
        context_settings={"token_normalize_func": accept_earlier_names} if _loads_teacher else None,
    )(_command)
app.add_typer(federate.app, name="federate")
app.add_typer(data.app, name="data")
# The commands are listed in the order in which a user needs them.
app.registered_commands.insert(0, app.registered_commands.pop(2))


def main() -> None:
    """The entry point of ``dpsd``."""
    app(prog_name="dpsd")

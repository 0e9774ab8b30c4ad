"""Errors become one line on stderr and an exit code; a traceback is shown only on request."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from typing import Any

import click
from typer.core import TyperCommand, TyperGroup

from dpsd.cli.console import STATUS, complain, hint
from dpsd.cli.encoding import settle
from dpsd.cli.helping import SpelledHelp, shown_in_list
from dpsd.errors import DpsdError, RunError, is_full, reason

#: Exit codes in addition to those of the errors in :mod:`dpsd.errors`.
USAGE, NO_RESOURCES, BUG, INTERRUPTED = 2, 6, 70, 130

#: The key under which a command tells its group how its parameters are spelled.
_SPELLINGS = "dpsd.spellings"


#: Flags that have another name in Python, where a teacher is loaded.
PARTS_OF_TEACHER = {
    "weights": "--teacher-weights",
    "normalization": "--mean and --deviation",
}


def unwrapped(text: str) -> str:
    """Return text with each paragraph joined into one line.

    >>> unwrapped("One\\nand the same.\\n\\nAnother.")
    'One and the same.\\n\\nAnother.'
    """
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


class Command(SpelledHelp, TyperCommand):
    """A command whose errors spell settings as flags, as in ``--top-k``."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its group shows any error."""
        ctx.meta[_SPELLINGS] = {
            str(parameter.name): parameter.opts[0]
            if isinstance(parameter, click.Option)
            else str(parameter.name).upper()
            for parameter in self.params
        }
        return super().invoke(ctx)


class BuiltCommand(Command):
    """A stand-in for a command whose flags are built from a configuration on first use."""

    def built(self) -> click.Command:
        """Return the command with all its flags; what is slow to import is imported here."""
        raise NotImplementedError

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        return self.built().make_context(info_name, args, parent=parent, **extra)


def spell(ctx: click.Context, names: Mapping[str, str]) -> None:
    """Let the command's errors spell these settings as given, instead of as flags."""
    ctx.meta[_SPELLINGS] |= names


def worded(error: DpsdError) -> str:
    """Return an error's message with the settings as the command that is running spells them."""
    context = click.get_current_context(silent=True)
    return described(error, {} if context is None else context.meta.get(_SPELLINGS, {}))[0]


def accept_earlier_names(name: str) -> str:
    """Return the name of a flag, without its dashes, that is meant by an earlier name of it.

    >>> accept_earlier_names("weights"), accept_earlier_names("epsilon")
    ('teacher-weights', 'epsilon')
    """
    return {"weights": "teacher-weights"}.get(name, name)


class CommandGroup(SpelledHelp, TyperGroup):
    """A group of commands that reports an error in one line.

    ``--debug``, or ``DPSD_DEBUG=1``, shows the traceback instead, without local variables: they
    may hold a teacher's answers.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, with help text that wraps to the terminal instead of as in source."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.help:
            command.help = unwrapped(command.help)
        return command and shown_in_list(command)

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command line, on streams that never fail for the encoding that they have."""
        settle(sys.stdout, sys.stderr)
        return super().main(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; every exception but click's own ends here."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            STATUS.print("interrupted")
            raise click.exceptions.Exit(INTERRUPTED) from None
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            message, code = described(error, ctx.meta.get(_SPELLINGS, {}))
            complain("error", message, "bold red")
            if isinstance(error, click.UsageError) and error.ctx is not None:
                hint(f"{error.ctx.command_path} --help")
            raise click.exceptions.Exit(code) from None


def described(
    error: Exception, spellings: Mapping[str, str] = types.MappingProxyType({})
) -> tuple[str, int]:
    """Return the message about an exception for the user, and the exit code.

    Args:
        error: the exception.
        spellings: the user's spelling of each setting that a message may name.

    >>> import errno
    >>> described(OSError(errno.ENOSPC, "No space left on device", "runs/mnist"))
    ('the disk is full (runs/mnist): free some space and try again', 6)
    """
    if isinstance(error, DpsdError):
        return error.spelled(lambda name: spellings.get(name, name)), error.exit_code
    if isinstance(error, click.ClickException):
        return error.format_message(), USAGE
    if isinstance(error, MemoryError) or _is_allocation_failure(error):
        return (
            "out of memory: use smaller batches (--batch-size, --generator-batch-size), fewer "
            "--queries a round, or a smaller model",
            NO_RESOURCES,
        )
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        if is_full(error):
            return f"the disk is full{place}: free some space and try again", NO_RESOURCES
        return f"{reason(error)}{place}", RunError.exit_code
    return (
        f"{type(error).__name__} inside dpsd, which is a bug in dpsd: please report it with the "
        "output of the same command under DPSD_DEBUG=1",
        BUG,
    )


def _is_allocation_failure(error: Exception) -> bool:
    # torch raises its own error for accelerators, but a plain RuntimeError for main memory.
    name, message = type(error).__name__, str(error)
    return name == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "can't allocate memory" in message
    )

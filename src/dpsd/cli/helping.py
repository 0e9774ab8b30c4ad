"""The help of commands, with all signs that the output's encoding has, and others in ASCII.

The text is spelled before it is laid out in boxes, whose sides would be crooked otherwise.
"""

from __future__ import annotations

import copy
import sys

import click

from dpsd.cli.encoding import can_say_all, spelled


class SpelledHelp(click.Command):
    """A command whose help can be shown in any encoding."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the help, spelled for the encoding of standard output."""
        if can_say_all(sys.stdout):
            super().format_help(ctx, formatter)
            return
        encoding = sys.stdout.encoding
        shown = copy.copy(self)  # as the command may be shown in another encoding later
        shown.help = self.help and spelled(self.help, encoding)
        shown.params = [_spelled(parameter, encoding) for parameter in self.params]
        super(SpelledHelp, shown).format_help(ctx, formatter)


def shown_in_list(command: click.Command) -> click.Command:
    """Return a command as a list of commands shows it: its first lines, spelled for the output."""
    if command.help and not can_say_all(sys.stdout):
        command = copy.copy(command)
        command.help = spelled(command.help or "", sys.stdout.encoding)
    return command


def _spelled(parameter: click.Parameter, encoding: str) -> click.Parameter:
    shown = copy.copy(parameter)
    for name in ("help", "metavar", "show_default"):
        text = getattr(parameter, name, None)
        if isinstance(text, str):
            setattr(shown, name, spelled(text, encoding))
    return shown

"""What the scripts beside this file say of themselves with ``--help``: their docstring, whole."""

from __future__ import annotations

import argparse


def explained(doc: str | None) -> argparse.ArgumentParser:
    """A parser of arguments that shows a docstring as it is written, and every default."""
    return argparse.ArgumentParser(description=doc, formatter_class=_Whole)


class _Whole(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description, and says the default of each argument that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.default
        # By identity, as 0 is equal to False and is a default worth saying.
        if any(shown is one for one in (None, False, argparse.SUPPRESS)) or not action.help:
            return action.help
        if isinstance(shown, list | tuple):
            shown = " ".join(f'"{one}"' if " " in str(one) else str(one) for one in shown)
        return f"{action.help} (default: {shown})".replace("%", "%%")

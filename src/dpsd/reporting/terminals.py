"""Consoles that stay the size of their terminal while a teacher answers.

>>> SteadyConsole(width=60).size.width
60
"""

from __future__ import annotations

import os
from contextlib import suppress

from rich.console import Console, ConsoleDimensions


class SteadyConsole(Console):
    """A console that asks the terminal it writes to for the terminal's size.

    Rich asks the standard streams, which are redirected while a teacher answers, so a bar would be
    drawn as if the terminal had eighty columns.
    """

    @property  # type: ignore[misc]  # never set
    def size(self) -> ConsoleDimensions:
        """The size of the terminal, in characters."""
        if "COLUMNS" not in os.environ and self._width is None:
            with suppress(OSError, ValueError, AttributeError):
                columns, lines = os.get_terminal_size(self.file.fileno())
                if columns and lines:  # some terminals do not know
                    return ConsoleDimensions(columns, lines)
        return super().size

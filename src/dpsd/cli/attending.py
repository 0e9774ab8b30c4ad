"""What a client of a federation shows its operator while it waits and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.status import Status
from rich.text import Text

from dpsd.cli.console import STATUS, warn
from dpsd.cli.encoding import spelled
from dpsd.errors import DpsdError
from dpsd.federated.client.standing import Standing
from dpsd.runs.observing import Observer
from dpsd.teachers.silence import spared


class ClientObserver(Observer):
    """An observer that shows what is answered and refused, and how the client stands.

    In a terminal, the last line always says whether the server is reached and how the client
    stands. Elsewhere, that is printed whenever the server is reached or lost.

    Args:
        quiet: whether to show warnings alone.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._line: Status | None = None
        self._address = ""
        self._standing: Callable[[], Standing] | None = None
        self._connection = "connecting to"

    @contextmanager
    def attending(self, address: str, standing: Callable[[], Standing]) -> Iterator[None]:
        """Show how a client stands while the context lasts.

        Args:
            address: where the server is.
            standing: returns how the client stands.
        """
        self._address, self._standing = address, standing
        with ExitStack() as stack:
            # The server comes and goes while a teacher answers, whose output is suppressed.
            STATUS.file = stack.enter_context(spared(STATUS.file))
            stack.callback(setattr, STATUS, "file", None)
            if STATUS.is_terminal and not self._quiet:
                self._line = stack.enter_context(STATUS.status(self._text()))
                stack.callback(setattr, self, "_line", None)
            yield

    def connected(self, is_connected: bool) -> None:
        """Note that the server is reached, or cannot be reached any more."""
        self._connection = "connected to" if is_connected else "waiting for the server at"
        if self._line is None and not self._quiet:
            STATUS.print(self._text(), soft_wrap=True)
        self._update()

    def notice(self, message: str) -> None:
        if not self._quiet:
            STATUS.print(message, soft_wrap=True)
        self._update()

    def warn(self, message: str) -> None:
        warn(message)
        self._update()

    def _update(self) -> None:
        if self._line is not None:
            self._line.update(self._text())

    def _text(self) -> Text:
        """Whether the server is reached, and how the client stands."""
        where, stands = f"{self._connection} {self._address}", ""
        try:
            if self._standing is not None:
                standing = self._standing()
                stands = standing.describe()
                if standing.is_done:
                    where = "nothing more may be answered, and Ctrl-C ends this client"
        except DpsdError as error:
            stands = f"its records cannot be read: {error}"
        text = f"{where}; {stands}"
        return Text(spelled(text, STATUS.encoding))

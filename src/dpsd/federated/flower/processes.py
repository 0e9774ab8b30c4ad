"""Flower's processes, started and watched: none outlives the program that started it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dpsd.errors import RunError, reason

#: How long a process may take to end before it is killed, and how often it is looked after, in
#: seconds.
_PATIENCE, _LOOK_AGAIN = 10.0, 0.2
#: The module that runs a command of Flower's.
_CHILD = "dpsd.federated.flower.child"
#: What Flower prints as it leaves, and the bytes of a log in which that is looked for.
_EXIT_CODE, _TAIL = re.compile(rb"Exit Code: (\d+)"), 1 << 14
#: What a node of Flower's prints when its server failed at a request, in httpx's words.
_SERVER_ERROR = re.compile(rb"Server error '5\d\d")

#: What a node of Flower's prints when it cannot reach its server, and when it does.
_CONNECTION = re.compile(
    rb"(Connection attempt failed)"
    rb"|Connection successful|SuperNode ID: |Received successfully|Sent successfully"
)


class Child:
    """A process of Flower's.

    Args:
        role: what it is, for messages.
        command: the command of Flower's and its arguments.
        environment: its environment.
        log: the file to which it writes what it prints.
    """

    def __init__(
        self, role: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path
    ) -> None:
        self.role = role
        self.log = log
        with log.open("ab") as output:
            self._start = output.tell()
            self._process = subprocess.Popen(
                # -P: a folder where the user happens to be must not take a module's place.
                [sys.executable, "-P", "-m", _CHILD, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                # Ctrl-C at a terminal reaches this program alone, which then ends the child.
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The code that Flower printed as it left, or ``None``."""
        found = _EXIT_CODE.findall(self._printed())
        return int(found[-1]) if found else None

    @property
    def is_connected(self) -> bool | None:
        """Whether a node of Flower's reaches its server, by what it printed last.

        It is ``None`` before the first attempt.
        """
        found = _CONNECTION.findall(self._printed())
        return not found[-1] if found else None

    @property
    def server_failed(self) -> bool:
        """Whether a node of Flower's was told by its server that the server itself had failed."""
        return _SERVER_ERROR.search(self._printed()) is not None

    def _printed(self) -> bytes:
        """The end of what the process has printed."""
        with self.log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(self._start, file.tell() - _TAIL))
            return file.read()

    def end(self) -> None:
        """End the process, by force if it takes too long."""
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ended(self) -> RunError:
        """Return the error that the process has ended by itself."""
        code = self.exit_code
        said = "" if code is None else f" with Flower's code {code}"
        return RunError(f"{self.role} has ended{said}: read {self.log}, and start again")


@contextmanager
def watched(child: Child) -> Iterator[None]:
    """Interrupt the main thread, which this must be, if a child ends; end it with the context.

    Raises:
        RunError: the child has ended by itself.
    """
    gone, finished = threading.Event(), threading.Event()

    def watch() -> None:
        while not finished.wait(_LOOK_AGAIN):
            if not child.is_running:
                gone.set()
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        try:
            yield
        finally:
            finished.set()
            watcher.join()
    except KeyboardInterrupt:
        if gone.is_set():
            raise child.ended() from None
        raise
    finally:
        child.end()


def require_free(port: int) -> None:
    """Make sure that a port of the loopback interface can be listened on.

    Raises:
        RunError: another program listens there.
    """
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(("127.0.0.1", port))
        except OSError as error:
            raise RunError(
                f"port {port} cannot be listened on ({reason(error)}). If this federation's server "
                "runs already, leave it; else give another port with --port"
            ) from None


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

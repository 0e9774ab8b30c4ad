"""Clients of a real federation on the loopback interface, and what its server does with them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from dpsd.federated.exchange import Exchange
from dpsd.federated.flower.identities import read_public_key
from dpsd.federated.flower.invitations import Invitation, invitation_text
from dpsd.federated.flower.places import ClientPlace, ServerPlace
from dpsd.federated.flower.registering import register
from dpsd.federated.flower.serving import run_app
from dpsd.federated.requests import Hello, Reply

from . import clients
from .clients import request

HELLO = Hello(federation="f00d", shape=(1, 4, 4), num_classes=10)
#: How long a round may take on a machine that is busy, in seconds.
PATIENCE = 120.0


class Hospital:
    """A client's folder, and its program while it runs.

    Args:
        folder: the folder.
        server: the folder of the server that it is registered with.
        address: the host and port at which it reaches the server; by default, the server's own.
    """

    def __init__(self, folder: Path, server: ServerPlace, *, address: str | None = None) -> None:
        self.place = ClientPlace(folder)
        self.place.prepare()
        self.key = self.place.key
        self._server = server
        self._address = address
        self._program: subprocess.Popen[bytes] | None = None

    def register(self) -> None:
        register(self._server, read_public_key(self.place.public_key), self.place.folder.name)

    def invitation(self) -> Invitation:
        address = self._address or self._server.address.read_text("utf-8")
        return Invitation(address, self._server.authority.read_text("utf-8"), "f00d")

    def start(self) -> None:
        file = self.place.folder / "invitation.toml"
        file.write_text(invitation_text(self.invitation()), encoding="utf-8")
        self._program = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from tests.federated.flower.clients import main; import sys; main(*sys.argv[1:])",
                str(self.place.folder),
                str(file),
            ],
            cwd=Path(clients.__file__).parents[3],
            stderr=subprocess.DEVNULL,
        )

    def nodes(self) -> list[psutil.Process]:
        """Return the nodes of Flower's that the program runs."""
        if self._program is None:
            return []
        return [one for one in psutil.Process(self._program.pid).children() if one.is_running()]

    def end(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the program, and see that nothing of it is left."""
        if self._program is not None and self._program.poll() is None:
            left = psutil.Process(self._program.pid).children(recursive=True)
            self._program.send_signal(how)
            self._program.wait(PATIENCE)
            assert not psutil.wait_procs(left, timeout=PATIENCE)[1]


def connected(exchange: Exchange, *keys: str) -> None:
    """Wait until clients are connected."""
    deadline = time.time() + PATIENCE
    while not set(keys) <= {member.key for member in exchange.members()}:
        assert time.time() < deadline, "the clients did not connect"
        time.sleep(0.2)


def asked(
    exchange: Exchange, pixel: int, *keys: str, number: int = 1, seconds: float = PATIENCE
) -> dict[str, Reply]:
    deadline = time.time() + seconds
    made = {key: request(pixel, number=number, deadline=deadline) for key in keys}
    return exchange.ask(made, deadline=deadline)


def within(server: ServerPlace, run: Callable[[Exchange], None]) -> None:
    """Run a server's app to its end, and see that it got there."""
    reached = []

    def complete(exchange: Exchange) -> None:
        run(exchange)
        reached.append(True)

    run_app(server, complete)
    assert reached

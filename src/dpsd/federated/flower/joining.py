"""A federation's client: Flower's node as a child, and what answers beside it, in this process.

The node fetches messages from the server and hands them to the executor. It holds the key that the
server knows the client by, and no teacher.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from flwr.supercore.exit import ExitCode

from dpsd.errors import RunError
from dpsd.federated.flower.apps import Answering, client_app
from dpsd.federated.flower.executor import execute
from dpsd.federated.flower.identities import make_shared_secret
from dpsd.federated.flower.invitations import Invitation
from dpsd.federated.flower.offline import offline_environment
from dpsd.federated.flower.places import ClientPlace
from dpsd.federated.flower.processes import Child, free_port, watched
from dpsd.federated.flower.tasks import Source
from dpsd.storage.files import write_text

#: How often it is looked whether the server is reached, in seconds.
_LOOK_AGAIN = 0.5


def join(
    place: ClientPlace,
    invitation: Invitation,
    answering: Answering,
    *,
    port: int | None = None,
    stop: threading.Event | None = None,
    told: Callable[[bool], None] = lambda _: None,
) -> None:
    """Take part in a federation until told to stop, or interrupted.

    Args:
        place: the client's folder, prepared.
        invitation: where the server is, and how to know it.
        answering: what answers for the client.
        port: the port on the loopback interface between the node and this process; a free one by
            default.
        stop: ends the client, after the message that it is answering.
        told: is called, from another thread, with whether the server is reached, whenever that
            changes.

    Raises:
        RunError: the server does not know the client, or Flower's node has ended.
    """
    authority, secret = place.folder / "authority.crt", place.folder / "node.secret"
    write_text(authority, invitation.authority)
    make_shared_secret(secret)
    port = port or free_port()
    node = Child(
        "Flower's node",
        [
            *("flower-supernode", "--superlink", invitation.address),
            *("--root-certificates", str(authority)),
            *("--auth-supernode-private-key", str(place.private_key)),
            *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        environment=offline_environment(place.folder / "flower"),
        log=place.log,
    )
    try:
        with (
            watched(node),
            _telling(node, told),
            closing(Source(f"127.0.0.1:{port}", secret)) as source,
        ):
            execute(client_app(lambda _: answering), source, stop or threading.Event())
    except RunError:
        if node.exit_code == ExitCode.SUPERNODE_CONNECTION_ERROR:
            raise RunError(
                f"{invitation.address} and this client refused each other. Either the server does "
                f"not know the client: send {place.public_key} to those who run it. Or the "
                "invitation is not that server's: compare the fingerprints. Or this machine's "
                "clock is wrong"
            ) from None
        raise


@contextmanager
def _telling(node: Child, told: Callable[[bool], None]) -> Iterator[None]:
    """Tell whether a node reaches its server, whenever that changes, while the context lasts."""
    finished = threading.Event()

    def watch() -> None:
        before = None
        while not finished.wait(_LOOK_AGAIN):
            now = node.is_connected
            if now is not None and now is not before:
                told(now)
                before = now

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()

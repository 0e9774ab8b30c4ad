"""A federation's client: Flower's node as a child, and what answers beside it, in this process.

The node fetches messages from the server and hands them to the executor. It holds the key that the
server knows the client by, and no teacher. It ends when the server fails at a single request, and
is then started again, so that the client goes on.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import closing

from flwr.supercore.exit import ExitCode

from dpsd.errors import RunError
from dpsd.federated.flower.apps import Answering, client_app
from dpsd.federated.flower.executor import execute
from dpsd.federated.flower.identities import make_shared_secret
from dpsd.federated.flower.invitations import Invitation
from dpsd.federated.flower.offline import offline_environment
from dpsd.federated.flower.places import ClientPlace
from dpsd.federated.flower.processes import Child, free_port
from dpsd.federated.flower.tasks import Source
from dpsd.storage.files import write_text

#: How often it is looked whether the node runs and reaches the server, and how long a node that has
#: ended stays away, in seconds.
_LOOK_AGAIN, _START_AGAIN = 0.5, 5.0
#: How long a client that has reached its server starts nodes again, in seconds. A server believes
#: for a minute that a node which was killed is there still, and refuses another.
_PATIENCE = 90.0


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
        RunError: the server does not know the client, or Flower's node cannot start.
    """
    authority, secret = place.folder / "authority.crt", place.folder / "node.secret"
    write_text(authority, invitation.authority)
    make_shared_secret(secret)
    port = port or free_port()
    stop = stop or threading.Event()
    last_reached = -math.inf
    while not stop.is_set():
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
            with closing(Source(f"127.0.0.1:{port}", secret)) as source:
                has_reached = _answer(node, source, answering, stop=stop, told=told)
            if stop.is_set():
                return
            if has_reached or node.server_failed:
                last_reached = time.monotonic()
            elif time.monotonic() - last_reached > _PATIENCE:
                raise _reason(node, invitation, place)
        finally:
            node.end()
        told(False)
        stop.wait(_START_AGAIN)


def _answer(
    node: Child,
    source: Source,
    answering: Answering,
    *,
    stop: threading.Event,
    told: Callable[[bool], None],
) -> bool:
    """Answer what a node receives, until it ends or the client is told to stop.

    An answer that was begun is finished first, as the same client goes on with the next node.

    Returns:
        Whether the node has reached its server.
    """
    leave, finished = threading.Event(), threading.Event()
    has_reached = False

    def watch() -> None:
        nonlocal has_reached
        before = None
        while not finished.wait(_LOOK_AGAIN):
            now = node.is_connected
            if now is not None and now is not before:
                told(now)
                before = now
                has_reached |= now
            if stop.is_set() or not node.is_running:
                leave.set()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        execute(client_app(lambda _: answering), source, leave)
    finally:
        finished.set()
        watcher.join()
    return has_reached


def _reason(node: Child, invitation: Invitation, place: ClientPlace) -> RunError:
    """Return the error that a node has ended, of which another would do the same."""
    if node.exit_code != ExitCode.SUPERNODE_CONNECTION_ERROR:
        return node.ended()
    return RunError(
        f"{invitation.address} and this client refused each other. Either the server does not know "
        f"the client: send {place.public_key} to those who run it. Or the invitation is not that "
        "server's, or is to a federation that is over: compare the fingerprints, and ask those who "
        "run it. Or this machine's clock is wrong. Or this client was "
        "killed a moment ago, or runs elsewhere: wait for a minute, and start again"
    )

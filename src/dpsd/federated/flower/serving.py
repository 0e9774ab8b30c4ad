"""A federation's server: Flower's server as a child, and the app that runs beside it.

Flower's server listens on the loopback interface, as whoever reaches it controls it; a reverse
proxy lets clients in (:mod:`dpsd.federated.flower.proxies`). It keeps its state in a database, so
that clients find it again after a restart. It starts no process for the app, which runs here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SUPERLINK_NODE_ID, SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from dpsd.errors import RunError
from dpsd.federated.exchange import Exchange
from dpsd.federated.flower.exchange import FlowerExchange
from dpsd.federated.flower.identities import make_shared_secret
from dpsd.federated.flower.offline import offline_environment
from dpsd.federated.flower.places import ServerPlace
from dpsd.federated.flower.processes import Child, free_port, watched
from dpsd.federated.flower.registering import address_of, control_of, registered
from dpsd.federated.flower.tasks import Source
from dpsd.storage.files import write_text

#: How long Flower's server may take to start, and how often it is asked, in seconds.
_STARTING, _LOOK_AGAIN = 60.0, 0.2

#: The bundle that Flower sends to clients. It holds no code, and our clients do not unpack it.
_BUNDLE = {
    "pyproject.toml": b"""\
[project]
name = "dpsd-federation"
version = "1.0.0"
dependencies = []

[tool.flwr.app]
publisher = "dpsd"

[tool.flwr.app.components]
serverapp = "dpsd.federated.flower:none"
clientapp = "dpsd.federated.flower:none"
"""
}


def serve(place: ServerPlace, run: Callable[[Exchange], None], *, port: int | None = None) -> None:
    """Run Flower's server and, beside it, what the federation's server does with the clients.

    Args:
        place: the server's folder, prepared.
        run: what the server does with the clients.
        port: the port on the loopback interface; a free one by default.

    Raises:
        RunError: Flower's server cannot be started, or has ended.
    """
    with superlink(place, port=port):
        run_app(place, run)


@contextmanager
def superlink(place: ServerPlace, *, port: int | None = None) -> Iterator[None]:
    """Run Flower's server while the context lasts.

    Raises:
        RunError: Flower's server cannot be started, or has ended.
    """
    make_shared_secret(place.secret)
    port = port or free_port()
    child = Child(
        "Flower's server",
        [
            *("flower-superlink", "--host", "127.0.0.1", "--port", str(port)),
            *("--ssl-ca-certfile", str(place.authority)),
            *("--ssl-certfile", str(place.certificate), "--ssl-keyfile", str(place.key)),
            *("--enable-supernode-auth", "--database", str(place.database)),
            *("--isolation", "process", "--superexec-auth-secret-file", str(place.secret)),
            "--disable-runtime-dependency-installation",
        ],
        environment=offline_environment(place.folder / "flower"),
        log=place.log,
    )
    with watched(child):
        write_text(place.address, f"127.0.0.1:{port}")
        _wait_for(place)
        yield


def _wait_for(place: ServerPlace) -> None:
    """Wait until Flower's server answers."""
    deadline = time.monotonic() + _STARTING
    while True:
        try:
            registered(place)
            return
        except RunError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_LOOK_AGAIN)


def run_app(place: ServerPlace, run: Callable[[Exchange], None]) -> None:
    """Run what the federation's server does with the clients, beside Flower's server.

    Raises:
        RunError: Flower's server is not running, or did not start a run.
    """
    authority, address = place.authority.read_bytes(), address_of(place)
    source = Source(address, place.secret, authority=authority)
    with closing(source):
        token = _taken(source, place)
        with source.working(token, "flwr-serverapp") as client:
            given = client.PullTaskInput(PullTaskInputRequest())
            # Messages are marked with these.
            TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
            TaskIdentity.node_id = SUPERLINK_NODE_ID
            grid = HttpGrid(address, root_certificates=authority, token=token)
            # Left to itself, the grid tries again without an end, whatever the round's deadline.
            grid._retry_invoker = None  # type: ignore[assignment]
            grid.set_run(run_from_proto(given.run))
            ended = SubStatus.FAILED
            try:
                run(FlowerExchange(grid))
                ended = SubStatus.COMPLETED
            finally:
                grid.close()
                # If Flower's server is gone, it will find out by itself that the app has ended.
                with suppress(httpx.HTTPError):
                    client.PushTaskOutput(PushTaskOutputRequest(sub_status=ended))


def _taken(source: Source, place: ServerPlace) -> str:
    """Return the token of a run's app, of a run that is started unless one waits to be taken up."""
    try:
        token = source.take(TaskType.SERVER_APP)
        if token is None:
            _start_run(place)
            token = source.take(TaskType.SERVER_APP)
    except httpx.HTTPError as error:
        raise RunError(f"Flower's server did not start a run ({error}): read {place.log}") from None
    if token is None:
        raise RunError(f"Flower's server did not start a run: read {place.log}")
    return token


def _start_run(place: ServerPlace, files: Mapping[str, bytes] = _BUNDLE) -> None:
    content, _ = build_fab_from_files(files)
    with control_of(place) as control:
        control.StartRun(StartRunRequest(fab=fab_to_proto(Fab("", content, {}))))

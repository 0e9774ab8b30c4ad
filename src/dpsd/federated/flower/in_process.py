"""A federation in one process: any number of clients, by Flower's simulation, without Ray.

The backend that Flower brings runs on Ray (:mod:`dpsd.federated.flower.on_ray`).
:class:`ThreadsBackend` answers in threads of this process, which start at once, and goes on
whatever a client does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.server.superlink.fleet.vce.backend import Backend
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

from dpsd.federated.exchange import Exchange
from dpsd.federated.flower.apps import Answering
from dpsd.federated.flower.engine import by_number, contained, engine, numbered_app
from dpsd.federated.flower.exchange import FlowerExchange


class ThreadsBackend(Backend):
    """Answers messages in threads of this process.

    Args:
        threads: the number of clients that answer at the same time, from 1.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._app: ClientApp | None = None

    def build(self, app_fn: Callable[[], ClientApp]) -> None:
        self._app = app_fn()

    @property
    def num_workers(self) -> int:
        return self._threads

    def is_worker_idle(self) -> bool:
        return True  # Flower does not ask: it hands out a message to whichever thread is free

    def terminate(self) -> None:
        self._app = None

    def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
        """Return a client's reply.

        Raises:
            ClientAppException: the client failed.
        """
        assert self._app is not None
        return contained(self._app, message, context), context


def simulate(
    run: Callable[[Exchange], None],
    client: Callable[[int], Answering],
    count: int,
    *,
    threads: int = 1,
) -> None:
    """Run a federation in this process.

    Args:
        run: what the server does with the clients. Each client's key is its number as text.
        client: returns what answers for a client, given its number from 0. It is called for every
            message.
        count: the number of clients, from 1.
        threads: the number of clients that answer at the same time.
    """
    with simulated(numbered_app(client), count, threads=threads) as grid:
        run(FlowerExchange(grid, identify=by_number))


def simulated(
    app: ClientApp, count: int, *, threads: int = 1
) -> AbstractContextManager[InMemoryGrid]:
    """Simulate clients of an app while the context lasts; gives the grid that reaches them.

    Args:
        app: the clients' app, as :func:`.engine` describes it.
        count: the number of clients, from 1.
        threads: the number of clients that answer at the same time.
    """
    return engine(lambda: app, count, backend=ThreadsBackend(threads))

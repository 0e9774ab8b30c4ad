"""A federation on this machine whose clients answer in processes of Ray's, by Flower's own backend.

Clients answer at the same time, in as many processes as there are processors. Any of them answers
for any client, so what a client is must be found on disk, as after a restart. Ray starts a process
again that died, and delivers its message once more, as a server's second request would be.

Ray listens on all addresses of the machine, and whoever may speak to it runs programs here. So a
secret is drawn, without which it lets nobody join. Messages travel between its processes, on this
machine, as pickles; they hold requests and releases alone.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from flwr.app import Context, Message

from dpsd.errors import RunError, reason
from dpsd.federated.exchange import Exchange
from dpsd.federated.flower.apps import Answering
from dpsd.federated.flower.engine import by_number, contained, engine, numbered_app
from dpsd.federated.flower.exchange import FlowerExchange

#: The variables that Ray reads: nobody joins without the secret, and clients choose their
#: accelerator as they do in one process.
_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def simulate(
    run: Callable[[Exchange], None], client: Callable[[int], Answering], count: int
) -> None:
    """Run a federation whose clients answer in processes of Ray's.

    Args:
        run: what the server does with the clients. Each client's key is its number as text.
        client: returns what answers for a client, given its number from 0. It can be pickled, and
            is called for every message, in the process that answers.
        count: the number of clients, from 1.

    Raises:
        RunError: Ray does not start.
    """
    os.environ.update(_SETTINGS)  # before Ray is imported
    import ray
    from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

    processes = min(count, os.cpu_count() or 1)
    start: dict[str, Any] = {
        "address": "local",  # a machine that is part of a cluster stays out of it
        "num_cpus": processes,
        "logging_level": logging.ERROR,
    }
    # Flower passes these on as the options of each process. With a retry, other messages wait for a
    # process that starts again; else they fail.
    options: dict[str, Any] = {"num_cpus": 1, "max_restarts": -1, "max_task_retries": 1}
    try:
        backend: Any = RayBackend({"init_args": start, "client_resources": options})
    except Exception as error:  # noqa: BLE001 - Ray raises exceptions of no kind of its own
        raise RunError(f"Ray did not start ({reason(error)}): try again, or without it") from None
    # Flower's would ask each process to end, which Ray would report as failures.
    backend.terminate = ray.shutdown
    with engine(partial(_app, client), count, backend=backend) as grid:
        run(FlowerExchange(grid, identify=by_number))


def _app(client: Callable[[int], Answering]) -> Callable[[Message, Context], Message]:
    """Return the app of clients, within the process that answers for them."""
    return partial(contained, numbered_app(client))

"""Flower's simulation engine: clients on this machine, without a server of Flower's or a network.

The engine hands each message to a backend, which answers it: in threads of this process
(:mod:`dpsd.federated.flower.in_process`) or in processes of Ray's
(:mod:`dpsd.federated.flower.on_ray`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import ClientAppException
from flwr.common.constant import (
    HEARTBEAT_INTERVAL_INF,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    PARTITION_ID_KEY,
    RUN_ID_NUM_BYTES,
    SUPERLINK_NODE_ID,
    TASK_ID_NUM_BYTES,
)
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.fleet.vce.backend import Backend
from flwr.server.superlink.fleet.vce.metrics import VceMetrics
from flwr.server.superlink.fleet.vce.vce_api import _register_node_info_stores, run_api
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
from flwr.server.superlink.linkstate.utils import generate_rand_int_from_bytes
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

from dpsd.federated.exchange import Member
from dpsd.federated.flower.apps import Answering, client_app


@contextmanager
def engine(
    app: Callable[[], Callable[[Message, Context], Message]], count: int, *, backend: Backend
) -> Iterator[InMemoryGrid]:
    """Run Flower's engine while the context lasts; gives the grid that reaches the clients.

    Args:
        app: returns the clients' app. Its context's ``node_config["partition-id"]`` is the client's
            number from 0, which is also its public key, as text.
        count: the number of clients, from 1.
        backend: what answers messages by the app.
    """
    logging.getLogger("flwr").setLevel(logging.ERROR)
    described, states = _new_run()
    nodes = _register_clients(states, count)
    stop = threading.Event()
    running = threading.Thread(
        target=run_api,
        kwargs={
            "app_fn": app,
            "backend_fn": lambda: backend,
            "nodes_mapping": nodes,
            "state_factory": states,
            "node_info_stores": _register_node_info_stores(nodes, described),
            "f_stop": stop,
            "metrics": VceMetrics(),
        },
    )
    running.start()
    try:
        grid = InMemoryGrid(states)
        grid.set_run(described)
        yield grid
    finally:
        stop.set()
        running.join()


def numbered_app(client: Callable[[int], Answering]) -> ClientApp:
    """Return the app of clients that are known by their numbers.

    Args:
        client: returns what answers for a client, given its number from 0.
    """
    return client_app(lambda context: client(int(context.node_config[PARTITION_ID_KEY])))


def by_number(node: Any) -> Member:
    """Return a client that was registered by its number instead of a public key."""
    return Member(key=node.public_key.decode(), name=node.name)


def contained(
    app: Callable[[Message, Context], Message], message: Message, context: Context
) -> Message:
    """Return an app's reply, whatever the app does.

    Raises:
        ClientAppException: the app failed. Its own exception could end the thread or the process,
            and its text could name a patient.
    """
    try:
        return app(message, context)
    except BaseException as error:  # noqa: BLE001 - a client may even leave by sys.exit
        raise ClientAppException(type(error).__name__) from None


def _new_run() -> tuple[Run, LinkStateFactory]:
    """Return a run of Flower's, registered in a state that is kept in memory."""
    run = Run.create_empty(run_id=generate_rand_int_from_bytes(RUN_ID_NUM_BYTES))
    run.primary_task_id = generate_rand_int_from_bytes(TASK_ID_NUM_BYTES)
    run.federation_id = NOOP_FEDERATION_ID
    # Messages are marked with these.
    TaskIdentity.task_id, TaskIdentity.run_id = 1, run.run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    states = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
    state: Any = states.state()
    state.run_ids[run.run_id] = RunRecord(run=run)
    state.task_store[run.primary_task_id] = Task(task_id=run.primary_task_id, run_id=run.run_id)
    return run, states


def _register_clients(states: LinkStateFactory, count: int) -> dict[int, int]:
    """Register clients, and return each one's number by its number in Flower."""
    state = states.state()
    nodes = {}
    for number in range(count):
        node = state.create_node(
            NOOP_FLWR_AID,
            NOOP_ACCOUNT_NAME,
            str(number).encode(),
            heartbeat_interval=HEARTBEAT_INTERVAL_INF,
            name=f"client-{number + 1}",
        )
        state.acknowledge_node_heartbeat(node_id=node, heartbeat_interval=HEARTBEAT_INTERVAL_INF)
        nodes[node] = number
    return nodes

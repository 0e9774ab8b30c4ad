"""Who may connect to a server that is running: clients are registered by their public keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from dpsd.errors import ConfigError, RunError
from dpsd.federated.exchange import Member
from dpsd.federated.flower.exchange import by_public_key, key_of
from dpsd.federated.flower.places import ServerPlace


@dataclass(frozen=True)
class Registered:
    """A client that may connect.

    Args:
        member: its key and name.
        is_online: whether it is connected now.
    """

    member: Member
    is_online: bool


def register(place: ServerPlace, public_key: bytes, name: str) -> str:
    """Let a client connect from now on; returns its key.

    Args:
        place: the folder of a server that is running.
        public_key: the client's public key, as PEM.
        name: what to call it.

    Raises:
        RunError: the server is not running.
        ConfigError: the key is registered already under another name, or the name is taken.
    """
    with control_of(place) as control:
        for node in _nodes(control):
            is_same = bytes(node.public_key) == public_key
            if is_same and node.name == name:
                return key_of(public_key)
            if is_same:
                raise ConfigError(f"this key is registered already, as {node.name}")
            if node.name == name:
                raise ConfigError(f"another client is called {name}: give this one another name")
        control.RegisterNode(RegisterNodeRequest(public_key=public_key, name=name))
    return key_of(public_key)


def unregister(place: ServerPlace, key: str) -> None:
    """Let a client connect no more.

    Raises:
        RunError: the server is not running.
        ConfigError: no client has this key.
    """
    with control_of(place) as control:
        node = next((node for node in _nodes(control) if key_of(node.public_key) == key), None)
        if node is None:
            raise ConfigError(f"no client has the key {key}: see who is registered")
        control.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))


def registered(place: ServerPlace) -> list[Registered]:
    """Return the clients that may connect.

    Raises:
        RunError: the server is not running.
    """
    with control_of(place) as control:
        return [
            Registered(by_public_key(node), node.status == NodeStatus.ONLINE)
            for node in _nodes(control)
        ]


def _nodes(control: ControlHttpClient) -> list[NodeInfo]:
    """Return the clients that are registered, without those that were removed."""
    found = control.ListNodes(ListNodesRequest()).nodes_info
    return [node for node in found if node.status != NodeStatus.UNREGISTERED]


@contextmanager
def control_of(place: ServerPlace) -> Iterator[ControlHttpClient]:
    """Give a connection that controls Flower's server.

    Raises:
        RunError: the server is not running, or refuses.
    """
    client = ControlHttpClient.from_server_address(
        server_address=address_of(place),
        insecure=False,
        root_certificates=place.authority.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    try:
        with client:
            yield client
    except httpx.TransportError:
        raise RunError(f"the server in {place.folder} is not running: start it first") from None
    except httpx.HTTPStatusError as error:
        raise RunError(
            f"Flower's server refused with status {error.response.status_code}: read {place.log}"
        ) from None


def address_of(place: ServerPlace) -> str:
    """Return the address of a server on the loopback interface.

    Raises:
        RunError: it has never been started.
    """
    if not place.address.exists():
        raise RunError(f"no server has run in {place.folder}: start it first")
    return place.address.read_text(encoding="utf-8")

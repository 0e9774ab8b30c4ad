"""When a client starts its node again, and when it gives up; nodes here are no processes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from flwr.supercore.exit import ExitCode

from dpsd.errors import RunError
from dpsd.federated.flower import joining
from dpsd.federated.flower.identities import make_authority
from dpsd.federated.flower.invitations import Invitation
from dpsd.federated.flower.places import ClientPlace
from dpsd.federated.flower.processes import Child

from .clients import FirstPixel

REFUSED = ExitCode.SUPERNODE_CONNECTION_ERROR


class Node(Child):
    """A node that ends as soon as it was looked at."""

    def __init__(
        self, *, reached: bool = False, failed: bool = False, code: int | None = None
    ) -> None:
        self.role, self.log = "Flower's node", Path("supernode.log")
        self._reached, self._failed, self._code = reached, failed, code
        self.is_ended = False

    @property
    def is_running(self) -> bool:
        return False

    @property
    def is_connected(self) -> bool | None:
        return self._reached

    @property
    def exit_code(self) -> int | None:
        return self._code

    @property
    def server_failed(self) -> bool:
        return self._failed

    def end(self) -> None:
        self.is_ended = True


def join(
    place: Path, monkeypatch: pytest.MonkeyPatch, *nodes: Node, patience: float = 90.0
) -> list[bool]:
    """Join with nodes that end one after the other, and stop after the last; returns what was told.

    Raises:
        RunError: the client gave up.
    """
    left, stop, told = list(nodes), threading.Event(), list[bool]()

    def start(*_: Any, **__: Any) -> Node:
        node = left.pop(0)
        if not left:
            stop.set()
        return node

    for name, value in {
        "Child": start,
        "_LOOK_AGAIN": 0.001,
        "_START_AGAIN": 0.0,
        "_PATIENCE": patience,
    }.items():
        monkeypatch.setattr(joining, name, value)
    client = ClientPlace(place)
    client.prepare()
    authority = place / "authority.pem"
    make_authority(authority, place / "authority.key")
    invitation = Invitation("hub.example:9092", authority.read_text("utf-8"), "f00d")
    try:
        joining.join(client, invitation, FirstPixel(), stop=stop, told=told.append)
    finally:
        assert [node.is_ended for node in nodes] == [node not in left for node in nodes]
    assert not left
    return told


def test_a_node_that_has_reached_its_server_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = join(tmp_path, monkeypatch, Node(reached=True), Node(code=REFUSED), Node(reached=True))
    assert told[:2] == [True, False]


def test_a_node_that_its_server_failed_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(tmp_path, monkeypatch, Node(failed=True, code=REFUSED), Node(failed=True), Node())


def test_a_client_that_is_refused_for_longer_than_a_server_may_err_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match=r"^hub\.example:9092 and this client refused each other"):
        join(tmp_path, monkeypatch, Node(reached=True), Node(code=REFUSED), Node(), patience=-1.0)


def test_a_first_node_that_does_not_reach_its_server_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match=r"^Flower's node has ended with Flower's code 607: read"):
        join(tmp_path, monkeypatch, Node(code=607), Node(reached=True))

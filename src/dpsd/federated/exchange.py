"""The seam between the federation and whatever carries its messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dpsd.federated.requests import Greeting, Hello, Reply, Request


@dataclass(frozen=True)
class Member:
    """A client as the server knows it.

    Args:
        key: the hash of the client's public key, which stays the same when the client restarts;
            in a simulation, the client's number as text.
        name: the name that the client was registered under, for people.
    """

    key: str
    name: str


class Exchange(Protocol):
    """The interface of whatever carries messages to clients and their replies back."""

    def members(self) -> Sequence[Member]:
        """The clients that are connected now, in no particular order."""

    def greet(
        self, hello: Hello, members: Sequence[Member], *, deadline: float
    ) -> dict[str, Greeting]:
        """Greet clients; returns the greetings that came by the deadline, by the client's key."""

    def ask(self, requests: Mapping[str, Request], *, deadline: float) -> dict[str, Reply]:
        """Send each client its request, by the client's key.

        Returns:
            One reply for each request: the client's own if it came by the deadline, else one with
            :attr:`~dpsd.federated.requests.Code.SILENT`, or with
            :attr:`~dpsd.federated.requests.Code.GARBAGE` if what came cannot be read.
        """

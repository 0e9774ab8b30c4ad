"""Messages to clients and their replies, by Flower's grid.

A message lives until the round's deadline, and each client's reply is fetched by itself, so that a
client that sends something unreadable spoils no other client's reply.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from dpsd.federated.exchange import Member
from dpsd.federated.flower.records import (
    RecordError,
    hello_record,
    read_greeting,
    read_reply,
    request_record,
)
from dpsd.federated.requests import Code, Greeting, Hello, Reply, Request

#: The actions of the messages, which are of Flower's type "query".
HELLO, ANSWER = "hello", "answer"
#: The pauses between two looks for a reply, of which each is longer than the one before, the pause
#: after Flower's server could not be reached, and how long a reply that came in time may take to be
#: fetched after the deadline, all in seconds.
_SHORTEST_PAUSE, _LONGEST_PAUSE, _TRY_AGAIN, _GRACE = 0.05, 0.5, 1.0, 2.0

#: Flower's codes that mean that no reply came, rather than that the client failed.
_NO_REPLY = {
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
}

#: Names a client, given what Flower says of it.
Identify = Callable[[Any], Member]


def key_of(public_key: bytes) -> str:
    """Return the key of a client: the SHA-256 of its public key, in hexadecimal digits.

    Args:
        public_key: the key as PEM, as Flower keeps it.
    """
    return hashlib.sha256(public_key).hexdigest()


def by_public_key(node: Any) -> Member:
    """Return a client by its public key and the name that it was registered under."""
    return Member(key=key_of(node.public_key), name=node.name)


class FlowerExchange:
    """Carries messages by Flower's grid; an :class:`~dpsd.federated.exchange.Exchange`.

    Args:
        grid: Flower's grid.
        identify: names a client, given what Flower says of it.
    """

    def __init__(self, grid: Grid, *, identify: Identify = by_public_key) -> None:
        self._grid = grid
        self._identify = identify

    def members(self) -> Sequence[Member]:
        """The clients that are connected now; none while Flower's server cannot be reached."""
        return list(self._connected())

    def greet(
        self, hello: Hello, members: Sequence[Member], *, deadline: float
    ) -> dict[str, Greeting]:
        """Greet clients; returns the greetings that came by the deadline, by the client's key.

        A client whose greeting cannot be read has one that says so.
        """
        contents = {member.key: hello_record(hello) for member in members}
        greetings = {}
        for key, answer in self._query(HELLO, contents, deadline).items():
            if isinstance(answer, Code):
                if answer is not Code.SILENT:
                    greetings[key] = Greeting(code=answer)
                continue
            try:
                greetings[key] = read_greeting(answer)
            except RecordError:
                greetings[key] = Greeting(code=Code.GARBAGE)
        return greetings

    def ask(self, requests: Mapping[str, Request], *, deadline: float) -> dict[str, Reply]:
        """Send each client its request, by the client's key; returns one reply for each."""
        contents = {key: request_record(request) for key, request in requests.items()}
        replies = {}
        for key, answer in self._query(ANSWER, contents, deadline).items():
            if isinstance(answer, Code):
                replies[key] = Reply(code=answer)
                continue
            try:
                replies[key] = read_reply(answer)
            except RecordError:
                replies[key] = Reply(code=Code.GARBAGE)
        return replies

    def _connected(self, deadline: float = 0.0) -> dict[Member, int]:
        """Return the clients that are connected now with their numbers in Flower."""
        while True:
            try:
                return {self._identify(node): node.node_id for node in self._grid.get_nodes()}
            except httpx.HTTPError:
                if time.time() + _TRY_AGAIN > deadline:
                    return {}
            time.sleep(_TRY_AGAIN)

    def _query(
        self, action: str, contents: Mapping[str, RecordDict], deadline: float
    ) -> dict[str, RecordDict | Code]:
        """Send messages and return each client's reply, or a code that says what came instead."""
        answers: dict[str, RecordDict | Code] = {}
        nodes = {member.key: node for member, node in self._connected(deadline).items()}

        def converse(key: str) -> None:
            answers[key] = self._reply(action, contents[key], nodes[key], deadline)

        # A thread for each client, as one that keeps the server waiting must not hold up others. It
        # may outlive the deadline, and is no reason for the program to stay.
        threads = [
            threading.Thread(target=converse, args=(key,), daemon=True)
            for key in contents
            if key in nodes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline + _GRACE - time.time()))
        found = dict(answers)
        return {key: found.get(key, Code.SILENT) for key in contents}

    def _reply(
        self, action: str, content: RecordDict, node: int, deadline: float
    ) -> RecordDict | Code:
        """Send one message and wait for its reply."""
        sent = self._send(action, content, node, deadline)
        pause = _SHORTEST_PAUSE
        while sent is not None and time.time() < deadline:
            if (found := self._look(sent)) is not None:
                return found
            time.sleep(max(0.0, min(pause, deadline - time.time())))
            pause = min(_LONGEST_PAUSE, 1.2 * pause)
        return Code.SILENT

    def _send(self, action: str, content: RecordDict, node: int, deadline: float) -> str | None:
        """Send one message; returns its number, or ``None`` if it could not be sent in time."""
        while (left := deadline - time.time()) > 0:
            message = Message(content, node, f"query.{action}", ttl=left)
            try:
                return next(
                    (str(sent) for sent in self._grid.push_messages([message]) if sent), None
                )
            except httpx.HTTPError:
                time.sleep(min(_TRY_AGAIN, left))
        return None

    def _look(self, sent: str) -> RecordDict | Code | None:
        """Return the reply to a message, a code that says what came instead, or ``None``."""
        try:
            for reply in self._grid.pull_messages([sent]):
                if reply.metadata.reply_to_message_id == sent:
                    return _content(reply)
        except httpx.HTTPError:
            return None
        except Exception:  # noqa: BLE001 - Flower raises many kinds for what a client packed wrongly
            return Code.GARBAGE
        return None


def _content(reply: Message) -> RecordDict | Code:
    if reply.has_content():
        return reply.content
    error: Error = reply.error
    return Code.SILENT if error.code in _NO_REPLY else Code.FAILED

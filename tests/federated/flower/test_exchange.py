"""What the server makes of replies that are late, forged or lost, and of a grid that fails."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from dpsd.federated.exchange import Member
from dpsd.federated.flower.exchange import FlowerExchange, key_of
from dpsd.federated.flower.records import reply_record
from dpsd.federated.requests import Code, Hello, Reply

from .clients import request


class LocalGrid:
    """A grid of one client, whose replies a test chooses."""

    def __init__(self, *replies: RecordDict | Error | Exception) -> None:
        self.replies = list(replies)
        self.sent: list[Message] = []

    def get_nodes(self) -> list[Any]:
        return [SimpleNamespace(node_id=5, public_key=b"key", name="hospital-1")]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self.sent)}"
            self.sent.append(message)
        return [self.sent[-1].metadata.message_id]

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        if not self.replies:
            return []
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return [Message(reply, reply_to=self.sent[-1])]


@pytest.fixture(autouse=True)
def task() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 2, 1


def asked(grid: LocalGrid, *, seconds: float = 5) -> Reply:
    exchange: Any = FlowerExchange(grid)  # type: ignore[arg-type]
    deadline = time.time() + seconds
    made = {key_of(b"key"): request(3, deadline=deadline)}
    (reply,) = exchange.ask(made, deadline=deadline).values()
    assert isinstance(reply, Reply)
    return reply


def answered(*values: float) -> RecordDict:
    marks = torch.ones(len(values), dtype=torch.bool)
    return reply_record(Reply(code=Code.ANSWERED, release=torch.tensor(values), answered=marks))


def test_a_client_is_known_by_the_hash_of_its_public_key() -> None:
    exchange: Any = FlowerExchange(LocalGrid())  # type: ignore[arg-type]
    assert exchange.members() == [Member(key=key_of(b"key"), name="hospital-1")]


def test_a_message_lives_no_longer_than_the_round() -> None:
    grid = LocalGrid(answered(3, 7))
    assert asked(grid, seconds=9).code is Code.ANSWERED
    assert 8 < grid.sent[0].metadata.ttl <= 9
    assert grid.sent[0].metadata.message_type == "query.answer"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (ErrorCode.UNKNOWN, Code.FAILED),
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, Code.FAILED),
        (ErrorCode.CLIENT_APP_CRASHED, Code.FAILED),
        (ErrorCode.MESSAGE_UNAVAILABLE, Code.SILENT),
        (ErrorCode.NODE_UNAVAILABLE, Code.SILENT),
    ],
)
def test_an_error_of_flowers_becomes_a_code_without_its_text(code: int, expected: Code) -> None:
    reply = asked(LocalGrid(Error(code, "Mary Smith")))
    assert reply == Reply(code=expected)


def test_a_reply_that_does_not_come_by_the_deadline_is_silence() -> None:
    assert asked(LocalGrid(), seconds=0.3).code is Code.SILENT


def test_a_grid_that_fails_for_a_while_loses_no_reply() -> None:
    lost = httpx.ConnectError("refused")
    assert asked(LocalGrid(lost, lost, answered(3, 7))).code is Code.ANSWERED


def test_a_reply_that_flower_cannot_unpack_is_garbage() -> None:
    assert asked(LocalGrid(ValueError("Unexpected set of `children`"))).code is Code.GARBAGE


def test_a_reply_that_is_no_message_is_garbage() -> None:
    assert asked(LocalGrid(answered(3, 7))).code is Code.ANSWERED
    assert asked(LocalGrid(RecordDict())).code is Code.GARBAGE


def test_a_greeting_that_cannot_be_read_is_garbage() -> None:
    exchange = FlowerExchange(LocalGrid(RecordDict()))  # type: ignore[arg-type]
    hello = Hello(federation="f", shape=(1, 4, 4), num_classes=10)
    greetings = exchange.greet(hello, exchange.members(), deadline=time.time() + 5)
    assert [greeting.code for greeting in greetings.values()] == [Code.GARBAGE]

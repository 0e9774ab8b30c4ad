"""A client as Flower's app, which passes what it is asked to an object that answers.

Nothing of an exception gets out but :attr:`~dpsd.federated.requests.Code.FAILED`, as an exception's
text may name a patient.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from dpsd.federated.flower.exchange import ANSWER, HELLO
from dpsd.federated.flower.records import (
    RecordError,
    greeting_record,
    read_hello,
    read_request,
    reply_record,
)
from dpsd.federated.requests import Code, Greeting, Hello, Reply, Request

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


class Answering(Protocol):
    """The interface of what answers for a client."""

    def greet(self, hello: Hello) -> Greeting:
        """Return what the client says of itself, and whether it takes part."""

    def answer(self, request: Request) -> Reply:
        """Return what the client's mechanism releases about images, or why it does not."""


def client_app(answering: Callable[[Context], Answering]) -> ClientApp:
    """Return the app of a client.

    Args:
        answering: returns what answers, given what Flower says of the client.
    """
    app = ClientApp()
    _answer_queries(
        app,
        HELLO,
        read_hello,
        lambda context, hello: answering(context).greet(hello),
        greeting_record,
        lambda code: Greeting(code=code),
    )
    _answer_queries(
        app,
        ANSWER,
        read_request,
        lambda context, request: answering(context).answer(request),
        reply_record,
        lambda code: Reply(code=code),
    )
    return app


def _answer_queries(
    app: ClientApp,
    action: str,
    read: Callable[[RecordDict], _Asked],
    answer: Callable[[Context, _Asked], _Answer],
    record: Callable[[_Answer], RecordDict],
    refusal: Callable[[Code], _Answer],
) -> None:
    """Make the app answer queries of one action."""

    @app.query(action)
    def query(message: Message, context: Context) -> Message:
        try:
            asked = read(message.content if message.has_content() else RecordDict())
        except RecordError:
            return Message(record(refusal(Code.MALFORMED)), reply_to=message)
        try:
            content = record(answer(context, asked))
        except Exception as error:  # noqa: BLE001 - whatever it is, the server learns only that it was
            print(f"dpsd: answering failed: {type(error).__name__}", file=sys.stderr, flush=True)
            content = record(refusal(Code.FAILED))
        return Message(content, reply_to=message)

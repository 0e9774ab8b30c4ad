"""What answers for a client, under a node of Flower's that runs with ``--isolation process``.

A server of Flower's sends its clients a bundle of code. The executor that Flower brings puts the
bundle's folder first on ``sys.path``, so one that holds a package with the name of ours would be
run in its place. This executor runs the app that it is given, never unpacks a bundle, and installs
nothing. It stays warm: the teacher is loaded once.
"""

from __future__ import annotations

import sys
import threading

import httpx
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SubStatus
from flwr.supercore.constant import TaskType
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from dpsd.federated.flower.tasks import Source

#: How long to wait before asking again for something to do, in seconds.
_PAUSE = 0.1


def execute(app: ClientApp, node: Source, stop: threading.Event) -> None:
    """Answer what a node of Flower's receives, until told to stop.

    Args:
        app: the app that answers.
        node: the node.
        stop: ends the work, after the message that is being answered.
    """
    while not stop.is_set():
        try:
            token = node.take(TaskType.CLIENT_APP)
        except httpx.HTTPError:  # it is starting, or whoever started it will notice that it is gone
            token = None
        if token is None:
            stop.wait(_PAUSE)
            continue
        try:
            _work(app, node, token)
        except httpx.HTTPError as error:
            _say(f"the node did not take a reply: {type(error).__name__}")


def _work(app: ClientApp, node: Source, token: str) -> None:
    """Answer one message."""
    with node.working(token, "flwr-clientapp") as client:
        try:
            # The last is the bundle that the server sent, which stays bytes in memory.
            message, context, _, _ = pull_task_input(client)
        except httpx.HTTPError:
            raise
        except Exception as error:  # noqa: BLE001 - Flower raises many kinds for a hostile message
            # The node replies that it failed once it has heard no heartbeat for a minute.
            _say(f"a message could not be read: {type(error).__name__}")
            return
        push_message(client, _answered(app, message, context), context)
        push_task_output(client, context, SubStatus.COMPLETED, "")


def _answered(app: ClientApp, message: Message, context: Context) -> Message:
    """Return the app's reply, or one that it failed, without the text of the exception."""
    try:
        return app(message, context)
    except Exception as error:  # noqa: BLE001 - whatever it is, the server learns only that it was
        _say(f"a message was not answered: {type(error).__name__}")
        return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION), reply_to=message)


def _say(what: str) -> None:
    print(f"dpsd: {what}", file=sys.stderr, flush=True)

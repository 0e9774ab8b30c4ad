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
from flwr.common.serde import context_from_proto
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullTaskInputRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime.run_clientapp import push_message, push_task_output

from dpsd.federated.flower.tasks import Source

#: How long to wait before asking again for something to do, and for a part of a message that the
#: node is still fetching itself, in seconds.
_PAUSE, _FETCHING = 0.1, 0.05


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
            message, context = _pulled(client)
        except httpx.HTTPError:
            raise
        except Exception as error:  # noqa: BLE001 - Flower raises many kinds for a hostile message
            # The node replies that it failed once it has heard no heartbeat for a minute.
            _say(f"a message could not be read: {type(error).__name__}")
            return
        push_message(client, _answered(app, message, context), context)
        push_task_output(client, context, SubStatus.COMPLETED, "")


def _pulled(client: RuntimeHttpClient) -> tuple[Message, Context]:
    """Return the message to answer; the bundle that the server sent stays bytes, and unread.

    A node hands out a message while it is still fetching it. Flower's own function would look again
    after a second, and this one looks sooner.
    """
    given = client.PullTaskInput(PullTaskInputRequest())
    context = context_from_proto(given.context)
    # Messages are marked with these.
    TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
    TaskIdentity.node_id = context.node_id
    (tree,) = client.PullMessages(PullAppMessagesRequest()).message_object_trees
    place = Node(node_id=context.node_id), context.run_id
    message = pull_and_inflate_object_from_tree(
        tree,
        make_pull_object_fn_protobuf(client.PullObject, *place),
        make_confirm_message_received_fn_protobuf(client.ConfirmMessageReceived, *place),
        return_type=Message,
        initial_backoff=_FETCHING,
    )
    message.metadata.__dict__["_message_id"] = tree.object_id  # which its own bytes do not hold
    return message, context


def _answered(app: ClientApp, message: Message, context: Context) -> Message:
    """Return the app's reply, or one that it failed, without the text of the exception."""
    try:
        return app(message, context)
    except Exception as error:  # noqa: BLE001 - whatever it is, the server learns only that it was
        _say(f"a message was not answered: {type(error).__name__}")
        return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION), reply_to=message)


def _say(what: str) -> None:
    print(f"dpsd: {what}", file=sys.stderr, flush=True)

"""Taking tasks from a node, or from a server, of Flower's that runs with ``--isolation process``.

Such a process does no work itself. Whoever knows its secret takes a task from it, shows that it is
alive by heartbeats while it works, and returns what comes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

#: The request that the secret signs.
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


class Source:
    """A process of Flower's that has tasks to do.

    Args:
        address: its host and port.
        secret_file: the file with the secret that it was started with.
        authority: the certificate of the authority that signed its certificate, as PEM; ``None`` if
            the connection, which is then over loopback, is not encrypted.
    """

    def __init__(self, address: str, secret_file: Path, *, authority: bytes | None = None) -> None:
        self.address = address
        self.authority = authority
        secret = secret_file.read_bytes()
        self._tasks = self._connected(
            "SuperExec",
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE}),
        )

    def take(self, kind: TaskType) -> str | None:
        """Take a task; returns its token, or ``None`` if there is nothing to do.

        Raises:
            httpx.HTTPError: the process cannot be reached, or refuses.
        """
        found = self._tasks.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
        return found.token if found.HasField("task") and found.token else None

    @contextmanager
    def working(self, token: str, component: str) -> Iterator[RuntimeHttpClient]:
        """Give a connection for the work on a task, during which the source hears heartbeats.

        Args:
            token: the token of the task.
            component: the part of Flower that does such tasks.
        """
        with self._connected(component, RuntimeTokenHttpInterceptor(token)) as client:
            heartbeats = HeartbeatSender(lambda: _beat(client))
            heartbeats.start()
            try:
                yield client
            finally:
                heartbeats.stop()

    def close(self) -> None:
        """Close the connection that takes tasks."""
        self._tasks.close()

    def _connected(
        self, component: str, interceptor: ProtobufClientInterceptor
    ) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            self.address,
            insecure=self.authority is None,
            root_certificates=self.authority,
            interceptors=[RuntimeVersionHttpInterceptor(component_name=component), interceptor],
        )


def _beat(client: RuntimeHttpClient) -> bool:
    """Send one heartbeat; returns whether it arrived."""
    try:
        client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    except httpx.HTTPError:
        return False
    return True

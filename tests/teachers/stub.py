"""A server of the Open Inference Protocol in a thread, which counts what it answers and misbehaves
when it is told to.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "UINT8": "u1", "INT64": "<i8"}
CLASSES = 3
WEIGHTS = np.random.default_rng(0).standard_normal((64, CLASSES)).astype(np.float32)


def scores(rows: NDArray[Any]) -> NDArray[np.float32]:
    """The answers of the model: logits ``(N, 3)`` for images of 64 numbers in [0, 1]."""
    return np.asarray((rows.reshape(len(rows), -1).astype(np.float32) - 0.5) @ WEIGHTS)


@dataclass
class Reply:
    """What the server sends."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    length: int | None = None  # as stated, if that is not true
    wait: float = 0.0
    drop: bool = False  # the connection, without a word


def error(status: int, message: str = "no", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, named, json.dumps({"error": message}).encode())


@dataclass
class Stub:
    """The server's state: change it to change what the server does."""

    image_type: str = "FP32"
    image_shape: tuple[int, ...] = (-1, 1, 8, 8)
    score_type: str = "FP32"
    outputs: list[dict[str, Any]] | None = None
    versions: tuple[str, ...] = ("3",)
    binary: bool = True
    most: int | None = None  # images in a request
    answered_as: str | None = None  # a version
    scores: Callable[[NDArray[Any]], NDArray[Any]] = scores
    #: Decides instead of the model; gets the number of the request, from 1, and its rows.
    instead: Callable[[int, int], Reply | None] = lambda number, rows: None
    address: str = ""
    seen: Counter[bytes] = field(default_factory=Counter)  # rows that were answered
    requests: int = 0  # to infer
    sizes: list[int] = field(default_factory=list)
    was_binary: list[bool] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    busiest: int = 0
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        """Forget what was asked so far, which is public noise."""
        self.seen.clear()
        self.sizes.clear()
        self.requests = 0

    def describe(self, path: str) -> Reply:
        if path == "/v2":
            extensions = ["binary_tensor_data"] if self.binary else []
            content: dict[str, Any] = {"name": "stub", "extensions": extensions}
        elif path.startswith("/v2/models/digits") and self._has(path):
            content = {
                "name": "digits",
                "versions": list(self.versions),
                "inputs": [
                    {
                        "name": "image",
                        "datatype": self.image_type,
                        "shape": list(self.image_shape),
                    }
                ],
                "outputs": self.outputs
                or [{"name": "scores", "datatype": self.score_type, "shape": [-1, CLASSES]}],
            }
        else:
            return error(404, "unknown model")
        return Reply(body=json.dumps(content).encode())

    def _has(self, path: str) -> bool:
        version = path.partition("/versions/")[2]
        return not version or version in self.versions

    def infer(self, headers: dict[str, str], body: bytes) -> Reply:
        with self._lock:
            self.requests += 1
            number = self.requests
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        try:
            length = int(headers.get("inference-header-content-length", len(body)))
            content = json.loads(body[:length])
            (image,) = content["inputs"]
            kind = TYPES[image["datatype"]]
            is_binary = "data" not in image
            values = np.frombuffer(body[length:], kind) if is_binary else np.array(image["data"])
            rows = values.astype(kind).reshape(image["shape"])
            if rows.shape[1:] != self.image_shape[1:]:
                return error(400, f"unexpected shape {rows.shape}")
            decided = self.instead(number, len(rows))
            if decided is None and self.most is not None and len(rows) > self.most:
                decided = error(413)
            if decided is not None and decided.status in (413, 429, 503):
                return decided
            with self._lock:
                self.sizes.append(len(rows))
                self.was_binary.append(is_binary)
                self.seen.update(hashlib.sha256(row.tobytes()).digest() for row in rows)
            return decided or self.answer(rows, content, is_binary=is_binary)
        finally:
            with self._lock:
                self._busy -= 1

    def answer(self, rows: NDArray[Any], content: dict[str, Any], *, is_binary: bool) -> Reply:
        if self.image_type == "UINT8":
            rows = rows.astype(np.float32) / 255
        found = np.asarray(self.scores(rows), dtype=TYPES[self.score_type])
        name = content.get("outputs", [{"name": "scores"}])[0]["name"]
        output: dict[str, Any] = {
            "name": name,
            "datatype": self.score_type,
            "shape": list(found.shape),
        }
        reply: dict[str, Any] = {"model_name": "digits", "outputs": [output]}
        version = self.answered_as or (self.versions[0] if self.versions else None)
        if version is not None:
            reply["model_version"] = version
        if not is_binary:
            output["data"] = found.ravel().tolist()
            return Reply(body=json.dumps(reply).encode())
        output["parameters"] = {"binary_data_size": found.nbytes}
        head = json.dumps(reply).encode()
        return Reply(
            headers={"Inference-Header-Content-Length": str(len(head))},
            body=head + found.tobytes(),
        )


@contextmanager
def serving(
    stub: Stub | None = None, *, port: int = 0, certificate: Path | None = None
) -> Iterator[Stub]:
    """Serve a model on this machine, by default on any free port and without encryption."""
    state = stub or Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            self._send(state.describe(self.path))

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            state.headers.append(headers)
            body = self.rfile.read(int(headers.get("content-length", 0)))
            self._send(state.infer(headers, body))

        def _send(self, reply: Reply) -> None:
            time.sleep(reply.wait)
            if reply.drop:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            stated = len(reply.body) if reply.length is None else reply.length
            try:
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(stated)}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)
            except OSError:  # whoever asked is gone
                self.close_connection = True
            if stated != len(reply.body):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), OSError):  # whoever asked is gone
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", port), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if certificate is None else "https"
    state.address = f"{scheme}://127.0.0.1:{server.server_address[1]}/v2/models/digits"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""The configurations of reverse proxies, as nginx and Caddy run them on the loopback interface.

A proxy that is not on PATH is not tried.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dpsd.errors import RunError
from dpsd.federated.exchange import Exchange
from dpsd.federated.flower.joining import join
from dpsd.federated.flower.places import ServerPlace
from dpsd.federated.flower.processes import free_port
from dpsd.federated.flower.proxies import PROXIES, proxy_configuration
from dpsd.federated.flower.records import MOST_BYTES
from dpsd.federated.flower.serving import superlink
from dpsd.federated.requests import Code

from .clients import FirstPixel
from .deployed import HELLO, PATIENCE, Hospital, asked, connected, within

pytestmark = [pytest.mark.federated, pytest.mark.timeout(900)]

#: What an operator has around our configuration, kept away from the system's folders and ports.
AROUND = {
    "nginx": """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {ours};
}}
""",
    "caddy": """\
{{
    admin off
    auto_https disable_redirects
    skip_install_trust
}}
import {ours}
""",
}
COMMANDS = {
    "nginx": ("nginx", "-e", "stderr", "-p", "{folder}", "-c", "{around}"),
    "caddy": ("caddy", "run", "--adapter", "caddyfile", "--config", "{around}"),
}

#: What controls Flower's server and answers anybody, and its other interface that no client needs.
CONTROL, RUNTIME = "/v1/control/list-nodes", "/v1/runtime/acquire-task"
#: Other ways to write the first, for a proxy that understands a path otherwise than Flower does.
DISGUISED = (
    "/v1/fleet/../control/list-nodes",
    "/v1/fleet/%2e%2e/control/list-nodes",
    "/v1/fleet/..%2fcontrol/list-nodes",
    "/v1/fleet/..%252fcontrol/list-nodes",
    "/v1/fleet/x/../../control/list-nodes",
    "/v1/fleet//../../control/list-nodes",
    "/v1/fleet/..;/control/list-nodes",
    "/v1/fleet/..\\control/list-nodes",
    "/v1/fleet/?/../../control/list-nodes",
    "//v1/control/list-nodes",
    "/v1//control/list-nodes",
    "/./v1/control/list-nodes",
    "/v1/CONTROL/list-nodes",
    "/v1/%63ontrol/list-nodes",
    "/v1/control/list-nodes?/v1/fleet/",
    "/v1/control/list-nodes/../../fleet/",
    "/v1/control/list-nodes#/../../../fleet/",
    "/v1/control/list-nodes%3f/../../../fleet/",
    "/v1/control/list-nodes%00/../../../fleet/",
)


@dataclass(frozen=True)
class Proxied:
    """A server behind a proxy."""

    server: ServerPlace
    inside: int
    outside: int

    def post(self, path: str, body: bytes = b"", *, port: int | None = None) -> tuple[int, bytes]:
        """Post to a path, which is sent as it is; returns the status and what came.

        Args:
            path: the path.
            body: what is posted.
            port: the port; by default, the proxy's.
        """
        context = ssl.create_default_context(cafile=str(self.server.authority))
        connection = http.client.HTTPSConnection(
            "localhost", port or self.outside, context=context, timeout=PATIENCE
        )
        try:
            connection.request("POST", path, body, {"content-type": "application/protobuf"})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerPlace]:
    place = ServerPlace(tmp_path_factory.mktemp("server"))
    place.prepare()
    with superlink(place):
        yield place


@pytest.fixture(scope="module", params=PROXIES)
def proxied(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxied]:
    proxy = request.param
    if shutil.which(proxy) is None:
        pytest.skip(f"{proxy} is not installed, so its configuration is not tried")
    server: ServerPlace = request.getfixturevalue("server")
    folder, inside, outside = tmp_path_factory.mktemp(proxy), server.last_port, free_port()
    assert inside is not None
    ours, around = folder / "ours", folder / "around"
    text = proxy_configuration(
        proxy,
        host="localhost",
        outside=outside,
        inside=inside,
        authority=server.authority,
        certificate=server.certificate,
        key=server.key,
    )
    ours.write_text(text, encoding="utf-8")
    around.write_text(AROUND[proxy].format(folder=folder, ours=ours), encoding="utf-8")
    program = subprocess.Popen(
        [part.format(folder=folder, around=around) for part in COMMANDS[proxy]],
        env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)},
    )
    try:
        deadline = time.time() + PATIENCE
        while not listens(outside):
            assert program.poll() is None, f"{proxy} refused its configuration"
            assert time.time() < deadline, f"{proxy} did not start"
            time.sleep(0.1)
        yield Proxied(server, inside, outside)
    finally:
        program.terminate()
        program.wait(PATIENCE)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_client_takes_part_through_a_proxy(proxied: Proxied, tmp_path: Path) -> None:
    hospital = Hospital(
        tmp_path / f"hospital-{proxied.outside}",
        proxied.server,
        address=f"localhost:{proxied.outside}",
    )
    hospital.register()
    hospital.start()

    def run(exchange: Exchange) -> None:
        connected(exchange, hospital.key)
        member = next(one for one in exchange.members() if one.key == hospital.key)
        greetings = exchange.greet(HELLO, [member], deadline=time.time() + PATIENCE)
        assert greetings[hospital.key].mechanism == {"classes": 10}
        reply = asked(exchange, 3, hospital.key)[hospital.key]
        assert reply.code is Code.ANSWERED
        assert reply.release is not None
        assert reply.release.tolist() == [3, 7]

    try:
        within(proxied.server, run)
    finally:
        hospital.end()


def test_a_client_whose_key_is_not_registered_is_refused_through_a_proxy(
    proxied: Proxied, tmp_path: Path
) -> None:
    stranger = Hospital(
        tmp_path / "stranger", proxied.server, address=f"localhost:{proxied.outside}"
    )
    with pytest.raises(RunError, match="does not know the client"):
        join(stranger.place, stranger.invitation(), FirstPixel())


def test_a_proxy_passes_on_what_clients_need_and_nothing_else(proxied: Proxied) -> None:
    assert proxied.post(CONTROL, port=proxied.inside)[0] == 200, "the port controls the server"
    for path in (CONTROL, RUNTIME, "/", "/v2/fleet/", *DISGUISED):
        assert proxied.post(path)[0] in (400, 404), path
    posting = "/v1/fleet/pull-messages"
    passed_on = proxied.post(posting)
    assert passed_on == proxied.post(posting, port=proxied.inside)
    assert passed_on[0] == 401, "nothing is answered without a client's signature"


def test_a_proxy_passes_on_the_largest_message(proxied: Proxied) -> None:
    body = bytes(MOST_BYTES // 2 + (1 << 20))  # releases are sent at half their size in memory
    posting = "/v1/fleet/push-object"
    passed_on = proxied.post(posting, body)
    assert passed_on == proxied.post(posting, body, port=proxied.inside)

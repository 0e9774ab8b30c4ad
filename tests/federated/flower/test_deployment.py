"""A real federation on the loopback interface: processes, TLS, and clients known by keys."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from dpsd.errors import ConfigError, RunError
from dpsd.federated.exchange import Exchange
from dpsd.federated.flower import serving
from dpsd.federated.flower.identities import read_public_key
from dpsd.federated.flower.joining import join
from dpsd.federated.flower.places import ClientPlace, ServerPlace
from dpsd.federated.flower.processes import free_port
from dpsd.federated.flower.registering import register, registered, unregister
from dpsd.federated.flower.serving import run_app, superlink
from dpsd.federated.requests import Code, Reply

from .clients import RAISES, SECRET, SLEEP, SLEEPS, FirstPixel, request
from .deployed import HELLO, PATIENCE, Hospital, asked, connected, within

pytestmark = [pytest.mark.federated, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerPlace]:
    place = ServerPlace(tmp_path_factory.mktemp("server"))
    place.prepare(["hub.example"])
    with superlink(place):
        yield place


@pytest.fixture(scope="module")
def hospital(server: ServerPlace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    made = Hospital(tmp_path_factory.mktemp("clients") / "hospital-1", server)
    made.register()
    made.start()
    yield made
    made.end()


def test_a_client_is_greeted_and_asked_over_tls(server: ServerPlace, hospital: Hospital) -> None:
    def run(exchange: Exchange) -> None:
        connected(exchange, hospital.key)
        (member,) = exchange.members()
        assert (member.key, member.name) == (hospital.key, "hospital-1")
        greetings = exchange.greet(HELLO, [member], deadline=time.time() + PATIENCE)
        assert greetings[hospital.key].mechanism == {"classes": 10}
        reply = asked(exchange, 3, hospital.key)[hospital.key]
        assert reply.code is Code.ANSWERED
        assert reply.release is not None
        assert reply.release.tolist() == [3, 7]
        assert reply.spent == {"response": 1.0}

    within(server, run)


def test_a_client_that_raises_says_so_without_the_exceptions_text(
    server: ServerPlace, hospital: Hospital
) -> None:
    def run(exchange: Exchange) -> None:
        connected(exchange, hospital.key)
        assert asked(exchange, RAISES, hospital.key) == {hospital.key: Reply(code=Code.FAILED)}
        assert asked(exchange, 5, hospital.key)[hospital.key].code is Code.ANSWERED

    within(server, run)
    files = [file for file in server.folder.rglob("*") if file.is_file()]
    assert {server.log, server.folder / "state.db"} <= set(files)
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]


def test_a_late_reply_is_silence_and_the_next_one_is_in_time(
    server: ServerPlace, hospital: Hospital
) -> None:
    def run(exchange: Exchange) -> None:
        connected(exchange, hospital.key)
        late = asked(exchange, SLEEPS, hospital.key, seconds=SLEEP)
        assert late[hospital.key].code is Code.SILENT
        reply = asked(exchange, 6, hospital.key, number=2)[hospital.key]
        assert reply.code is Code.ANSWERED
        assert reply.release is not None
        assert reply.release.tolist() == [6, 7]

    within(server, run)


def test_a_bundle_that_holds_a_package_of_our_name_changes_nothing(
    server: ServerPlace, hospital: Hospital
) -> None:
    shadow = b"import pathlib\npathlib.Path(%r).write_text('run')\nraise SystemExit\n" % str(
        hospital.place.folder / "shadowed"
    )
    bundle = {**serving._BUNDLE, "dpsd/__init__.py": shadow, "dpsd/federated/__init__.py": shadow}
    serving._start_run(server, bundle)

    def run(exchange: Exchange) -> None:
        connected(exchange, hospital.key)
        assert asked(exchange, 4, hospital.key)[hospital.key].code is Code.ANSWERED

    within(server, run)  # takes up the run that was started
    assert not (hospital.place.folder / "shadowed").exists()
    assert not list(hospital.place.folder.rglob("dpsd"))


def test_a_client_that_is_killed_and_started_again_answers_the_same_round(
    server: ServerPlace, hospital: Hospital
) -> None:
    def run(exchange: Exchange) -> None:
        connected(exchange, hospital.key)
        deadline = time.time() + SLEEP
        assert exchange.ask(
            {hospital.key: request(SLEEPS, deadline=deadline)}, deadline=deadline
        ) == {hospital.key: Reply(code=Code.SILENT)}
        hospital.end(signal.SIGKILL)
        hospital.start()
        connected(exchange, hospital.key)
        assert asked(exchange, 9, hospital.key)[hospital.key].code is Code.ANSWERED

    within(server, run)


@pytest.mark.thorough  # the server believes for a minute that the node is there
def test_a_client_whose_node_is_killed_starts_another_and_answers_on(
    server: ServerPlace, hospital: Hospital
) -> None:
    def run(exchange: Exchange) -> None:
        connected(exchange, hospital.key)
        assert asked(exchange, 7, hospital.key)[hospital.key].code is Code.ANSWERED
        (node,) = hospital.nodes()
        node.kill()
        assert not psutil.wait_procs([node], timeout=PATIENCE)[1]
        assert _eventually(exchange, 8, hospital.key).release is not None
        assert hospital.nodes() != [node]

    within(server, run)


@pytest.mark.thorough  # for the same minute
def test_a_client_goes_on_when_its_server_fails_for_a_while(tmp_path: Path) -> None:
    place = ServerPlace(tmp_path / "server")
    place.prepare()
    hospital = Hospital(tmp_path / "hospital-1", place)

    def run(exchange: Exchange) -> None:
        connected(exchange, hospital.key)
        assert asked(exchange, 7, hospital.key)[hospital.key].code is Code.ANSWERED
        (node,) = hospital.nodes()
        database = sqlite3.connect(place.folder / "state.db", isolation_level=None)
        with closing(database):
            database.execute("BEGIN EXCLUSIVE")  # each request now ends in an HTTP error 500
            assert not psutil.wait_procs([node], timeout=PATIENCE)[1]
            database.execute("ROLLBACK")
        assert b"Server error '500" in hospital.place.log.read_bytes()
        assert _eventually(exchange, 8, hospital.key).release is not None

    with superlink(place):
        hospital.register()
        hospital.start()
        try:
            within(place, run)
        finally:
            hospital.end()


def _eventually(exchange: Exchange, pixel: int, key: str) -> Reply:
    """Ask a client, again and again, until it answers."""
    deadline = time.time() + PATIENCE
    while (reply := asked(exchange, pixel, key, seconds=10)[key]).code is not Code.ANSWERED:
        assert time.time() < deadline, "the client did not come back"
    return reply


def test_a_client_whose_node_cannot_start_is_told_so(server: ServerPlace, tmp_path: Path) -> None:
    stranger = Hospital(tmp_path / "stranger", server)
    stranger.place.private_key.write_text("no key", encoding="utf-8")
    with pytest.raises(RunError, match="Flower's node has ended"):
        join(stranger.place, stranger.invitation(), FirstPixel())


def test_a_client_whose_key_is_not_registered_is_refused_in_one_line(
    server: ServerPlace, tmp_path: Path
) -> None:
    stranger = Hospital(tmp_path / "stranger", server)
    with pytest.raises(
        RunError, match=f"does not know the client: send {stranger.place.public_key}"
    ):
        join(stranger.place, stranger.invitation(), FirstPixel())
    stranger.register()
    assert {found.member.name for found in registered(server)} >= {"stranger"}
    stranger.register()  # once more changes nothing
    public = read_public_key(stranger.place.public_key)
    with pytest.raises(ConfigError, match="registered already, as stranger"):
        register(server, public, "another")
    other = ClientPlace(tmp_path / "other")
    other.prepare()
    with pytest.raises(ConfigError, match="another client is called stranger"):
        register(server, read_public_key(other.public_key), "stranger")
    unregister(server, stranger.key)
    assert "stranger" not in {found.member.name for found in registered(server)}


def test_a_server_that_is_killed_and_started_again_finds_its_clients(tmp_path: Path) -> None:
    place, port = ServerPlace(tmp_path / "server"), free_port()
    place.prepare()
    hospital = Hospital(tmp_path / "hospital-1", place)

    def killed(exchange: Exchange) -> None:
        connected(exchange, hospital.key)
        for child in psutil.Process().children():
            if str(port) in child.cmdline():
                os.kill(child.pid, signal.SIGKILL)
        asked(exchange, 2, hospital.key)
        raise AssertionError("nobody noticed that Flower's server is gone")

    def again(exchange: Exchange) -> None:
        connected(exchange, hospital.key)
        assert asked(exchange, 3, hospital.key)[hospital.key].code is Code.ANSWERED

    def run_until_killed() -> None:
        with superlink(place, port=port):
            hospital.register()
            hospital.start()
            run_app(place, killed)

    try:
        with pytest.raises(RunError, match="Flower's server has ended"):
            run_until_killed()
        with superlink(place, port=port):
            within(place, again)
    finally:
        hospital.end()

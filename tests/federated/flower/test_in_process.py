"""A federation in one process, whatever its clients do."""

from __future__ import annotations

import time

import pytest

from dpsd.federated.exchange import Exchange
from dpsd.federated.flower.in_process import simulate
from dpsd.federated.requests import Code, Greeting, Hello, Reply

from .clients import LEAVES, RAISES, SECRET, SLEEP, SLEEPS, FirstPixel, request

HELLO = Hello(federation="f00d", shape=(1, 4, 4), num_classes=10)


def test_each_of_many_clients_answers_its_own_request() -> None:
    clients = [FirstPixel() for _ in range(12)]
    greetings: dict[str, Greeting] = {}
    replies: dict[str, Reply] = {}

    def run(exchange: Exchange) -> None:
        members = exchange.members()
        deadline = time.time() + 30
        greetings.update(exchange.greet(HELLO, members, deadline=deadline))
        asked = {member.key: request(int(member.key), deadline=deadline) for member in members}
        replies.update(exchange.ask(asked, deadline=deadline))

    simulate(run, clients.__getitem__, len(clients), threads=3)
    assert set(greetings) == set(replies) == {str(number) for number in range(12)}
    assert all(greeting.code is Code.ANSWERED for greeting in greetings.values())
    for key, reply in replies.items():
        assert reply.release is not None
        assert reply.release.tolist() == [int(key) % 10, 7]
    assert [client.asked for client in clients] == [1] * 12


def test_a_client_that_raises_leaves_or_sleeps_harms_no_other(
    capfd: pytest.CaptureFixture[str],
) -> None:
    clients = [FirstPixel() for _ in range(4)]
    pixels = {"0": RAISES, "1": LEAVES, "2": SLEEPS, "3": 4}
    rounds = []

    def run(exchange: Exchange) -> None:
        deadline = time.time() + SLEEP / 2
        asked = {key: request(pixel, deadline=deadline) for key, pixel in pixels.items()}
        rounds.append(exchange.ask(asked, deadline=deadline))
        deadline = time.time() + 30
        again = {key: request(8, deadline=deadline) for key in pixels}
        rounds.append(exchange.ask(again, deadline=deadline))

    simulate(run, clients.__getitem__, len(clients), threads=2)
    first, second = rounds
    assert {key: reply.code for key, reply in first.items()} == {
        "0": Code.FAILED,
        "1": Code.FAILED,
        "2": Code.SILENT,
        "3": Code.ANSWERED,
    }
    assert all(reply.code is Code.ANSWERED for reply in second.values())
    assert SECRET not in repr(rounds) + "".join(capfd.readouterr())


def test_a_client_that_is_unknown_is_silent() -> None:
    replies = {}

    def run(exchange: Exchange) -> None:
        deadline = time.time() + 30
        replies.update(exchange.ask({"9": request(1, deadline=deadline)}, deadline=deadline))

    simulate(run, lambda _: FirstPixel(), 1)
    assert replies == {"9": Reply(code=Code.SILENT)}


def test_an_error_of_the_server_ends_the_simulation() -> None:
    def run(exchange: Exchange) -> None:
        raise RuntimeError("of the server")

    with pytest.raises(RuntimeError, match="of the server"):
        simulate(run, lambda _: FirstPixel(), 2)

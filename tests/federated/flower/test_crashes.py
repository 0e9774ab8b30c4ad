"""Servers and clients that are killed at random moments: what was released is always paid, once."""

from __future__ import annotations

import hashlib
import os
import random
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from dpsd.federated.client.answers import sha256_of
from dpsd.federated.client.folder import ClientFolder
from dpsd.runs.federation import FederationDirectory

from . import programs
from .programs import ended, hospital, invited, status, until

pytestmark = [pytest.mark.federated, pytest.mark.thorough, pytest.mark.timeout(1500)]

ROUNDS, QUERIES = 8, 60
#: What is killed: a whole program, or what Flower runs beside it; its commands end in these words.
VICTIMS = ("client", "flower-supernode", "server", "flower-superlink")
KILLS = 8


def test_what_a_server_recorded_was_paid_for_once_whoever_was_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("DPSD_CRASH_SEED", random.SystemRandom().randrange(1 << 16)))
    print(f"DPSD_CRASH_SEED={seed}")
    chance, hub = random.Random(seed), tmp_path / "hub"
    hospitals = [hospital(tmp_path, number) for number in (1, 2)]
    server = programs.server(
        tmp_path,
        clients=2,
        rounds=ROUNDS,
        queries=QUERIES,
        words=("--at-least", 1, "--deadline", 15),
    )
    try:
        server.start()
        for one in hospitals:
            until(partial(invited, hub, one), "the server did not start")
        assert status(hub).count("has not connected yet") == 2
        for one in hospitals:
            one.start()
        server.words = ["server", "--resume", "hub"]
        until(FederationDirectory.open(hub).metrics, "the first round was not played")
        kills = 0
        while server.code is None and kills < KILLS:
            time.sleep(chance.uniform(0.1, 6.0))
            if server.code is None:
                victim = chance.choice(VICTIMS)
                is_server = victim in ("server", "flower-superlink")
                hit = server if is_server else chance.choice(hospitals)
                hit.kill(victim)
                kills += 1
        folders = ended(server, hospitals, rounds=ROUNDS)
        assert kills > 2, "the federation was over before anything happened to it"
    finally:
        for program in (*hospitals, server):
            program.end()
    for number, folder in enumerate(folders):
        check(FederationDirectory.open(hub), number, folder)


def check(hub: FederationDirectory, number: int, client: ClientFolder) -> None:
    """Compare what the server recorded of a client with the client's own records."""
    reserved = {entry["round"]: entry["answers"] for entry in client.reservations()}
    assert len(reserved) == len(client.reservations()), "a round was charged twice"
    with client.answers._opened() as table:
        rows = table.execute("SELECT digest, round, release FROM answers").fetchall()
    rounds = {digest: index for digest, index, _ in rows}
    released = {digest for digest, _, release in rows if release is not None}
    for index, answers in reserved.items():
        asked = [digest for digest, of in rounds.items() if of == index]
        assert len(asked) == answers, "each image that was charged was asked about once"
    lines = client.ledger.path.read_bytes().splitlines()
    heads = {hashlib.sha256(line).hexdigest(): place for place, line in enumerate(lines)}
    paid = {
        entry["round"]: place
        for place, entry in enumerate(client.ledger.entries())
        if entry["entry"] == "reserve"
    }
    key = next(one.key for one in hub.clients() if one.name == f"hospital-{number + 1}")
    column = [one.key for one in hub.clients()].index(key)
    everything: set[bytes] = set()
    for index in range(1, ROUNDS + 1):
        stored = hub.stored_releases(index, may_commit=False)
        assert stored is not None
        images = sha256_of(stored.images(torch.arange(len(stored))))
        everything |= set(images)
        said = hub.journal.replies(index).get(key, {"answers": 0})
        if column >= stored.release.shape[1]:
            continue
        answered = (stored.release[:, column] != 0).any(-1)
        assert int(answered.sum()) == said["answers"]
        for digest, is_answered in zip(images, answered.tolist(), strict=True):
            if is_answered:
                assert digest in released
                assert paid[rounds[digest]] <= heads[said["ledger"]], "it was not paid for by then"
    assert set(rounds) <= everything, "something was asked that is in no round"
    assert sum(reserved.values()) == len(rounds) <= ROUNDS * QUERIES
    assert client.certify().events["teacher"] == len(rounds)
    compared = client.reconcile()
    assert compared.files
    assert not compared.shortfalls

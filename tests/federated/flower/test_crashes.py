"""Servers and clients that are killed at random moments: what was released is always paid, once."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import torch
from typer.testing import CliRunner

from dpsd.cli import app
from dpsd.errors import RunError
from dpsd.federated.client.answers import sha256_of
from dpsd.federated.client.folder import ClientFolder
from dpsd.federated.flower.identities import read_public_key
from dpsd.federated.flower.places import ClientPlace, ServerPlace
from dpsd.federated.flower.processes import free_port
from dpsd.federated.flower.registering import register
from dpsd.models import build_classifier
from dpsd.runs.federation import FederationDirectory
from dpsd.teachers.directory import TeacherRecord, save_teacher

pytestmark = [pytest.mark.federated, pytest.mark.thorough, pytest.mark.timeout(1500)]

SHAPE, CLASSES, ROUNDS, QUERIES = (1, 8, 8), 3, 8, 60
#: What is killed: a whole program, or what Flower runs beside it; its commands end in these words.
VICTIMS = ("client", "flower-supernode", "server", "flower-superlink")
KILLS = 8
#: How long a program may take to start, to end or to finish on a busy machine, in seconds.
PATIENCE = 300.0


class Program:
    """A command of dpsd's that is started again, by other words, whenever it was killed."""

    def __init__(self, folder: Path, name: str, *words: object) -> None:
        self.folder, self.name, self.words = folder, name, [str(word) for word in words]
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dpsd", "federate", *self.words],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    @property
    def code(self) -> int | None:
        """How the program ended, if it has."""
        assert self._process is not None
        return self._process.poll()

    def kill(self, victim: str) -> None:
        """Kill the program or its child, and wait until nothing of it is left."""
        assert self._process is not None
        with suppress(psutil.NoSuchProcess):
            program = psutil.Process(self._process.pid)
            below = program.children(recursive=True)
            dying = [one for one in below if victim in one.cmdline()] or [program]
            dying[0].send_signal(signal.SIGKILL)
            self._process.wait(PATIENCE)
            assert not psutil.wait_procs(below, timeout=PATIENCE)[1]

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(PATIENCE)


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def hospital(folder: Path, number: int) -> Program:
    """A client with a teacher of its own, and a key."""
    name, teacher = f"hospital-{number}", f"teacher-{number}"
    module = build_classifier("lenet5", input_shape=SHAPE, num_classes=CLASSES, seed=number)
    record = TeacherRecord(model="lenet5", input_shape=SHAPE, num_classes=CLASSES)
    save_teacher(folder / teacher, module, record)
    ClientPlace(folder / name / "flower").prepare()
    invited = ("--invitation", "hub/invitation.toml", "--epsilon", 2, "--adjacency", "response")
    return Program(folder, name, "client", teacher, "--out", name, *invited)


def invited(hub: Path, one: Program) -> bool:
    """Let a client in, if the server is ready for that."""
    key = ClientPlace(one.folder / one.name / "flower").public_key
    try:
        register(ServerPlace(hub / "flower"), read_public_key(key), one.name)
    except RunError:
        return False
    return True


def status(hub: Path) -> str:
    done = CliRunner().invoke(app, ["federate", "status", str(hub)])
    assert done.exit_code == 0, done.output
    return done.output


def test_what_a_server_recorded_was_paid_for_once_whoever_was_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("DPSD_CRASH_SEED", random.SystemRandom().randrange(1 << 16)))
    print(f"DPSD_CRASH_SEED={seed}")
    chance, hub = random.Random(seed), tmp_path / "hub"
    hospitals = [hospital(tmp_path, number) for number in (1, 2)]
    server = Program(
        *(tmp_path, "server", "server", "--out", "hub", "--port", free_port(), "--clients", 2),
        *("--input-shape", "1,8,8", "--num-classes", CLASSES, "--student", "lenet5"),
        *("--rounds", ROUNDS, "--queries", QUERIES, "--epochs", 1, "--batch-size", 32),
        *("--generator-steps", 2, "--generator-batch-size", 16, "--device", "cpu"),
        *("--at-least", 1, "--deadline", 15, "--patience", PATIENCE),
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
                hit.start()
                kills += 1
        until(lambda: server.code is not None, "the server did not come to its end")
        assert server.code == 0, server.log.read_text("utf-8")
        assert kills > 2, "the federation was over before anything happened to it"
        assert f"{ROUNDS} of {ROUNDS} rounds; finished" in status(hub)
        folders = [ClientFolder.open(tmp_path / one.name / "client") for one in hospitals]
        for folder in folders:
            until(folder.is_certified, "a client was not started again after the last crash")
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

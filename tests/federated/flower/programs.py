"""The commands of a federation as programs, which tests start, end and kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from typer.testing import CliRunner

from dpsd.cli import app
from dpsd.errors import RunError
from dpsd.federated.client.folder import ClientFolder
from dpsd.federated.flower.identities import read_public_key
from dpsd.federated.flower.places import ClientPlace, ServerPlace
from dpsd.federated.flower.processes import free_port
from dpsd.federated.flower.registering import register
from dpsd.models import build_classifier
from dpsd.teachers.directory import TeacherRecord, save_teacher

SHAPE, CLASSES = (1, 8, 8), 3
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
        """Kill the program or its child, and start the program again if that ended it.

        A client whose node is killed starts another one by itself.
        """
        assert self._process is not None
        with suppress(psutil.NoSuchProcess):
            program = psutil.Process(self._process.pid)
            below = program.children(recursive=True)
            dying = [one for one in below if victim in one.cmdline()] or [program]
            dying[0].send_signal(signal.SIGKILL)
            if victim == "flower-supernode" and dying[0] != program:
                assert not psutil.wait_procs(dying[:1], timeout=PATIENCE)[1]
                return
            self._process.wait(PATIENCE)
            assert not psutil.wait_procs(below, timeout=PATIENCE)[1]
        self.start()

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


def server(
    folder: Path, *, clients: int, rounds: int, queries: int, words: Sequence[object]
) -> Program:
    """A server of small models, which waits for clients."""
    return Program(
        *(folder, "server", "server", "--out", "hub", "--port", free_port(), "--clients", clients),
        *("--input-shape", ",".join(map(str, SHAPE)), "--num-classes", CLASSES),
        *("--student", "lenet5", "--rounds", rounds, "--queries", queries, "--epochs", 1),
        *("--batch-size", 32, "--generator-steps", 2, "--generator-batch-size", 16),
        *("--device", "cpu", "--patience", PATIENCE, *words),
    )


def hospital(folder: Path, number: int, *words: object) -> Program:
    """A client with a teacher of its own, and a key."""
    name, teacher = f"hospital-{number}", f"teacher-{number}"
    module = build_classifier("lenet5", input_shape=SHAPE, num_classes=CLASSES, seed=number)
    record = TeacherRecord(model="lenet5", input_shape=SHAPE, num_classes=CLASSES)
    save_teacher(folder / teacher, module, record)
    ClientPlace(folder / name / "flower").prepare()
    invited = ("--invitation", "hub/invitation.toml", "--epsilon", 2, "--adjacency", "response")
    return Program(folder, name, "client", teacher, "--out", name, *invited, *words)


def invited(hub: Path, one: Program) -> bool:
    """Let a client in, if the server is ready for that."""
    key = ClientPlace(one.folder / one.name / "flower").public_key
    try:
        register(ServerPlace(hub / "flower"), read_public_key(key), one.name)
    except RunError:
        return False
    return True


def ended(server: Program, hospitals: Sequence[Program], *, rounds: int) -> list[ClientFolder]:
    """Wait until all is over, see that the server played all rounds, and return the clients."""
    hub = server.folder / "hub"
    until(lambda: server.code is not None, "the server did not come to its end")
    assert server.code == 0, server.log.read_text("utf-8")
    assert f"{rounds} of {rounds} rounds; finished" in status(hub)
    folders = [ClientFolder.open(one.folder / one.name / "client") for one in hospitals]
    for folder in folders:
        until(folder.is_certified, "a client was not started again after it was killed")
    return folders


def status(hub: Path) -> str:
    done = CliRunner().invoke(app, ["federate", "status", str(hub)])
    assert done.exit_code == 0, done.output
    return done.output

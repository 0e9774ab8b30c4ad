"""Kill small transcriptions, and break their disk, and see that nothing is forgotten.

    python tests/durability/crashes.py --kills 200 --faults all

Each run is a forked child of this process, which has computed nothing but imported everything, even
what a run imports late: a kill is to fall into a run, and not into its imports. A child is killed
(SIGKILL) at a random moment, or an error is injected at one of its write calls; then the ledger and
the teacher's budget have to be readable and to own up to at least what the teacher was asked, and a
resumed run has to end with both recording the same, and with the student, bit for bit, of a run
that was left in peace. Says how far it is, and prints a JSON object of counts at the end.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure  # noqa: F401 - what a run imports late
import torch
import torch._dynamo
from torch import Tensor

import dpsd
from dpsd.errors import DpsdError
from dpsd.privacy.records.comparison import difference
from dpsd.privacy.records.ledger import Ledger
from dpsd.privacy.records.teacher_budget import TeacherBudget
from dpsd.storage import files
from dpsd.synthesis import queries

SHAPE = (1, 8, 8)
RECIPE = dpsd.Recipe(
    rounds=3, queries=48, epochs=1.0, batch_size=24, generator_steps=1, generator_batch_size=8,
    generator_share=0.5, device="cpu", precision="float32",
)  # fmt: skip
#: Enough for every round to be asked many times.
CAP = dpsd.Budget(epsilon=1e4, delta=0, adjacency="round")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
FINISHED, REFUSED = 0, 3


class Place:
    """A folder with one run in it, its budget, and a log of what the teacher was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.asked_log = folder / "asked.log"
        self.budget_file = folder / "budget.jsonl"

    def teacher(self, *, logged: bool = True) -> dpsd.Teacher:
        def scores(images: Tensor) -> Tensor:
            if logged and started:
                with self.asked_log.open("ab", buffering=0) as log:
                    log.write(b"%d\n" % len(images))
            return 20 * images[:, 0, :6].reshape(len(images), 3, 16).mean(-1)

        started: list[bool] = []
        loaded = dpsd.load_teacher(scores, input_shape=SHAPE, scores="logits", name="thirds")
        started.append(True)  # the probe of the interface is not asking
        return loaded

    def play(self) -> None:
        """Start the run, or go on with it."""
        if (self.run / "config.toml").exists():
            dpsd.resume(self.run, self.teacher(), cap=CAP)
        else:
            dpsd.transcribe(
                self.teacher(),
                student="lenet5",
                mechanism=dpsd.RandomizedResponse(noise=dpsd.ReproducibleNoise(seed=1)),
                budget=dpsd.Budget(epsilon=6.0, delta=0, adjacency="round"),
                out=self.run,
                recipe=RECIPE,
                cap=CAP,
                budget_file=self.budget_file,
            )

    def student(self) -> bytes:
        return (self.run / "student.safetensors").read_bytes()

    def asked(self) -> int:
        return sum(map(int, self.asked_log.read_text().split())) if self.asked_log.exists() else 0

    def check(self) -> None:
        """What was asked is owned up to, in the ledger and in the budget; both can be read."""
        spent, owned = self.recorded()
        assert spent >= self.asked(), f"{self.asked()} answers, and {spent} in the ledger"
        assert owned >= self.asked(), f"{self.asked()} answers, and {owned} in the budget"
        # The ledger is written first, so that a budget that has more tells of a ledger cut short.
        assert spent >= owned, f"{spent} answers in the ledger, and {owned} in the budget"

    def recorded(self) -> tuple[int, int]:
        """Answers in the ledger and in the budget."""
        ledger = Ledger(self.run / "ledger.jsonl")
        spent = ledger.exposure().teacher if ledger.path.exists() else 0
        budget = TeacherBudget(self.budget_file, teacher=self.teacher(logged=False).fingerprint)
        return spent, sum(run.spending.exposure.teacher for run in budget.runs())

    def check_finished(self, expected: bytes) -> None:
        self.check()
        spent, owned = self.recorded()
        assert spent == owned, f"{spent} answers in the ledger, and {owned} in the budget"
        assert self.student() == expected, "another student than without the interruption"
        left = [path.name for path in self.run.rglob("*.part")]
        assert not left, f"{left} left behind"
        stored = json.loads((self.run / "certificate.json").read_text())
        computed = dpsd.RunDirectory.open(self.run).certify()
        assert difference(computed, json.dumps(stored, indent=2)) is None, "another certificate"

    def clear_if_nothing_began(self) -> None:
        """A run that was cut off before it had its settings never asked; it is started anew."""
        if not (self.run / "config.toml").exists():
            assert self.asked() == 0
            shutil.rmtree(self.run, ignore_errors=True)


def child(task: Callable[[], None]) -> int:
    """Run a task in a fork; returns the child's process number."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    status = 1
    try:
        torch.set_num_threads(1)
        with Path(os.devnull).open("w") as nowhere:  # warnings of tiny runs, again and again
            os.dup2(nowhere.fileno(), 2)
        task()
        status = FINISHED
    except (DpsdError, OSError):
        status = REFUSED
    finally:
        os._exit(status)


def waited(number: int) -> int:
    """The exit status; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def kill_at_random(place: Place, moments: random.Random, seconds: float) -> bool:
    """Play, and kill; whether the kill came before the end."""
    number = child(place.play)
    time.sleep(moments.uniform(0, seconds))
    os.kill(number, signal.SIGKILL)
    return waited(number) == -signal.SIGKILL


class Faults:
    """Counts write calls, and makes one of them fail."""

    def __init__(self, folder: Path, *, at: int | None = None, error: int = 0) -> None:
        self.folder, self.at, self.error = str(folder), at, error
        self.calls = 0

    def install(self) -> None:
        """In this process, for good."""

        def guarded(original: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                self.count()
                return original(*arguments, **options)

            return call

        for module, name in (
            *((os, "fsync"), (os, "replace"), (files, "save_file")),
            # A round's file, and the queries that wait for their answers.
            *((files, "write_block"), (queries, "write_block")),
        ):
            setattr(module, name, guarded(getattr(module, name)))
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        """Opening for writing, and making folders."""
        if event == "os.mkdir" and str(arguments[0]).startswith(self.folder):
            self.count()
        if event != "open" or not str(arguments[0]).startswith(self.folder):
            return
        mode, flags = arguments[1], arguments[2]
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        if writes and "asked.log" not in str(arguments[0]) and mode != "r":
            self.count()

    def count(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise OSError(self.error, os.strerror(self.error))


def count_write_calls(place: Place) -> int:
    """How many write calls a run in peace makes."""

    def task() -> None:
        faults = Faults(place.folder)
        faults.install()
        place.play()
        total = faults.calls
        (place.folder.parent / "calls").write_text(str(total))

    assert waited(child(task)) == FINISHED
    return int((place.folder.parent / "calls").read_text())


def play_with_fault(place: Place, *, at: int, error: int) -> int:
    def task() -> None:
        Faults(place.folder, at=at, error=error).install()
        place.play()

    return waited(child(task))


@dataclass(frozen=True)
class Peace:
    """What a run that nobody disturbed is like."""

    seconds: float
    student: bytes
    write_calls: int


def peace(folder: Path) -> Peace:
    """Play two runs in peace: one to time, and one to count its write calls."""
    place = _made(folder / "peace")
    start = time.perf_counter()
    assert waited(child(place.play)) == FINISHED
    seconds = time.perf_counter() - start
    return Peace(seconds, place.student(), count_write_calls(_made(folder / "counted")))


def kills(undisturbed: Peace, folder: Path, moments: random.Random, wanted: int) -> Counter[str]:
    """Kill runs at random moments, resume each, and check it."""
    counts: Counter[str] = Counter()
    while counts["kills"] < wanted:
        place = _made(folder / "killed")
        for _ in range(moments.randint(1, 3)):
            counts["kills"] += kill_at_random(place, moments, 1.05 * undisturbed.seconds)
            place.check()
            place.clear_if_nothing_began()
        assert waited(child(place.play)) == FINISHED
        place.check_finished(undisturbed.student)
        counts["runs resumed after kills"] += 1
        shutil.rmtree(place.folder)
        print(f"{counts['kills']} of {wanted} kills", file=sys.stderr)
    return counts


def faults(undisturbed: Peace, folder: Path, wanted: Sequence[tuple[int, int]]) -> Counter[str]:
    """Break one write call of a run, resume it, and check it, for each of the wanted faults."""
    counts: Counter[str] = Counter()
    for at, error in wanted:
        place = _made(folder / "faulty")
        status = play_with_fault(place, at=at, error=error)
        assert status in (FINISHED, REFUSED), f"write call {at}, {errno.errorcode[error]}"
        counts["faults"] += 1
        counts["faults that stopped the run"] += status == REFUSED
        place.check()
        place.clear_if_nothing_began()
        assert waited(child(place.play)) == FINISHED, f"write call {at} cannot be resumed from"
        place.check_finished(undisturbed.student)
        shutil.rmtree(place.folder)
        print(f"{counts['faults']} of {len(wanted)} faults", file=sys.stderr)
    return counts


def part(task: Callable[[], Counter[str]], result: Path) -> int:
    """Do a part of the work in a fork, which leaves its counts; returns its process number."""
    number = os.fork()
    if number:
        return number
    status = 1
    try:
        result.write_text(json.dumps(task()))
        status = 0
    except BaseException:  # noqa: BLE001 - the parent learns of it by the exit status
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    """Kill and break as often as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--faults", default="all", help="how many, or all")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().getrandbits(32)
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        undisturbed = peace(Path(name))
        every = [(at, error) for at in range(1, undisturbed.write_calls + 1) for error in ERRORS]
        if arguments.faults != "all":
            every = moments.sample(every, int(arguments.faults))
        numbers, results = [], []
        for job in range(arguments.jobs):
            folder = Path(name) / f"part-{job}"
            folder.mkdir()
            own = random.Random(moments.getrandbits(32))
            share = len(range(job, arguments.kills, arguments.jobs))

            def task(
                folder: Path = folder, own: random.Random = own, share: int = share, job: int = job
            ) -> Counter[str]:
                return kills(undisturbed, folder, own, share) + faults(
                    undisturbed, folder, every[job :: arguments.jobs]
                )

            results.append(folder / "counts.json")
            numbers.append(part(task, results[-1]))
        if any([waited(number) for number in numbers]):
            sys.exit(1)
        counts = sum((Counter(json.loads(file.read_text())) for file in results), Counter[str]())
    print(json.dumps({"seed": seed, "write calls": undisturbed.write_calls, **counts}))


def _made(folder: Path) -> Place:
    folder.mkdir()
    return Place(folder)


if __name__ == "__main__":
    main()

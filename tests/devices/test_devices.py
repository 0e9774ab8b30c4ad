"""Several processes on one run: real ones, on the CPU, that ask, learn, fail and are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import dpsd
from dpsd import (
    AnswerError,
    Budget,
    ConfigError,
    Gaussian,
    RandomizedResponse,
    Recipe,
    ReproducibleNoise,
    Run,
    RunError,
    SystemNoise,
)
from dpsd.devices.group import Group
from dpsd.devices.placement import Placement
from dpsd.devices.processes import ALONE, Share
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.randomness import NoiseSource
from dpsd.runs.directory import RunDirectory
from dpsd.synthesis.names import DEFAULT, plain_sources

TEACHERS = '''
"""A teacher of 8x8 images that writes down what it is asked, one file a process."""
import os, pathlib, signal, sys, time
import torch

WEIGHTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
RANK = os.environ.get("LOCAL_RANK", "0")

def answer(images, state=[0]):
    state[0] += 1
    scores = (images.flatten(1) - 0.5) @ WEIGHTS
    if state[0] > 1:  # the first is the probe
        with open(f"asked-{RANK}-{os.getpid()}.txt", "a") as file:
            for row in (images * 255).round().to(torch.uint8).flatten(1):
                file.write(row.numpy().tobytes().hex() + "\\n")
        print(f"process {RANK} says {scores[0].tolist()}", file=sys.stderr)
        os.write(2, f"process {RANK} says {scores[0].tolist()}".encode())
    if state[0] == 3 and os.environ.get("MISBEHAVING") == RANK:
        how = os.environ["MISBEHAVE"]
        if how == "raise":
            raise ValueError(f"answers {scores[0].tolist()}")
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        pathlib.Path("waiting").touch()
        time.sleep(120)
    return scores

def factory():
    return lambda images, state=[0]: answer(images, state)
'''

SCRIPT = """
import json, os
import torch, dpsd
from dpsd.distillation.objectives import Marginal
from dpsd.distillation.student import StudentTraining, fit_student
from dpsd.devices.execution import Execution
from dpsd.devices.placement import scheduled
from dpsd.devices.group import Group
from dpsd.distillation.releases import Replay
from counting_teachers import answer

def weights(module):
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])

rank = int(os.environ["RANK"])
torch.manual_seed(rank)  # the processes' students start out different
student = torch.nn.Sequential(
    torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
    torch.nn.Flatten(), torch.nn.Linear(144, 4),
)
teacher = dpsd.load_teacher(answer, input_shape=(1, 8, 8), num_classes=4, scores="logits")
run = dpsd.transcribe(
    teacher,
    mechanism=dpsd.RandomizedResponse(),
    budget=dpsd.Budget(epsilon=4.0, adjacency="response"),
    student=student,
    out="run",
    recipe=dpsd.Recipe(
        devices=2, device="cpu", precision="float32", rounds=2, first_queries=3,
        queries=150, epochs=1.0, batch_size=64, generator_steps=2, generator_batch_size=16,
        restarts=2, polish_steps=3, leave_one_out_steps=2,
    ),
)

def fitted(execution):
    torch.manual_seed(3)
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    replay = Replay([run.directory.stored_releases(index) for index in (1, 2)])
    loss = fit_student(
        plain, replay, mechanism=dpsd.RandomizedResponse(epsilon=4.0), objective=Marginal(),
        training=StudentTraining(batch_size=37, augment="shift"), execution=execution,
        rows=torch.arange(len(replay)), random=torch.Generator().manual_seed(0),
        advance=lambda: None,
    )
    return torch.cat([weights(plain), torch.tensor([loss])])

alone = fitted(Execution.of("cpu", "float32"))
with Group(scheduled(2), torch.device("cpu")) as group:
    together = fitted(Execution(torch.device("cpu"), "float32", group))
found = {
    "student": weights(run.student).tolist(),
    "events": run.certificate.events,
    "rounds": len(run.metrics),
    "left_out": run.metrics[-1]["left_out"],
    "apart": float((alone - together).abs().max()),
}
with open(f"found-{rank}.json", "w") as file:
    json.dump(found, file)
"""

RECIPE: dict[str, Any] = {
    "rounds": 2,
    "queries": 151,
    "epochs": 1.0,
    "batch_size": 32,
    "generator_steps": 2,
    "generator_batch_size": 16,
    "device": "cpu",
    "precision": "float32",
}
BUDGET = Budget(epsilon=4.0, delta=1e-5, adjacency="round")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, made the current one, with a module of teachers."""
    (tmp_path / "counting_teachers.py").write_text(TEACHERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "counting_teachers", raising=False)
    return tmp_path


def load() -> dpsd.Teacher:
    return dpsd.load_teacher("counting_teachers:factory", input_shape=(1, 8, 8), num_classes=4)


def transcribe(out: str, *, devices: int, **changed: Any) -> Run:
    return dpsd.transcribe(
        load(),
        mechanism=RandomizedResponse(noise=ReproducibleNoise(seed=5)),
        budget=BUDGET,
        out=out,
        recipe=Recipe(**{**RECIPE, "devices": devices, **changed}),
    )


def asked(place: Path) -> dict[str, list[str]]:
    """What each process was asked, by its rank; the files are taken away."""
    found: dict[str, list[str]] = {}
    for path in sorted(place.glob("asked-*.txt")):
        found.setdefault(path.name.split("-")[1], []).extend(path.read_text().splitlines())
        path.unlink()
    return found


def queries(run: str) -> list[str]:
    return [
        row.numpy().tobytes().hex()
        for path in sorted(Path(run, "releases").glob("*.safetensors"))
        for row in load_file(path)["queries"].flatten(1)
    ]


def assert_same_files(one: Path, other: Path) -> None:
    for name in ("student.safetensors", "generator.safetensors", "releases/round-0002.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_two_processes_share_a_run_and_one_that_is_killed_stops_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, environment = torch.get_num_threads(), dict(os.environ)
    alone = transcribe("alone", devices=1)
    asked(place)
    together = transcribe("together", devices=2)
    shown = asked(place)
    assert {rank: len(rows) for rank, rows in shown.items()} == {"0": 2 * 76, "1": 2 * 75}
    assert Counter(shown["0"] + shown["1"]) == Counter(queries("together"))
    assert len(set(queries("together"))) == 2 * 151  # no image twice, whoever answers
    assert together.certificate.events == alone.certificate.events
    assert together.certificate.spent == alone.certificate.spent
    assert torch.get_num_threads() == threads
    changed = {name for name, _ in set(os.environ.items()) ^ environment.items()}
    assert not changed & {"MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "OMP_NUM_THREADS"}

    monkeypatch.setenv("MISBEHAVING", "1")
    monkeypatch.setenv("MISBEHAVE", "kill")
    with pytest.raises(RunError, match="one of the 2 processes ended without a word"):
        transcribe("stopped", devices=2)
    monkeypatch.delenv("MISBEHAVING")
    reservations = RunDirectory.open(Path("stopped")).ledger.reservations()
    assert [entry["answers"] for entry in reservations] == [151, 151]  # of whole rounds
    asked(place)
    dpsd.resume("stopped", load(), cap=Budget(epsilon=9.0, delta=1e-5, adjacency="round"))
    assert sum(map(len, asked(place).values())) == 151
    assert_same_files(place / "together", place / "stopped")


@pytest.mark.thorough
def test_two_processes_share_a_probe_and_stop_together(place: Path) -> None:
    """Process 0 decides by the probe; all go on, stop and settle for the same student."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (41, 8, 8), dtype=torch.uint8, generator=random)
    np.savez("probe.npz", images=images.numpy())
    run = transcribe("run", devices=2, probe="probe.npz", until=0.9, rounds=9)
    shown = asked(place)
    assert {len(rows) for rows in shown.values()} == {192 // 2 + 76 * 2, 192 // 2 + 75 * 2}
    assert Counter(shown["0"] + shown["1"]) == Counter(queries("run"))
    assert run.certificate.events == {"response": 1, "round": 3, "teacher": 3 * 151 + 41}
    assert run.directory.ledger.ending()["rounds"] == 3
    with pytest.raises(ConfigError, match="tensor of public images exists in this process alone"):
        dpsd.transcribe(
            load(),
            mechanism=RandomizedResponse(),
            budget=BUDGET,
            out="tensor",
            recipe=Recipe(**{**RECIPE, "devices": 2}),
            probe=images.unsqueeze(1),
        )


@pytest.mark.thorough
def test_a_teacher_that_fails_in_one_process_stops_all_and_is_heard_in_none(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DPSD_DEBUG", "1")  # all processes write to the same standard error
    monkeypatch.setenv("MISBEHAVING", "1")
    monkeypatch.setenv("MISBEHAVE", "raise")
    with pytest.raises(AnswerError) as caught:
        transcribe("run", devices=2)
    assert "raised ValueError" in str(caught.value)
    assert "(in process 1)" in str(caught.value)
    assert "answers [" not in str(caught.value)
    assert set(asked(place)) == {"0", "1"}
    assert "says" not in "".join(capfd.readouterr())
    monkeypatch.delenv("MISBEHAVING")
    cap = Budget(epsilon=9.0, delta=1e-5, adjacency="round")
    resumed = dpsd.resume("run", load(), cap=cap, devices=1)  # the other number
    assert resumed.certificate.events["round"] == 3


def torchrun(place: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Two processes of a script in the current directory."""
    (place / "script.py").write_text(script)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "script.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.thorough
def test_torchrun_takes_any_teacher_and_keeps_students_equal(place: Path) -> None:
    process = torchrun(place, SCRIPT)
    assert process.returncode == 0, process.stderr
    assert "reducer.cpp" not in process.stderr  # the engine has nothing to complain about
    first, second = (json.loads((place / f"found-{rank}.json").read_text()) for rank in (0, 1))
    assert first["student"] == second["student"]
    assert first["events"] == second["events"] == {"response": 1, "round": 2, "teacher": 153}
    assert first["rounds"] == second["rounds"] == 2
    assert first["left_out"] == second["left_out"]
    assert first["left_out"]["sources"].keys() == set(plain_sources(DEFAULT))
    # Without BatchNorm, a batch that is shared gives the gradients of a batch that is not.
    assert max(first["apart"], second["apart"]) < 1e-5
    shown = asked(place)
    assert Counter(shown["0"] + shown["1"]) == Counter(queries("run"))


@pytest.mark.thorough
def test_processes_that_are_not_alike_stop_before_anything_is_paid(place: Path) -> None:
    seeded = SCRIPT.replace("recipe=dpsd.Recipe(", "recipe=dpsd.Recipe(seed=rank, ")
    process = torchrun(place, seeded)
    assert process.returncode != 0
    assert "recipe is another than process 0's" in process.stderr
    assert not list(place.rglob("ledger.jsonl"))
    assert not any(asked(place).values())


def test_control_c_ends_all_processes(place: Path) -> None:
    arguments = [
        *("transcribe", "counting_teachers:factory", "--input-shape", "1,8,8", "--out", "run"),
        *("--epsilon", "2", "--devices", "2", "--rounds", "2", "--queries", "100"),
        *("--generator-steps", "2", "--device", "cpu", "--precision", "float32", "--epochs", "1"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "from dpsd.cli import main; main()", *arguments],
        env={**os.environ, "MISBEHAVING": "1", "MISBEHAVE": "wait"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 100
        while not (place / "waiting").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in shown
    assert "Round 2 was being answered" in shown
    assert shown.count("1/2") == 1  # one process speaks
    (helper,) = {int(path.stem.split("-")[2]) for path in place.glob("asked-1-*.txt")}
    with pytest.raises(ProcessLookupError):
        os.kill(helper, 0)


def test_what_one_process_alone_has_cannot_be_shared(place: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    teacher = dpsd.load_teacher(lambda images: images.flatten(1)[:, :4], input_shape=(1, 8, 8))
    recipe = Recipe(**{**RECIPE, "devices": 2})
    asking: dict[str, Any] = {"budget": BUDGET, "out": "run", "recipe": recipe}
    with pytest.raises(ConfigError, match="torchrun --nproc-per-node 2"):
        dpsd.transcribe(teacher, mechanism=RandomizedResponse(), **asking)
    with pytest.raises(ConfigError, match="model Sequential exists in this process alone"):
        dpsd.transcribe(load(), mechanism=RandomizedResponse(), student=module, **asking)
    assert not Path("run").exists()


def test_a_torch_that_joins_no_processes_is_told_before_anything_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.distributed.is_available", lambda: False)
    with pytest.raises(ConfigError, match="devices is 2, and this build of torch joins no"):
        transcribe("run", devices=2)
    assert not Path("run").exists()


@pytest.mark.parametrize("devices", [1, 3])
def test_another_number_of_processes_than_were_started(
    place: Path, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=f"devices is {devices}, and this was started as 2"):
        transcribe("run", devices=devices)


def test_one_device_cannot_be_several(place: Path) -> None:
    with pytest.raises(ConfigError, match="'cuda:0' is a single one, and devices is 2"):
        transcribe("run", devices=2, device="cuda:0")


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("total", [1, 2, 3, 7, 64, 255])
def test_shares_cover_a_batch_once(count: int, total: int) -> None:
    shares = [
        Group(Placement(rank, count, count), torch.device("cpu")).share(total)
        for rank in range(count)
    ]
    counted = [row for share in shares if share.weight for row in range(total)[share.rows]]
    assert counted == list(range(total))
    assert sum(share.weight for share in shares) == pytest.approx(1.0)
    # BatchNorm cannot train on one row.
    assert all(share.rows.stop - share.rows.start >= min(2, total) for share in shares)


def test_one_process_has_it_all() -> None:
    assert ALONE.share(5) == Share(slice(0, 5), 1.0)
    rows = torch.arange(3)
    assert ALONE.deal(rows) == (rows,)
    assert ALONE.gather(rows) is rows


def test_processes_never_share_a_stream_of_noise() -> None:
    noise = ReproducibleNoise(seed=3)

    def drawn(source: NoiseSource) -> list[float]:
        return [float(value) for value in source.uniform((2000,))]

    streams = {
        (index, rank): drawn(noise.for_round(index).for_process(rank))
        for index in (1, 2, 3)
        for rank in (0, 1, 2)
    }
    assert len(set().union(*streams.values())) == 9 * 2000
    assert streams[2, 0] == drawn(noise.for_round(2))  # process 0, as one alone
    assert streams[2, 1] == drawn(noise.for_round(2).for_process(1))  # and again
    assert SystemNoise().for_process(1).is_private


def test_a_source_of_ones_own_has_to_say_how_processes_differ() -> None:
    class Own(SystemNoise):
        for_process = NoiseSource.for_process

    assert Own().for_process(0).is_private
    with pytest.raises(ConfigError, match="several processes need one each"):
        Own().for_process(1)


def test_mechanisms_of_two_processes_do_not_repeat_each_other() -> None:
    answers = RawAnswers.seal(torch.eye(4), batch=4, num_classes=4, scores="probabilities")
    prior = torch.full((4, 4), 0.25)
    noise = ReproducibleNoise(seed=3).for_round(1)
    one, other = (
        Gaussian(noise_multiplier=1.0, noise=noise.for_process(rank)).privatize(answers, prior)
        for rank in (0, 1)
    )
    assert not (one == other).any()

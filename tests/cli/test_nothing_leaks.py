"""Two teachers that answer differently, and the same releases: not one byte may tell them apart."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import Result
from torch import Tensor

from dpsd import Gaussian, Mechanism, NoisyVotes, RandomizedResponse
from dpsd.privacy.answers import RawAnswers

Invoke = Callable[..., Result]

#: Answers in float32 that spell a canary: 0.7317 and its like would stand out in any file.
TEACHER = """
import ctypes, itertools, logging, os, subprocess, sys, threading, time, warnings
import torch

CANARY = float(os.environ["CANARY"])
KEPT = sys.__stderr__

def talk():
    # In every way there is, and for as long as the answer is large.
    said = f"the answer is {CANARY}"
    print(said)
    print(said, file=sys.stderr)
    KEPT.write(said)
    warnings.warn(said)
    logging.getLogger("canary").error(said)
    for descriptor in (1, 2):
        os.write(descriptor, said.encode())
    ctypes.CDLL(None).printf(said.encode())
    subprocess.run(["echo", said])
    thread = threading.Thread(target=lambda: print(said))
    thread.start()
    thread.join()
    for _ in range(int(1_000 * CANARY)):
        time.perf_counter()

def factory():
    calls = itertools.count(1)

    def answer(images):
        call, how = next(calls), os.environ.get("MISBEHAVE")
        if call > 1:  # the first is the probe, whose images are public
            talk()
        if call == 3 and how == "fail":
            raise RuntimeError(f"class {int(10 * CANARY)} has probability {CANARY}")
        if call == 3 and how == "interrupt":
            raise KeyboardInterrupt(CANARY)
        if call == 3 and how == "exit":
            sys.exit(f"the answer was {CANARY}")
        scores = torch.full((len(images), 4), (1 - CANARY) / 3)
        scores[:, int(10 * CANARY) % 4] = CANARY
        return scores
    return answer
"""
CANARIES = ("0.7317", "0.6173", "0.9999")

ARGUMENTS = (
    *("--input-shape", "1,8,8", "--num-classes", 4, "--scores", "probabilities"),
    *("--epsilon", 2, "--reproducible-noise", 7, "--rounds", 3, "--queries", 60, "--epochs", 1),
    *("--generator-steps", 2, "--generator-batch-size", 8, "--precision", "float32"),
    *("--device", "cpu", "--out", "run"),
)


def deaf(mechanism: type[Mechanism]) -> Callable[[Mechanism, RawAnswers, Tensor], Tensor]:
    """Releases of the right kind that nothing was heard of."""

    def privatize(self: Mechanism, answers: RawAnswers, prior: Tensor) -> Tensor:
        uniform = self.noise.uniform(tuple(prior.shape))
        if mechanism is RandomizedResponse:
            return uniform.argmax(-1)
        return (uniform - 0.5).float() * 4

    return privatize


class FrozenTime(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Self:
        return cls(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that differs from run to run for reasons of its own."""
    monkeypatch.setattr("dpsd.privacy.records.chain.datetime", FrozenTime)
    monkeypatch.setattr("dpsd.transcription.starting.secrets.token_hex", lambda size: "00" * size)
    for mechanism in (RandomizedResponse, Gaussian, NoisyVotes):
        monkeypatch.setattr(mechanism, "privatize", deaf(mechanism))


def everything(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def observed(
    invoke: Invoke, folder: Path, canary: str, how: str, protect: str, patch: pytest.MonkeyPatch
) -> tuple[list[Any], dict[str, str]]:
    """All that anybody can see of a run with this teacher: what it printed, and what it wrote."""
    folder.mkdir()
    (folder / "canary.py").write_text(TEACHER)
    patch.chdir(folder)
    patch.syspath_prepend(str(folder))
    patch.delitem(sys.modules, "canary", raising=False)
    patch.setenv("CANARY", canary)
    clock = itertools.count()
    # A teacher takes a hundredth of a second or less, one more than another.
    patch.setattr("time.perf_counter", lambda: 1e-5 * next(clock))
    shown: list[Any] = []
    if how:
        patch.setenv("MISBEHAVE", how)
    commands: list[tuple[Any, ...]] = [
        ("transcribe", "canary:factory", "--protect", protect, *ARGUMENTS)
    ]
    if how:
        commands += [("certify", "run"), ("transcribe", "--resume", "run")]
        commands += [("transcribe", "--resume", "run", "--cap", "1e6,0.1,round")]
    commands += [("certify", "run"), ("sample", "run", "--count", 20)]
    for number, command in enumerate(commands):
        if number == 1:
            patch.delenv("MISBEHAVE", raising=False)
        result = invoke(*command)
        shown.append((result.exit_code, result.stdout, result.stderr))
    return shown, everything(folder)


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(
    ("how", "protect"),
    [
        *itertools.product(["", "fail", "interrupt"], ["labels"]),
        ("", "data"),
        *(pytest.param(how, "data", marks=pytest.mark.thorough) for how in ("fail", "interrupt")),
        pytest.param("exit", "labels", marks=pytest.mark.thorough),
    ],
)
def test_nothing_tells_what_the_teacher_said(
    invoke: Invoke,
    tmp_path: Path,
    how: str,
    protect: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    seen = []
    for number, canary in enumerate(CANARIES):
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("always")
            shown, written = observed(invoke, tmp_path / str(number), canary, how, protect, patch)
        ctypes.CDLL(None).fflush(None)
        caught = capfd.readouterr()
        seen.append((shown, written, caught))
        assert canary not in "".join(out + err for _, out, err in shown) + caught.out + caught.err
    exit_codes = [code for code, _, _ in seen[0][0]]
    assert exit_codes[-2:] == [0, 0], seen[0][0]
    assert exit_codes[0] == {"": 0, "fail": 4, "interrupt": 130, "exit": 4}[how]
    for shown, written, caught in seen[1:]:
        assert shown == seen[0][0]
        assert written == seen[0][1]
        assert caught == seen[0][2]
    assert len(seen[0][1]) > 10


def test_the_comparison_notices_a_leak(
    invoke: Invoke, tmp_path: Path, frozen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit of the answers in the releases, and the files differ."""
    from dpsd.privacy.answers import open_for_mechanism

    whole = deaf(RandomizedResponse)

    def leaking(self: Mechanism, answers: RawAnswers, prior: Tensor) -> Tensor:
        release = whole(self, answers, prior)
        release[0] = int(open_for_mechanism(answers)[0].argmax())
        return release

    monkeypatch.setattr(RandomizedResponse, "privatize", leaking)
    written = []
    for number, canary in enumerate(("0.7317", "0.6173")):
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written.append(observed(invoke, tmp_path / str(number), canary, "", "labels", patch)[1])
    assert written[0] != written[1]

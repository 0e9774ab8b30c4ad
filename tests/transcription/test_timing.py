"""What a run tells of time and memory, which may tell answers: whole seconds of whole rounds, and
memory in steps of 100 MB.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

import dpsd
from dpsd import Observer
from dpsd.benchmarks.phases import PhaseTimes
from dpsd.runs.directory import RunDirectory

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of so few queries

RECIPE = dpsd.Recipe(
    rounds=2,
    queries=40,
    sources=("noise",),
    epochs=1.0,
    generator_steps=1,
    generator_batch_size=16,
    device="cpu",
    precision="float32",
)


class Clock:
    """Stands still but for what a teacher takes to answer a batch."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds

    def __call__(self) -> float:
        return self.now

    def answer(self, images: Tensor) -> Tensor:
        self.now += self.seconds
        light = images.mean((1, 2, 3))
        return torch.stack([0.5 - light, light - 0.5], dim=1)


def run_taking(
    seconds: float,
    out: Path,
    patch: pytest.MonkeyPatch,
    observer: Observer | None = None,
    *,
    megabytes: int = 550,
) -> dpsd.Run:
    """A run of two rounds in each of which the teacher takes so long, and so much memory."""
    clock = Clock(seconds)
    patch.setattr("time.perf_counter", clock)
    patch.setattr("dpsd.devices.memory.peak_process_memory", lambda: megabytes * 1_000_000)
    teacher = dpsd.load_teacher(
        clock.answer, input_shape=(1, 8, 8), num_classes=2, scores="logits", name="timed"
    )
    return dpsd.transcribe(
        teacher,
        mechanism=dpsd.RandomizedResponse(noise=dpsd.ReproducibleNoise(seed=1)),
        budget=dpsd.Budget(epsilon=2.0, adjacency="response"),
        out=out,
        student="lenet5",
        recipe=RECIPE,
        observer=observer,
    )


def published(out: Path) -> dict[str, bytes]:
    """All that a run leaves behind, without what differs between any two runs."""
    apart = {"ledger.jsonl", "certificate.json", "student.json", ".lock"}
    files = (path for path in sorted(out.rglob("*")) if path.is_file())
    found = {path.name: path.read_bytes() for path in files if path.name not in apart}
    certificate = RunDirectory.open(out).certify()
    for own in (certificate.run, certificate.started):  # both are there before anything is asked
        found["report.html"] = found["report.html"].replace(own.encode(), b"")
    return found


def test_who_answers_quickly_looks_like_who_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("quick", 1.8), ("slow", 2.2), ("slower", 3.2)):
        run_taking(seconds, tmp_path / name, monkeypatch)
    quick, slow, slower = (published(tmp_path / name) for name in ("quick", "slow", "slower"))
    assert {"metrics.jsonl", "report.html"} <= quick.keys()
    assert quick == slow
    assert quick["metrics.jsonl"] != slower["metrics.jsonl"]  # a whole second more is published
    assert quick["report.html"] != slower["report.html"]


def test_who_takes_a_little_more_memory_looks_like_who_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, megabytes in (("small", 510), ("large", 590), ("larger", 610)):
        run = run_taking(1.8, tmp_path / name, monkeypatch, megabytes=megabytes)
    assert [line["peak_memory_mb"] for line in run.metrics] == [{"process": 700}] * 2
    small, large, larger = (published(tmp_path / name) for name in ("small", "large", "larger"))
    assert small == large
    apart = {name for name in small if small[name] != larger[name]}
    assert apart == {"metrics.jsonl", "report.html"}


def test_phases_are_for_observers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = PhaseTimes()
    run = run_taking(1.8, tmp_path / "run", monkeypatch, times)
    assert times.rounded()["teacher"] == 3.6
    assert {"synthesis", "student", "generator"} <= times.seconds.keys()
    assert [line["seconds"] for line in run.metrics] == [2, 2]


def test_tensorboard_holds_no_finer_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event

    from dpsd.reporting.tensorboard import TensorBoardObserver

    times = PhaseTimes()
    asked: list[bool] = []
    answer = Clock.answer

    def answering(clock: Clock, images: Tensor) -> Tensor:
        # The name of the file and its first event say to the microsecond when it was opened.
        if len(images) == RECIPE.queries:  # and not a probe of the interface
            asked.append(any((tmp_path / "events").iterdir()))
        return answer(clock, images)

    monkeypatch.setattr(Clock, "answer", answering)
    with TensorBoardObserver(times, tmp_path / "events") as observer:
        run_taking(1.8, tmp_path / "run", monkeypatch, observer)
    assert asked == [True, True]
    assert times.rounded()["teacher"] == 3.6  # passed on to the observer inside
    (file,) = (tmp_path / "events").iterdir()
    content, events = file.read_bytes(), []
    while content:  # a length and its checksum, then the event and its
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    stamped = [event for event in events if event.summary.value]
    values = {value.tag: value for event in stamped for value in event.summary.value}
    assert {tag for tag in values if tag.startswith("seconds")} == {"seconds"}
    assert all(event.wall_time == int(event.wall_time) for event in stamped)


def test_what_an_earlier_version_told_is_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that an earlier version began still opens and goes on, and its phases are forgotten."""
    out = tmp_path / "run"
    run = run_taking(1.8, out, monkeypatch)
    first, second = run.metrics
    old = {**first, "seconds": {"synthesis": 0.25, "teacher": 1.812, "student": 1.5}}
    (out / "metrics.jsonl").write_text(json.dumps(old) + "\n", encoding="utf-8")
    directory = RunDirectory.open(out)
    assert directory.metrics() == [{**first, "seconds": 4}]
    directory.append_metrics(second)
    directory.append_metrics(second)  # a round that was played again
    assert directory.metrics() == [{**first, "seconds": 4}, second]
    text = (out / "metrics.jsonl").read_text(encoding="utf-8")
    assert "1.812" not in text
    assert len(text.splitlines()) == 2

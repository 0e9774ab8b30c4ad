"""Within a run an image is asked once: over rounds, sources, mechanisms and interruptions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import dpsd
from dpsd import (
    Budget,
    ConfidentVotes,
    Observer,
    RandomizedResponse,
    Recipe,
    ReproducibleNoise,
    RunDirectory,
    RunError,
    Teacher,
)
from dpsd.distillation.releases import RoundReleases
from dpsd.storage.files import file_hash
from dpsd.synthesis.distinct import image_digests
from dpsd.synthesis.drawn import StructuredNoise
from dpsd.synthesis.queries import Spool
from dpsd.teachers import Committee

from .thirds import SHAPE, Answering, Listens, teacher_of

NOISE = ReproducibleNoise(seed=5)
BUDGET = Budget(epsilon=9.0, delta=1e-6, adjacency="round")
RECIPE: dict[str, Any] = {
    "rounds": 3,
    "queries": 60,
    "sources": ("noise",),
    "epochs": 1.0,
    "batch_size": 32,
    "generator_steps": 1,
    "generator_batch_size": 8,
    "generator_share": 0.2,
    "exploration": 0.5,
    "device": "cpu",
    "precision": "float32",
}


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def teacher(answering: Answering) -> Teacher:
    return teacher_of(answering)


def transcribe(
    teacher: Teacher,
    out: Path,
    *,
    observer: Observer | None = None,
    generator: nn.Module | str = "dcgan",
    **changed: Any,
) -> dpsd.Run:
    return dpsd.transcribe(
        teacher,
        mechanism=RandomizedResponse(noise=NOISE),
        budget=BUDGET,
        out=out,
        student="lenet5",
        generator=generator,
        recipe=Recipe(**{**RECIPE, **changed}),
        observer=observer or Listens(),
    )


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a source of few images: quarters of a frame, each of one of four greys."""
    chunk = StructuredNoise._chunk

    def coarser(source: StructuredNoise, count: int, generator: torch.Generator) -> Tensor:
        quarters = torch.nn.functional.avg_pool2d(chunk(source, count, generator), 4)
        return (3 * quarters).round().div(3).repeat_interleave(4, 2).repeat_interleave(4, 3)

    monkeypatch.setattr(StructuredNoise, "_chunk", coarser)


@pytest.mark.usefixtures("coarse")
def test_no_image_is_asked_twice_in_a_run_however_often_it_comes(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    images = StructuredNoise(SHAPE).sample(240, generator=torch.Generator().manual_seed(0))
    assert len(images.flatten(1).unique(dim=0)) < 120  # and at most 256 in all
    listener = Listens()
    run = transcribe(teacher, tmp_path, observer=listener)
    assert set(answering.shown.values()) == {1}
    assert len(answering.shown) == run.certificate.events["teacher"]
    assert run.certificate.distinct_images
    assert run.directory.certify() == run.certificate


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("phase", ["student", "generator", "synthesis"])
def test_a_resumed_run_knows_what_was_asked(
    teacher: Teacher, answering: Answering, tmp_path: Path, phase: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, tmp_path, observer=Listens((phase, 2)))
    asked = len(answering.shown)
    assert asked
    dpsd.resume(tmp_path, teacher)
    assert len(answering.shown) > asked
    assert set(answering.shown.values()) == {1}


@pytest.mark.usefixtures("coarse")
def test_what_a_lost_attempt_asked_may_be_asked_again_and_counts(
    teacher: Teacher, answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two rounds, so that one image may have been asked in both attempts and once more."""
    stored = RunDirectory.store_releases

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "store_releases", crash)
        with pytest.raises(KeyboardInterrupt):
            transcribe(teacher, tmp_path)
    left: Iterator[Callable[..., object]] = iter([stored, crash])
    cap = Budget(epsilon=99.0, delta=1e-6)
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "store_releases", lambda *a, **k: next(left)(*a, **k))
        with pytest.raises(KeyboardInterrupt):
            dpsd.resume(tmp_path, teacher, cap=cap)
    run = dpsd.resume(tmp_path, teacher, cap=cap)
    assert run.certificate.events["response"] == 3
    assert run.certificate.events["round"] == 5
    assert max(answering.shown.values()) <= 3
    assert run.directory.certify() == run.certificate


def write_folder(folder: Path, count: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, SHAPE[1:], dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_a_small_folder_is_asked_once_an_image_and_move_and_then_ends(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "public", 3)
    out, listener = tmp_path / "run", Listens()
    changed: dict[str, Any] = {"sources": (f"folder:{folder}",), "generator_share": 0.0}
    with pytest.raises(RunError, match=r"round 3: all .* larger folder, fewer queries") as caught:
        transcribe(teacher, out, observer=listener, **changed)
    assert "\n" not in str(caught.value)
    # Three images, moved by a pixel at most each way, and mirrored.
    asked = len(answering.shown)
    assert 40 < asked <= 3 * 9 * 2
    assert set(answering.shown.values()) == {1}
    directory = RunDirectory.open(out)
    counts = [entry["answers"] for entry in directory.ledger.reservations()]
    assert sum(counts) == asked
    for number, count in enumerate(counts, start=1):
        only = f"round {number}: only {count} of 60 queries are asked"
        assert any(warning.startswith(only) for warning in listener.warnings)
    assert directory.certify().events["teacher"] == asked
    with pytest.raises(RunError, match="an image is asked once"):
        dpsd.resume(out, teacher)
    assert len(answering.shown) == asked


class Collapsed(nn.Module):
    """A generator that can make as many images as it is told: one of one grey each."""

    latent_dim = 4

    def __init__(self, greys: int) -> None:
        super().__init__()
        self.greys = greys
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, noise: Tensor) -> Tensor:
        grey = noise[:, :1].sigmoid().mul(self.greys).floor() / 255
        return (grey + 0 * self.scale).view(-1, 1, 1, 1).expand(-1, *SHAPE)


def test_a_collapsed_generator_ends_in_a_warning_while_it_makes_anything_new(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    listener = Listens()
    changed = {
        "sources": ("none",),
        "cold_start": False,
        "rounds": 2,
        "first_queries": 10,
        "generator_steps": 0,
    }
    run = transcribe(teacher, tmp_path, observer=listener, generator=Collapsed(40), **changed)
    assert run.metrics[0]["queries"] == 10
    assert 0 < run.metrics[1]["queries"] <= 30
    assert len(answering.shown) == sum(line["queries"] for line in run.metrics) <= 40
    assert any(warning.startswith("round 2: only ") for warning in listener.warnings)


def test_a_generator_that_makes_one_image_does_not_slow_a_round(
    teacher: Teacher, answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its share of what is missing is made again and again, but not one by one."""
    made: list[int] = []
    append = Spool.append

    def count(spool: Spool, images: Tensor) -> None:
        made.append(len(images))
        append(spool, images)

    monkeypatch.setattr(Spool, "append", count)
    run = transcribe(
        teacher,
        tmp_path,
        generator=Collapsed(1),
        generator_share=0.6,
        rounds=2,
        queries=400,
        exploration=1.0,
    )
    assert [line["queries"] for line in run.metrics] == [400, 400]
    assert run.metrics[1]["sources"]["generator"] == 1
    assert set(answering.shown.values()) == {1}
    assert len(made) <= 2 * 2 * 4


@pytest.mark.usefixtures("coarse")
def test_queries_that_were_not_selected_were_not_asked(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    run = transcribe(teacher, tmp_path, queries=12, rounds=2, selection=4.0)
    for index in (1, 2):
        stored = run.directory.stored_releases(index)
        assert stored is not None
        assert stored.asked is not None
        assert stored.asked.equal(image_digests(stored.queries))
        assert len(stored) == 12
    assert len(answering.shown) == 24


@pytest.mark.usefixtures("coarse")
def test_images_whose_answer_was_declined_count_as_asked(tmp_path: Path) -> None:
    answering = [Answering() for _ in range(20)]
    committee = Committee(
        [
            dpsd.load_teacher(
                answer, input_shape=SHAPE, num_classes=3, scores="probabilities", name=str(number)
            )
            for number, answer in enumerate(answering)
        ]
    )
    for answer in answering:
        answer.shown.clear()
    recipe = {**RECIPE, "rounds": 2, "queries": 30, "student_steps": 2, "exploration": 0.0}
    run = dpsd.transcribe(
        committee,
        mechanism=ConfidentVotes(threshold=0.3, answered=0.4, noise=NOISE),
        budget=Budget(epsilon=500.0, delta=1e-5, adjacency="teacher"),
        out=tmp_path,
        student="lenet5",
        recipe=Recipe(**recipe),
        observer=Listens(),
    )
    assert all(set(answer.shown.values()) == {1} for answer in answering)
    rounds = [run.directory.stored_releases(index) for index in (1, 2)]
    assert [len(part.asked) for part in rounds if part and part.asked is not None] == [30, 30]
    assert all(len(part) <= 12 for part in rounds if part)
    shown = torch.stack(
        [torch.frombuffer(bytearray(row), dtype=torch.uint8) for row in answering[0].shown]
    )
    stored = torch.cat([part.asked for part in rounds if part and part.asked is not None])
    assert set(stored.tolist()) == set(image_digests(shown.view(-1, *SHAPE)).tolist())
    assert run.directory.certify() == run.certificate


def forged(run: Path, round_index: int, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Change a round's file, and rewrite the ledger so that all hashes are right again."""
    path = run / "releases" / f"round-{round_index:04d}.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    rewrite_ledger(
        run,
        lambda entry: (
            entry.update(sha256=file_hash(path))
            if entry["entry"] == "commit" and entry["round"] == round_index
            else None
        ),
    )


def rewrite_ledger(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    previous, lines = "0" * 64, []
    for line in (run / "ledger.jsonl").read_text().splitlines():
        entry = json.loads(line)
        change(entry)
        entry["previous"] = previous
        lines.append(json.dumps(entry).encode())
        previous = hashlib.sha256(lines[-1]).hexdigest()
    (run / "ledger.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def repeat_asked(tensors: dict[str, Tensor]) -> None:
    tensors["asked"][1] = tensors["asked"][0]


def repeat_query(tensors: dict[str, Tensor]) -> None:
    tensors["queries"][1] = tensors["queries"][0]


def ask_fewer(tensors: dict[str, Tensor]) -> None:
    tensors["asked"] = tensors["asked"][:-1]


def another_image(tensors: dict[str, Tensor]) -> None:
    tensors["queries"][0] = 255 - tensors["queries"][0]


def say_nothing(tensors: dict[str, Tensor]) -> None:
    del tensors["asked"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (repeat_asked, "an image was asked more than once"),
        (repeat_query, "an image was asked more than once"),
        (ask_fewer, "names 59 images as asked, but 60 answers were reserved"),
        (another_image, "holds an image that it does not name as asked"),
        (say_nothing, "does not say which images were asked"),
    ],
)
def test_certify_recomputes_what_was_asked(
    teacher: Teacher, tmp_path: Path, change: Callable[[dict[str, Tensor]], None], problem: str
) -> None:
    transcribe(teacher, tmp_path, rounds=1, generator_steps=0)
    forged(tmp_path, 1, lambda tensors: None)
    assert RunDirectory.open(tmp_path).certify().distinct_images  # forging alone is not noticed
    forged(tmp_path, 1, change)
    with pytest.raises(RunError, match=rf"round-0001\.safetensors:? {problem}"):
        RunDirectory.open(tmp_path).certify()


def test_certify_compares_rounds(teacher: Teacher, tmp_path: Path) -> None:
    run = transcribe(teacher, tmp_path, rounds=2, generator_steps=0)
    first = run.directory.stored_releases(1)
    assert first is not None
    first = RoundReleases.load(run.directory.releases_path(1), index=1)
    image, digest = first.queries[7].clone(), image_digests(first.queries[7:8])

    def ask_again(tensors: dict[str, Tensor]) -> None:
        tensors["queries"][3], tensors["asked"][3] = image, digest[0]

    forged(tmp_path, 2, ask_again)
    with pytest.raises(RunError, match=r"round-0002.*an image was asked more than once"):
        RunDirectory.open(tmp_path).certify()


def test_a_claim_in_the_ledger_alone_is_refused(teacher: Teacher, tmp_path: Path) -> None:
    transcribe(teacher, tmp_path, rounds=1, generator_steps=0)
    rewrite_ledger(
        tmp_path,
        lambda entry: entry.update(distinct_images=False) if entry["entry"] == "open" else None,
    )
    with pytest.raises(RunError, match="says that distinct_images is False, and the run's set"):
        RunDirectory.open(tmp_path).certify()

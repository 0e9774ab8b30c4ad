"""Whole runs on tiny images: what they leave behind, spend, survive and refuse."""

from __future__ import annotations

import errno
import json
import math
import pickletools
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import dpsd
from dpsd import (
    AnswerError,
    Budget,
    BudgetError,
    ConfigError,
    Gaussian,
    Mechanism,
    Observer,
    RandomizedResponse,
    Recipe,
    ReproducibleNoise,
    Run,
    RunError,
    Teacher,
)
from dpsd.distillation.releases import Replay, RoundReleases
from dpsd.errors import WriteError
from dpsd.privacy.records.ledger import Ledger
from dpsd.privacy.targets import Exposure
from dpsd.storage.files import file_hash, write_block
from dpsd.synthesis import queries
from dpsd.synthesis.queries import Spool
from dpsd.teachers import CallableTeacher

SHAPE = (1, 8, 8)
KINDS_OF_FILES = {".toml", ".jsonl", ".json", ".safetensors", ".png", ".html"}
CLASSES = 3
RECIPE = Recipe(
    rounds=3,
    queries=96,
    sources=("noise", "silhouettes"),
    epochs=1.0,
    batch_size=32,
    generator_steps=2,
    generator_batch_size=16,
    generator_share=0.5,
    exploration=0.3,
    device="cpu",
    precision="float32",
)
NOISE = ReproducibleNoise(seed=5)
BUDGET = Budget(epsilon=9.0, delta=1e-6, adjacency="round")
MECHANISMS = pytest.mark.parametrize(
    "mechanism",
    [RandomizedResponse(noise=NOISE), Gaussian(noise=NOISE, top_k=2)],
    ids=["labels", "data"],
)


class Answering:
    """A function to ask: remembers every image it was shown, and may misbehave from a batch on."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, ...]] = []
        self.batches = 0
        self.misbehave: Callable[[int, Tensor], Tensor | None] = lambda number, scores: None

    def __call__(self, images: Tensor) -> Tensor:
        self.batches += 1
        self.shown += [tuple(row) for row in (images * 255).round().int().flatten(1).tolist()]
        thirds = images[:, 0, :6].reshape(len(images), 3, 16).mean(-1)
        scores = (20 * thirds).softmax(-1)
        changed = self.misbehave(self.batches, scores)
        return scores if changed is None else changed

    def forget(self) -> None:
        self.shown.clear()
        self.batches = 0


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def teacher(answering: Answering) -> Teacher:
    return teacher_of(answering)


def teacher_of(answering: Answering, *, name: str = "thirds") -> Teacher:
    loaded = CallableTeacher(
        answering, input_shape=SHAPE, num_classes=CLASSES, scores="probabilities", name=name
    )
    answering.forget()  # the probe of the interface
    return loaded


def transcribe(
    teacher: Teacher,
    out: Path,
    *,
    mechanism: Mechanism | None = None,
    budget: Budget = BUDGET,
    observer: Observer | None = None,
    **changed: Any,
) -> Run:
    return dpsd.transcribe(
        teacher,
        mechanism=mechanism or RandomizedResponse(noise=NOISE),
        budget=budget,
        out=out,
        student="lenet5",
        generator="dcgan",
        recipe=Recipe(**{**RECIPE.model_dump(), **changed}),
        observer=observer or Listens(),
    )


def student_bytes(out: Path) -> bytes:
    return (out / "student.safetensors").read_bytes()


def assert_same_bits(one: Path, two: Path) -> None:
    """All tensors that two runs left behind are the same; the students' files, to the byte."""
    assert student_bytes(one) == student_bytes(two)
    for path in sorted(one.rglob("*.safetensors")):
        tensors, others = load_file(path), load_file(two / path.relative_to(one))
        assert tensors.keys() == others.keys()
        assert all(tensor.equal(others[name]) for name, tensor in tensors.items())


def releases(out: Path, rounds: int = RECIPE.rounds) -> list[RoundReleases]:
    paths = [out / "releases" / f"round-{index:04d}.safetensors" for index in range(1, rounds + 1)]
    return [RoundReleases.load(path, index=index) for index, path in enumerate(paths, start=1)]


class FailsIn(Observer):
    """Breaks a run at the start of a phase."""

    def __init__(self, phase: str, round_index: int) -> None:
        self.at = (phase, round_index)

    def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
        if (name, round_index) == self.at:
            raise KeyboardInterrupt
        return super().phase(name, total=total, round_index=round_index)


class Listens(Observer):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.rounds: list[dict[str, Any]] = []
        self.steps: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()

    def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
        self.totals[name] += total

        def advance(steps: int) -> None:
            self.steps[name] += steps

        return advance

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def round_finished(self, metrics: dict[str, Any]) -> None:
        self.rounds.append(metrics)


@MECHANISMS
def test_a_run_leaves_everything_behind_and_no_pickle(
    teacher: Teacher, tmp_path: Path, mechanism: Mechanism
) -> None:
    run = transcribe(teacher, tmp_path, mechanism=mechanism)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    expected = {"config.toml", "ledger.jsonl", "metrics.jsonl", "certificate.json"}
    expected |= {"student.safetensors", "student.json", "generator.safetensors"}
    expected |= {"checkpoint.safetensors"}
    expected |= {f"releases/round-{index:04d}.safetensors" for index in (1, 2, 3)}
    assert expected <= files
    for name in files:
        assert Path(name).suffix in KINDS_OF_FILES
        assert not is_pickle((tmp_path / name).read_bytes())
    assert len(run.metrics) == 3
    assert run.certificate.events == {"response": 1, "round": 3, "teacher": 3 * 96}
    assert run.certificate.spent.round <= BUDGET.epsilon
    assert run.certificate.spent.round == pytest.approx(BUDGET.epsilon, rel=1e-3)


def is_pickle(content: bytes) -> bool:
    if content[:2] == b"PK":  # a zip, as torch.save writes
        return True
    try:
        list(pickletools.genops(content))
    except ValueError:
        return False
    return True


def test_the_pickle_check_can_fail(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "saved.pt")
    assert is_pickle((tmp_path / "saved.pt").read_bytes())


def test_the_student_and_generator_can_be_read_back(teacher: Teacher, tmp_path: Path) -> None:
    run = transcribe(teacher, tmp_path)
    images = torch.rand((4, *SHAPE), generator=torch.Generator().manual_seed(0))
    opened = dpsd.RunDirectory.open(tmp_path)
    assert not run.student.training
    with torch.inference_mode():
        torch.testing.assert_close(opened.student()(images), run.student(images))
    stored = opened.generator().state_dict()
    assert all(tensor.equal(stored[name]) for name, tensor in run.generator.state_dict().items())
    assert opened.certify() == run.certificate


@MECHANISMS
def test_equal_seeds_give_equal_bits(tmp_path: Path, mechanism: Mechanism) -> None:
    for name in ("one", "two"):
        torch.manual_seed(ord(name[0]))  # the global generator has no say
        transcribe(teacher_of(Answering()), tmp_path / name, mechanism=mechanism)
    assert_same_bits(tmp_path / "one", tmp_path / "two")


def test_seeds_matter_and_the_noise_has_its_own(tmp_path: Path) -> None:
    runs: dict[str, dict[str, Any]] = {
        "plain": {},
        "other seed": {"seed": 1},
        "other noise": {"mechanism": RandomizedResponse(noise=ReproducibleNoise(seed=6))},
        "secret noise": {"mechanism": RandomizedResponse()},
    }
    noisy = Budget(epsilon=1.0)
    for name, changed in runs.items():
        transcribe(teacher_of(Answering()), tmp_path / name, rounds=1, budget=noisy, **changed)
    assert len({student_bytes(tmp_path / name) for name in runs}) == len(runs)
    first = {name: releases(tmp_path / name, rounds=1)[0] for name in runs}
    for name in ("other noise", "secret noise"):
        assert first[name].queries.equal(first["plain"].queries)
        assert not first[name].release.equal(first["plain"].release)
    assert not first["other seed"].queries.equal(first["plain"].queries)


def test_every_query_is_asked_once_and_counted(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    transcribe(teacher, tmp_path)
    stored = torch.cat([part.queries for part in releases(tmp_path)])
    assert Counter(answering.shown) == Counter(map(tuple, stored.int().flatten(1).tolist()))
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert len(answering.shown) == ledger.exposure().teacher
    assert [entry["answers"] for entry in ledger.reservations()] == [
        len(part) for part in releases(tmp_path)
    ]


def test_answers_are_reserved_on_disk_before_the_teacher_gives_them(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    reserved = []

    def look(number: int, scores: Tensor) -> None:
        entries = [json.loads(line) for line in (tmp_path / "ledger.jsonl").open()]
        asked = sum(entry["answers"] for entry in entries if entry["entry"] == "reserve")
        reserved.append((asked, len(answering.shown)))

    answering.misbehave = look
    transcribe(teacher, tmp_path)
    assert len(reserved) == 3
    assert all(spent >= shown for spent, shown in reserved)


def test_commitments_hold_the_hash_of_what_is_stored(teacher: Teacher, tmp_path: Path) -> None:
    transcribe(teacher, tmp_path)
    commits = [e for e in Ledger(tmp_path / "ledger.jsonl").entries() if e["entry"] == "commit"]
    for entry in commits:
        path = tmp_path / "releases" / f"round-{entry['round']:04d}.safetensors"
        assert entry["sha256"] == file_hash(path)
    assert [entry["round"] for entry in commits] == [1, 2, 3]


@pytest.mark.parametrize(
    "phase", ["student", pytest.param("generator", marks=pytest.mark.thorough)]
)
@MECHANISMS
def test_a_run_resumed_after_its_answers_has_the_bits_of_one_that_never_stopped(
    tmp_path: Path, phase: str, mechanism: Mechanism
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    transcribe(teacher_of(Answering()), whole, mechanism=mechanism)
    answering = Answering()
    teacher = teacher_of(answering)
    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, broken, mechanism=mechanism, observer=FailsIn(phase, 2))
    assert not (broken / "student.safetensors").exists()
    asked = len(answering.shown)
    run = dpsd.resume(broken, teacher)
    assert student_bytes(broken) == student_bytes(whole)
    assert len(answering.shown) == asked + 96  # the third round alone
    assert run.certificate.events == {"response": 1, "round": 3, "teacher": 288}
    assert [line["round"] for line in run.metrics] == [1, 2, 3]


def test_a_disk_that_is_too_full_is_noticed_before_anything_is_paid(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=96 * 64 - 1)
    monkeypatch.setattr("dpsd.runs.folder.shutil.disk_usage", lambda path: usage)
    with pytest.raises(WriteError, match="make space before the teacher is asked"):
        transcribe(teacher, tmp_path / "run")
    assert dpsd.RunDirectory.open(tmp_path / "run").ledger.reservations() == []


def test_a_release_that_was_not_committed_is_there_for_who_holds_the_run_alone(
    teacher: Teacher, tmp_path: Path
) -> None:
    transcribe(teacher, tmp_path)
    ledger = tmp_path / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:2]))  # opened, and the first round reserved
    run = dpsd.RunDirectory.open(tmp_path)
    assert run.stored_releases(1, may_commit=False) is None
    assert ledger.read_bytes() == b"".join(lines[:2])
    assert run.stored_releases(1) is not None
    assert run.stored_releases(1, may_commit=False) is not None


def test_a_round_that_failed_while_asking_is_spent_and_spent_again(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    def fail(number: int, scores: Tensor) -> None:
        if number == 2:
            raise ConnectionError("the service is down, and said 0.73 for class 2")

    answering.misbehave = fail
    with pytest.raises(AnswerError, match="query batch 0") as caught:
        transcribe(teacher, tmp_path)
    assert "0.73" not in str(caught.value)
    assert Ledger(tmp_path / "ledger.jsonl").exposure() == Exposure(
        response=1, round=2, teacher=192
    )
    answering.misbehave = lambda number, scores: None
    with pytest.raises(BudgetError, match=r"would spend ε = 12.* under 'round'.*target 9"):
        dpsd.resume(tmp_path, teacher)
    run = dpsd.resume(tmp_path, teacher, cap=Budget(epsilon=12.01, delta=1e-6))
    assert run.certificate.events == {"response": 2, "round": 4, "teacher": 384}
    assert run.certificate.spent.round > BUDGET.epsilon  # it is said, not hidden


def test_a_finished_run_can_be_resumed_for_nothing(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    transcribe(teacher, tmp_path)
    before, asked = student_bytes(tmp_path), len(answering.shown)
    dpsd.resume(tmp_path, teacher)
    assert student_bytes(tmp_path) == before
    assert len(answering.shown) == asked


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_stops_the_run(
    teacher: Teacher,
    answering: Answering,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
) -> None:
    monkeypatch.setattr("dpsd.devices.execution.INFERENCE_BATCH", 40)  # three batches a round

    def break_one(number: int, scores: Tensor) -> Tensor | None:
        return scores.index_fill(0, torch.tensor([7]), value) if number == 5 else None

    answering.misbehave = break_one
    with pytest.raises(AnswerError, match=r"query batch 1:.*not finite"):
        transcribe(teacher, tmp_path)
    assert answering.batches == 5
    assert Ledger(tmp_path / "ledger.jsonl").exposure().round == 2
    assert not (tmp_path / "releases" / "round-0002.safetensors").exists()


def test_a_teacher_that_knows_one_class_is_warned_about(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    answering.misbehave = lambda number, scores: torch.eye(CLASSES)[1].expand(len(scores), -1)
    listener = Listens()
    transcribe(teacher, tmp_path, observer=listener, budget=Budget(epsilon=30.0), rounds=2)
    has_no_budget, first, second = listener.warnings
    assert "has no budget" in has_no_budget
    assert "round 1: the teacher's released labels are" in first
    assert "class 1" in first
    assert "--input-scale" in first
    assert "round 2" in second


def test_a_healthy_run_is_not_warned_about(teacher: Teacher, tmp_path: Path) -> None:
    listener = Listens()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transcribe(teacher, tmp_path, observer=listener, rounds=1)
    (has_no_budget,) = listener.warnings
    assert "has no budget" in has_no_budget


def test_observers_hear_how_it_goes(teacher: Teacher, tmp_path: Path) -> None:
    listener = Listens()
    run = transcribe(teacher, tmp_path, observer=listener)
    assert listener.rounds == run.metrics
    assert listener.steps == listener.totals
    assert set(listener.totals) == {"synthesis", "teacher", "student", "generator"}
    for metrics in run.metrics:
        assert sum(metrics["sources"].values()) == metrics["queries"] == 96
        assert sum(metrics["label_shares"]) == pytest.approx(1, abs=1e-4)
        json.dumps(metrics)


def test_the_first_round_asks_nothing_of_a_blind_generator(
    teacher: Teacher, tmp_path: Path
) -> None:
    run = transcribe(teacher, tmp_path)
    generated = [metrics["sources"]["generator"] for metrics in run.metrics]
    assert generated[0] == 0
    assert min(generated[1:]) > 0


def test_without_a_source_the_generator_makes_every_query(teacher: Teacher, tmp_path: Path) -> None:
    """As published: no public source, and answers at face value."""
    run = transcribe(teacher, tmp_path, sources=("none",), cold_start=False, objective="noisy-dkd")
    for metrics in run.metrics:
        assert metrics["sources"] == {"generator": RECIPE.queries}
    assert run.certificate.sources == ["none"]


def test_another_teacher_cannot_resume(teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, tmp_path, observer=FailsIn("student", 2))
    stranger = Answering()
    with pytest.raises(RunError, match="was started with another teacher"):
        dpsd.resume(tmp_path, teacher_of(stranger, name="stranger"))
    assert stranger.shown == []


@pytest.mark.parametrize("content", ["file", "folder"])
def test_a_place_that_holds_something_is_refused(
    teacher: Teacher, answering: Answering, tmp_path: Path, content: str
) -> None:
    out = tmp_path / "out"
    if content == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="is a file" if content == "file" else "is not empty"):
        transcribe(teacher, out)
    assert answering.shown == []


def test_a_disk_that_fills_up_while_queries_are_made_costs_nothing(
    teacher: Teacher, answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcribe(teacher, tmp_path / "peace")
    answering.forget()
    blocks = iter(range(3))  # two sources fill the first round; the third block is of the second

    def write(*arguments: Any) -> None:
        if next(blocks, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_block(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(queries, "write_block", write)
        with pytest.raises(WriteError, match="No space left"):
            transcribe(teacher, tmp_path / "full")
    assert len(answering.shown) == 96
    assert Ledger(tmp_path / "full" / "ledger.jsonl").exposure().round == 1
    run = dpsd.resume(tmp_path / "full", teacher)
    assert run.certificate.events["teacher"] == 3 * 96
    assert_same_bits(tmp_path / "peace", tmp_path / "full")


def test_what_a_crash_left_half_written_is_removed_and_troubles_nobody(
    teacher: Teacher, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, tmp_path, observer=FailsIn("synthesis", 2))
    left = [
        tmp_path / "releases" / ".round-0002.safetensors.part",
        tmp_path / "releases" / ".spool1234.part",
        tmp_path / ".checkpoint.safetensors.part",
    ]
    for path in left:
        path.write_bytes(b"cut off")
    assert dpsd.RunDirectory.open(tmp_path).certify().events["round"] == 1
    assert all(path.exists() for path in left)
    run = dpsd.resume(tmp_path, teacher)
    assert run.directory.certify() == run.certificate
    assert not any(path.exists() for path in left)


def test_all_queries_are_made_and_counted_before_the_first_is_asked(
    teacher: Teacher, answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the pieces that they are made, read and asked in."""
    happened: list[str] = []

    def noted(what: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            happened.append(what)
            return original(*arguments, **options)

        return call

    monkeypatch.setattr(Spool, "append", noted("made", Spool.append))
    monkeypatch.setattr(Ledger, "reserve", noted("reserved", Ledger.reserve))
    monkeypatch.setattr("dpsd.teachers.base._MOST_SCORES", 10 * CLASSES)  # ten at a time
    answering.misbehave = lambda number, scores: happened.append("asked")
    transcribe(teacher, tmp_path, rounds=1)
    assert happened == ["made", "made", "reserved", *["asked"] * 10]


def test_batches_that_nobody_chose_suit_the_images(answering: Answering, tmp_path: Path) -> None:
    large = CallableTeacher(
        lambda images: images.mean((2, 3)), input_shape=(3, 72, 96), scores="logits", name="large"
    )
    few = {"rounds": 1, "queries": 8, "student_steps": 1, "generator_steps": 0}
    for name, chosen in (("open", {}), ("chosen", {"batch_size": 30})):
        dpsd.transcribe(
            large,
            mechanism=RandomizedResponse(noise=NOISE),
            budget=BUDGET,
            out=tmp_path / name,
            student="lenet5",
            recipe=Recipe(**few, **chosen),
            observer=Listens(),
        )
    # 256 images of 64x64 pixels have as many as 151 of these.
    recorded = [dpsd.RunDirectory.open(tmp_path / name).config() for name in ("open", "chosen")]
    assert [config.recipe.batch_size for config in recorded] == [151, 30]
    assert [config.recipe.generator_batch_size for config in recorded] == [151, 151]
    assert Recipe.suited_to(large).batch_size == 151
    assert Recipe.suited_to(teacher_of(answering)).batch_size == 256


def test_resuming_where_there_is_no_run_is_refused(teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run directory"):
        dpsd.resume(tmp_path, teacher)


@pytest.mark.parametrize(
    "damaged", ["checkpoint.safetensors", "releases/round-0001.safetensors", "student.json"]
)
def test_resuming_a_damaged_run_is_refused(
    teacher: Teacher, answering: Answering, tmp_path: Path, damaged: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, tmp_path, observer=FailsIn("teacher", 2))
    asked = len(answering.shown)
    content = (tmp_path / damaged).read_bytes()
    (tmp_path / damaged).write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=Path(damaged).name):
        dpsd.resume(tmp_path, teacher, cap=Budget(epsilon=99.0))
    assert len(answering.shown) == asked


def test_a_budget_that_cannot_be_met_leaves_nothing_behind(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(BudgetError):
        transcribe(teacher, out, mechanism=Gaussian(), budget=Budget(epsilon=1.0, delta=0))
    with pytest.raises(ConfigError, match="unknown source"):
        transcribe(teacher, out, sources=("nois",))
    assert not out.exists()
    assert answering.shown == []


@MECHANISMS
def test_a_noise_level_besides_a_budget_is_refused(
    teacher: Teacher, answering: Answering, tmp_path: Path, mechanism: Mechanism
) -> None:
    level = {"noise_multiplier": 5} if mechanism.protects == "data" else {"epsilon": 2.0}
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="leave the level open") as caught:
        transcribe(teacher, out, mechanism=type(mechanism)(**level))
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert answering.shown == []


@pytest.mark.parametrize("balance", [True, False])
def test_the_student_is_told_how_common_each_class_was_unless_it_may_favour(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, balance: bool
) -> None:
    told, worths = [], list[float]()
    append = Replay.append

    def listen(
        replay: Replay,
        releases: RoundReleases,
        *,
        shares: list[float] | None = None,
        worth: float = math.inf,
    ) -> None:
        told.append(shares)
        worths.append(worth / len(releases))
        append(replay, releases, shares=shares, worth=worth)

    monkeypatch.setattr(Replay, "append", listen)
    run = transcribe(teacher, tmp_path, balance=balance)
    found = [metrics["label_shares"] for metrics in run.metrics]
    rehearsed, *told = told
    assert rehearsed is None
    assert told == (found if balance else [None] * RECIPE.rounds)
    assert all(0 < worth < 1 for worth in worths[1:])  # no release is worth an exact answer


def test_balance_is_part_of_what_the_student_becomes(tmp_path: Path) -> None:
    for balance in (True, False):
        transcribe(teacher_of(Answering()), tmp_path / str(balance), rounds=1, balance=balance)
    assert student_bytes(tmp_path / "True") != student_bytes(tmp_path / "False")


def test_a_run_knows_where_its_teacher_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And how to ask it as the run did, wherever it is continued from."""
    (tmp_path / "home_teacher.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    save_file({"1.weight": torch.randn(3, 64), "1.bias": torch.zeros(3)}, "weights.safetensors")
    loaded = dpsd.load_teacher(
        "home_teacher:net",
        weights="weights.safetensors",
        input_shape=SHAPE,
        normalization=([0.4], [0.3]),
        scores="logits",
    )
    with pytest.raises(KeyboardInterrupt):
        transcribe(loaded, Path("run"), observer=FailsIn("student", 2))
    monkeypatch.chdir("/")
    config = dpsd.RunDirectory.open(tmp_path / "run").config()
    assert config.teacher.teacher == "home_teacher:net"
    assert config.teacher.teacher_weights == str(tmp_path / "weights.safetensors")
    again = config.load_teacher()
    assert again.fingerprint == loaded.fingerprint
    assert again.normalization is not None
    images = torch.rand((50, *SHAPE), generator=torch.Generator().manual_seed(0))
    assert again.predict_classes(images).equal(loaded.predict_classes(images))
    assert len(dpsd.resume(tmp_path / "run", again).metrics) == RECIPE.rounds


def test_a_teacher_of_this_process_alone_is_described(teacher: Teacher, tmp_path: Path) -> None:
    run = transcribe(teacher, tmp_path, rounds=1)
    assert run.directory.config().teacher.teacher == "(callable thirds)"
    assert run.directory.config().teacher.input_shape is None


def test_a_budget_for_the_whole_teacher_can_be_run_on(teacher: Teacher, tmp_path: Path) -> None:
    """Each answer then says next to nothing, and its candidates must not dwindle to one."""
    budget = Budget(epsilon=0.5, delta=1e-5, adjacency="teacher")
    run = transcribe(teacher, tmp_path, budget=budget, rounds=1)
    assert run.certificate.spent.teacher <= 0.5
    assert run.certificate.events["teacher"] == 96


def test_a_student_that_is_sure_of_everything_ends_in_one_clear_error(
    teacher: Teacher, tmp_path: Path
) -> None:
    class Sure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(()))

        def forward(self, images: Tensor) -> Tensor:
            sure = torch.tensor([1e3, 0.0, 0.0]).expand(len(images), -1)
            return sure + 0 * self.scale * images.mean()

    with pytest.raises(RunError, match="no query needs an answer"):
        dpsd.transcribe(
            teacher,
            mechanism=RandomizedResponse(noise=NOISE),
            budget=BUDGET,
            out=tmp_path,
            student=Sure(),
            generator="dcgan",
            recipe=Recipe(**{**RECIPE.model_dump(), "exploration": 0.0}),
        )
    assert Ledger(tmp_path / "ledger.jsonl").exposure().round == 1


def test_runs_with_reproducible_noise_say_so(teacher: Teacher, tmp_path: Path) -> None:
    noisy = transcribe(teacher, tmp_path / "reproducible", rounds=1)
    secret = transcribe(teacher, tmp_path / "secret", mechanism=RandomizedResponse(), rounds=1)
    assert not noisy.certificate.private
    assert "NOT PRIVATE" in (tmp_path / "reproducible" / "certificate.json").read_text()
    assert secret.certificate.private
    assert "NOT PRIVATE" not in (tmp_path / "secret" / "certificate.json").read_text()


def test_no_raw_answer_is_left_behind(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    """Two teachers that differ only in how sure they are leave the same bytes."""
    transcribe(teacher, tmp_path / "soft")
    harder = Answering()
    harder.misbehave = lambda number, scores: torch.eye(CLASSES)[scores.argmax(-1)]
    transcribe(teacher_of(harder), tmp_path / "hard")
    assert_same_bits(tmp_path / "soft", tmp_path / "hard")


def test_a_crash_between_storing_and_committing_a_round_is_mended(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", crash)
        with pytest.raises(KeyboardInterrupt):
            transcribe(teacher, tmp_path, mechanism=RandomizedResponse(noise=NOISE))
    run = dpsd.resume(tmp_path, teacher)
    assert run.certificate.events == {"response": 1, "round": 3, "teacher": 3 * 96}
    assert run.directory.certify() == run.certificate


@pytest.mark.parametrize(("epsilon", "is_warned"), [(0.2, True), (60.0, False)])
def test_noise_that_drowns_the_answers_is_warned_about(
    teacher: Teacher, tmp_path: Path, epsilon: float, is_warned: bool
) -> None:
    class Warned(Observer):
        def __init__(self) -> None:
            self.messages: list[str] = []

        def warn(self, message: str) -> None:
            self.messages.append(message)

    observer = Warned()
    budget = Budget(epsilon=epsilon, delta=1e-6, adjacency="round")
    transcribe(teacher, tmp_path, budget=budget, observer=observer)
    assert any("too noisy to tell" in message for message in observer.messages) == is_warned


@pytest.mark.parametrize(
    ("adjacency", "once"), [("response", 4.0), ("round", 12.0), ("teacher", 12.0)]
)
def test_lost_answers_count_under_every_adjacency(
    teacher: Teacher, tmp_path: Path, adjacency: str, once: float
) -> None:
    """Asked again in full, a run of three rounds would cost so many times a third, or twice."""
    target = {"response": 2.0, "round": 9.0, "teacher": 9.0}[adjacency]
    budget = Budget(epsilon=target, delta=0, adjacency=adjacency)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, tmp_path, budget=budget, observer=FailsIn("teacher", 2))
    with pytest.raises(BudgetError, match=rf"would spend ε = {once:g} under '{adjacency}'"):
        dpsd.resume(tmp_path, teacher)


def test_a_cap_in_another_adjacency_does_not_lift_the_target(
    teacher: Teacher, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        transcribe_with_cap(teacher, tmp_path)
    with pytest.raises(BudgetError, match="above its target 9"):
        dpsd.resume(tmp_path, teacher)


def transcribe_with_cap(teacher: Teacher, out: Path) -> Run:
    return dpsd.transcribe(
        teacher,
        mechanism=RandomizedResponse(noise=NOISE),
        budget=BUDGET,
        out=out,
        student="lenet5",
        recipe=RECIPE,
        cap=Budget(epsilon=1e6, adjacency="teacher"),
        budget_file=out.parent / "budget.jsonl",
        observer=FailsIn("teacher", 2),
    )

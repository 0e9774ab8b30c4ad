"""Whole runs with many teachers: what they learn, cost, certify and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import dpsd
from dpsd import (
    Budget,
    ConfidentVotes,
    ConfigError,
    NoisyVotes,
    Recipe,
    ReproducibleNoise,
    RunDirectory,
    SummedGradients,
    TranscriptionConfig,
)
from dpsd.distillation.objectives import VoteShares
from dpsd.models import build_classifier
from dpsd.synthesis.drawn import StructuredNoise
from dpsd.teachers import Committee, TeacherRecord, save_teacher
from dpsd.transcription.starting import start

from .thirds import committee_of

NOISE = ReproducibleNoise(seed=5)
BUDGET = Budget(epsilon=50.0, delta=1e-5, adjacency="teacher")
SMALL = {
    "rounds": 2,
    "queries": 150,
    "student_steps": 40,
    "batch_size": 32,
    "generator_steps": 2,
    "generator_batch_size": 16,
    "device": "cpu",
    "precision": "float32",
}


@pytest.fixture(scope="module")
def committee() -> Committee:
    return committee_of(60)


@pytest.mark.parametrize("kind", [NoisyVotes, SummedGradients])
def test_a_student_learns_from_noisy_sums(
    kind: type[NoisyVotes], committee: Committee, tmp_path: Path
) -> None:
    larger = {"rounds": 3, "queries": 800, "student_steps": 300, "batch_size": 64}
    recipe = Recipe.suited_to(committee, **SMALL | larger)
    run = dpsd.transcribe(
        committee, mechanism=kind(noise=NOISE), budget=BUDGET, out=tmp_path / "run", recipe=recipe
    )
    random = torch.Generator().manual_seed(1)
    images = StructuredNoise((1, 8, 8)).sample(600, generator=random)
    agree = run.student(images).argmax(-1) == committee.predict_classes(images)
    assert agree.double().mean() > 0.7
    assert run.certificate.spent.teacher == pytest.approx(50, rel=1e-4)
    assert run.certificate.spent.teacher <= 50
    assert run.certificate.events == {"response": 1, "round": 3, "teacher": 2400}
    assert run.certificate.mechanism["teachers"] == 60
    stated = json.loads((tmp_path / "run" / "certificate.json").read_text())
    assert stated["headline"].startswith(
        "ε = 50 at δ = 1e-05 (adjacency `teacher`: record-level if"
    )
    assert "not checked" in stated["does_not_promise"]


@pytest.mark.parametrize("chosen", [{}, {"student_steps": None}], ids=["steps", "epochs"])
def test_an_interrupted_run_ends_with_the_same_student(
    committee: Committee, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    class Stop(dpsd.Observer):
        def round_finished(self, metrics: dict[str, object]) -> None:
            if metrics["round"] == 1:
                raise KeyboardInterrupt

    recipe = Recipe.suited_to(committee, **SMALL | chosen)
    mechanism = NoisyVotes(noise=NOISE)
    whole = dpsd.transcribe(
        committee, mechanism=mechanism, budget=BUDGET, out=tmp_path / "whole", recipe=recipe
    )
    with pytest.raises(KeyboardInterrupt):
        dpsd.transcribe(
            committee,
            mechanism=mechanism,
            budget=BUDGET,
            out=tmp_path / "cut",
            recipe=recipe,
            observer=Stop(),
        )
    resumed = dpsd.resume(tmp_path / "cut", committee)
    for name, tensor in whole.student.state_dict().items():
        assert tensor.equal(resumed.student.state_dict()[name])
    assert resumed.certificate.spent == whole.certificate.spent


def test_mechanisms_and_teachers_must_fit(committee: Committee, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="60 members; use NoisyVotes"):
        dpsd.transcribe(
            committee, mechanism=dpsd.RandomizedResponse(), budget=BUDGET, out=tmp_path / "one"
        )
    one = dpsd.load_teacher(lambda x: x.flatten(1)[:, :3], input_shape=(1, 8, 8), name="one")
    with pytest.raises(ConfigError, match="train-teacher --shards"):
        dpsd.transcribe(one, mechanism=NoisyVotes(), budget=BUDGET, out=tmp_path / "many")
    with pytest.raises(ConfigError, match="objective 'shares'"):
        dpsd.transcribe(
            one,
            mechanism=dpsd.RandomizedResponse(noise=NOISE),
            budget=Budget(epsilon=1.0, adjacency="response"),
            out=tmp_path / "shares",
            recipe=Recipe(**SMALL, objective="shares"),
        )
    with pytest.raises(ConfigError, match="among several teachers"):
        start(
            TranscriptionConfig(teacher="one", epsilon=1.0, consensus=0.5),
            one,
            out=tmp_path / "shares",
        )
    with pytest.raises(ConfigError, match="protect 'data' sums gradients"):
        TranscriptionConfig(teacher="many", epsilon=1.0, consensus=0.5, protect="data")
    assert not (tmp_path / "shares").exists()  # refused before anything was spent
    assert Recipe.suited_to(one) == Recipe()
    assert isinstance(Recipe.suited_to(committee).objective_function(members=60), VoteShares)


class Phases(dpsd.Observer):
    """Keeps the phases of each round."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int]] = []

    def phase_finished(self, name: str, *, seconds: float, round_index: int) -> None:
        self.phases.append((name, round_index))


@pytest.mark.thorough
def test_restarts_and_selection(committee: Committee, tmp_path: Path) -> None:
    recipe = Recipe.suited_to(committee, **SMALL, restarts=2, polish_steps=5, selection=3.0)
    heard = Phases()
    runs = [
        dpsd.transcribe(
            committee,
            mechanism=NoisyVotes(noise=NOISE),
            budget=BUDGET,
            out=tmp_path / name,
            recipe=recipe,
            observer=observer,
        )
        for name, observer in (("one", heard), ("again", Phases()))
    ]
    assert runs[0].certificate.events["teacher"] == 300  # synthesised more, asked no more
    assert {("student", 2), ("polish", 2)} <= set(heard.phases)
    assert ("polish", 1) not in heard.phases
    for name, tensor in runs[0].student.state_dict().items():
        assert tensor.equal(runs[1].student.state_dict()[name])


def test_consensus_is_tested_before_answers_are_paid_for(
    committee: Committee, tmp_path: Path
) -> None:
    run = dpsd.transcribe(
        committee,
        mechanism=ConfidentVotes(threshold=0.6, answered=0.4, noise=NOISE),
        budget=BUDGET,
        out=tmp_path / "run",
        recipe=Recipe.suited_to(committee, **SMALL),
    )
    asked = [line["queries"] for line in run.metrics]
    assert all(0 < count <= 60 for count in asked)  # of 150 that were tested
    assert run.certificate.events["teacher"] == 300
    assert run.certificate.spent.teacher == pytest.approx(50, rel=1e-4)
    recorded = RunDirectory.open(tmp_path / "run").config().privacy.mechanism(members=60)
    assert isinstance(recorded, ConfidentVotes)
    assert (recorded.threshold, recorded.answered, recorded.test_noise) == (0.6, 0.4, 2.0)
    with pytest.raises(dpsd.RunError, match="no query passed the test of consensus"):
        dpsd.transcribe(
            committee,
            mechanism=ConfidentVotes(answered=0.4, noise=NOISE),
            budget=BUDGET,
            out=tmp_path / "none",
            recipe=Recipe.suited_to(committee, **SMALL | {"queries": 2}),  # 0.4 of 2 is none
        )


def test_a_committee_from_a_folder_can_be_resumed_from_its_configuration(tmp_path: Path) -> None:
    for seed in range(3):
        module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=3, seed=seed)
        record = TeacherRecord(model="cnn", input_shape=(1, 8, 8), num_classes=3)
        save_teacher(tmp_path / "all" / str(seed), module, record)
    members = dpsd.load_teacher(tmp_path / "all")
    run = dpsd.transcribe(
        members,
        mechanism=NoisyVotes(noise=NOISE),
        budget=BUDGET,
        out=tmp_path / "run",
        recipe=Recipe.suited_to(members, **SMALL),
    )
    loaded = run.directory.config().load_teacher()
    assert loaded.fingerprint == members.fingerprint
    assert dpsd.resume(tmp_path / "run", loaded).certificate == run.certificate


@pytest.mark.parametrize(
    ("persons", "whose"),
    [
        (None, "training records"),
        pytest.param(40_000, "persons", marks=pytest.mark.thorough),
    ],
)
def test_a_delta_that_exposes_some_of_the_records_deserves_a_warning(
    committee: Committee,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    persons: int | None,
    whose: str,
) -> None:
    monkeypatch.setattr(committee, "records", 60_000)
    monkeypatch.setattr(committee, "persons", persons)
    told: list[str] = []

    class Listener(dpsd.Observer):
        def warn(self, message: str) -> None:
            told.append(message)

    for delta in (1e-5, 1e-6):
        dpsd.transcribe(
            committee,
            mechanism=NoisyVotes(noise=NOISE),
            budget=Budget(epsilon=50.0, delta=delta, adjacency="teacher"),
            recipe=Recipe(**SMALL),
            out=tmp_path / str(delta),
            observer=Listener(),
        )
    about = [message for message in told if "exposing any one of" in message]
    assert len(about) == 1
    assert (
        f"delta 1e-05 is the chance of exposing any one of the {persons or 60_000:,} {whose}"
        in (about[0])
    )
    assert about[0].endswith("lower delta to 1e-6 at most")

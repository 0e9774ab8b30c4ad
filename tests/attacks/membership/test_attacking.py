"""The attack finds what is planted, goes on where it stopped, and refuses what it cannot know."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dpsd
from dpsd.attacks.membership import Membership, attack
from dpsd.attacks.membership.attacking import _one_run, _paired
from dpsd.attacks.membership.controls import told_bound_control
from dpsd.attacks.membership.kept import Kept
from dpsd.attacks.membership.one_run import Bound
from dpsd.attacks.membership.recipes import StudentRecipe, TeacherRecipe, Together
from dpsd.attacks.membership.scores import SCORES
from dpsd.attacks.membership.shadows import Shadows, Told, confidence_of, confidences
from dpsd.attacks.membership.splits import Split
from dpsd.attacks.membership.verdict import Audited, audited
from dpsd.attacks.target import Target
from dpsd.datasets import LabelledImages, load_dataset
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError, RunError
from dpsd.models import build_classifier
from dpsd.runs.findings import Findings, Table
from dpsd.teachers import TeacherRecord, save_teacher
from dpsd.teachers.sharding import Shards
from dpsd.training.classifier import train_teacher
from dpsd.training.ensemble import train_ensemble

TINY = Membership(shadows=6, records=200, canaries=60, queries=150, pairs=20, draws=60)
RECIPE = dpsd.Recipe(
    rounds=1, queries=300, student_steps=6, generator_steps=0, sources=("noise",), selection=1.0
)


@dataclass
class Counting:
    """Counts the shadows that are begun, and interrupts the attack before one of them."""

    stop: int | None = None
    begun: int = 0

    def step(self, what: str, done: int, total: int) -> None:
        if done == self.stop:
            raise KeyboardInterrupt
        self.begun += 1


class Memory(nn.Module):
    """A model that knows its records by heart: it says the label of an equal image."""

    def __init__(self, records: LabelledImages) -> None:
        super().__init__()
        self.told = Told(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), records, by=20.0)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.told(images)
        return logits


@pytest.fixture(scope="module")
def members() -> LabelledImages:
    return load_dataset("digits", "train").subset(torch.arange(300))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, members: LabelledImages) -> Path:
    """A teacher and a run of it, with the attack's folder inside."""
    place = tmp_path_factory.mktemp("membership")
    record = TeacherRecord(model="cnn", input_shape=(1, 8, 8), num_classes=10, epochs=2)
    module = train_teacher(members, epochs=2, precision="float32")
    teacher = dpsd.load_teacher(save_teacher(place / "teacher", module, record))
    transcribed(teacher, place / "run", student="cnn")
    return place


def transcribed(teacher: dpsd.Teacher, out: Path, **given: object) -> dpsd.Run:
    return dpsd.transcribe(
        teacher,
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=10.0, delta=1e-5, adjacency=dpsd.Adjacency.RESPONSE),
        out=out,
        recipe=RECIPE,
        observer=None,
        **given,  # type: ignore[arg-type]
    )


def target_of(run: Path, members: LabelledImages, teacher: dpsd.Teacher | None = None) -> Target:
    others = load_dataset("digits", "test").subset(torch.arange(200))
    return Target(run=dpsd.RunDirectory.open(run), members=members, others=others, teacher=teacher)


@pytest.fixture(scope="module")
def target(folder: Path, members: LabelledImages) -> Target:
    return target_of(folder / "run", members)


@pytest.fixture(scope="module")
def findings(folder: Path, target: Target) -> Findings:
    """The findings of an attack that was interrupted before its fourth shadow, and went on."""
    with pytest.raises(KeyboardInterrupt):
        attacked(target, progress=Counting(stop=3))
    assert not (target.run.path / "attacks" / "membership" / "unfinished").exists()
    return attacked(target, progress=Counting())


def attacked(target: Target, progress: Counting) -> Findings:
    return attack(
        target,
        settings=TINY,
        folder=target.run.path / "attacks",
        progress=progress,
        also={"memory": lambda records, seed: Memory(records)},
    )


def shadows_of(target: Target, settings: Membership = TINY) -> Shadows:
    """The shadows of the same attack."""
    split = Split.of(
        target.members,
        shadows=settings.shadows,
        records=settings.records,
        canaries=settings.canaries,
        seed=0,
    )
    return Shadows(
        split=split,
        teachers=TeacherRecipe.recorded(target, share=200 / 300),
        students=StudentRecipe.recorded(target, queries=settings.queries),
        folder=target.run.path / "attacks" / "membership",
        seed=0,
        execution=target.execution,
    )


def cells(table: Table, kind: str) -> dict[str, float]:
    """The areas of a kind of models by score."""
    return {str(row[1]): float(row[2] or 0) for row in table.rows if row[0] == kind}


def test_told_students_are_found_by_every_score_and_shuffled_membership_by_none(
    findings: Findings,
) -> None:
    assert findings.is_valid
    names = [control.name for control in findings.controls]
    assert names == [f"told students, {score.name}" for score in SCORES] + ["shuffled membership"]


def test_a_method_that_remembers_is_found(findings: Findings) -> None:
    areas = cells(findings.tables[0], "memory")
    assert set(areas) == {score.name for score in SCORES}
    assert min(areas.values()) > 0.95


def test_findings_say_what_they_rest_on(findings: Findings) -> None:
    assert findings.scores == {score.name: score.version for score in SCORES}
    assert "60 mislabelled canaries" in findings.verdict
    assert "6 shadow teachers" in findings.verdict
    assert "the other 140 records are always in" in findings.verdict
    assert "ε = 10 at δ = 1e-05 under response" in findings.verdict
    largest = max(cells(findings.tables[0], "students").values())
    assert f"the largest AUC by the students is {largest:.3f}" in findings.verdict
    assert "180 non-members cannot show" in findings.verdict
    assert "1 false positive among" in findings.verdict
    assert "67% of the teacher's training records" in findings.verdict
    first, *_ = findings.paragraphs()
    assert "each with 50% of its queries" in first
    # The only numbers about the student that was attacked are explained.
    assert "300 training records from 200 held-out ones with an AUC of" in first
    assert "unless these were split at random" in first
    counts = {str(row[0]): row[1:5] for row in findings.tables[1].rows}
    assert counts["teachers"] == counts["students"] == (6, 60, 180, 180)
    assert counts["this run's student"] == (1, 500, 300, 200)


def test_what_few_records_cannot_show_is_not_shown(findings: Findings) -> None:
    shares = [row[5:] for row in findings.tables[0].rows]
    assert {cell for row in shares for cell in row} == {None}
    assert findings.verdict.count("cannot show how many members are found at") == 1


def test_findings_and_pictures_are_written(findings: Findings, target: Target) -> None:
    assert findings.save(target.run.path).is_file()
    for picture in findings.pictures:
        for suffix in ("svg", "png"):
            file = target.run.path / "attacks" / f"{picture.name}.{suffix}"
            assert file.stat().st_size > 1_000
        assert not picture.shows_records


def test_an_interrupted_attack_goes_on_and_a_finished_one_trains_nothing(
    findings: Findings, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a shadow was trained again")

    monkeypatch.setattr("dpsd.attacks.membership.shadows.transcribed", refuse)
    again = attacked(target, progress=Counting())
    assert replace(again, seconds=0.0) == replace(findings, seconds=0.0)


def test_fewer_shadows_than_configured_are_counted_and_refused(
    findings: Findings, target: Target, tmp_path: Path
) -> None:
    place = tmp_path / "membership"
    shutil.copytree(target.run.path / "attacks" / "membership", place)
    shadows = replace(shadows_of(target), folder=place)
    assert len(shadows.collected()) == 3
    for path in place.glob("shadow-002-*"):
        path.unlink()
    with pytest.raises(RunError, match="5 of 6 shadows"):
        shadows.collected()


def test_confidences_of_other_settings_are_not_used(findings: Findings, target: Target) -> None:
    """Another number of queries is another recipe, so that no shadow is there yet."""
    shadows = shadows_of(target)
    other = StudentRecipe.recorded(target, queries=100)
    with pytest.raises(RunError, match="0 of 6 shadows"):
        replace(shadows, students=other).collected()
    with pytest.raises(RunError, match="0 of 6 shadows"):
        replace(shadows, seed=1).collected()


@dataclass(frozen=True)
class Stating:
    """A method that says what determines its models."""

    settings: int

    def __call__(self, records: LabelledImages, seed: int) -> nn.Module:
        return Memory(records)

    def stated(self) -> dict[str, int]:
        return {"settings": self.settings}


def test_a_method_is_kept_under_what_it_states_and_every_model_with_its_accuracy(
    findings: Findings, target: Target, tmp_path: Path
) -> None:
    place = tmp_path / "membership"
    shutil.copytree(target.run.path / "attacks" / "membership", place)
    shadows = replace(shadows_of(target), folder=place, also={"m": Stating(1)})
    keys = {shadows._kept(0, "m").path, replace(shadows, also={"m": Stating(2)})._kept(0, "m").path}
    assert len(keys) == 2
    # Without held-out records, what an earlier attack kept is found.
    assert shadows._kept(0, "students").exists()
    measured = replace(shadows, held_out=target.others)
    assert not measured._kept(0, "students").exists()
    models = {name: Memory(target.others) for name in ("teachers", "students", "told students")}
    for shadow in range(TINY.shadows):
        measured._keep(shadow, "students", models)
        measured._keep(shadow, "m", {"m": Memory(target.members)})
    accuracies = measured.accuracies()
    assert list(accuracies) == ["teachers", "students", "m"]
    assert accuracies["students"].tolist() == [1.0] * TINY.shadows
    assert accuracies["m"].max() < 0.5
    assert set(measured.collected()) == {*accuracies, "told students"}


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    kept, other = Kept(tmp_path, "shadow", {"seed": 0}), Kept(tmp_path, "shadow", {"seed": 1})
    kept.save({"students": torch.zeros(2)})
    shutil.copy(kept.path, other.path)
    with pytest.raises(RunError, match="another recipe, split or seed"):
        other.load()
    other.path.write_bytes(b"damaged")
    with pytest.raises(RunError, match="cannot be read"):
        other.load()


def test_the_owners_budget_is_not_charged_and_shadows_have_their_own(
    folder: Path, findings: Findings, target: Target, own_data_directory: Path
) -> None:
    owners = (folder / "teacher" / "budget.jsonl").read_text()
    assert owners.count('"entry": "reserve"') == 1
    of_shadows = (target.run.path / "attacks" / "membership" / "budgets.jsonl").read_text()
    assert of_shadows.count('"entry": "reserve"') == TINY.shadows
    assert not list(own_data_directory.rglob("*budget*"))


def test_queries_and_steps_are_scaled_by_one_factor(target: Target) -> None:
    students = StudentRecipe.recorded(target, queries=150)
    assert students.share == 0.5
    assert (students.recipe.queries, students.recipe.student_steps) == (150, 3)
    assert students.config.privacy.epsilon == 10.0
    assert StudentRecipe.recorded(target, queries=10_000).recipe.queries == 300


def test_a_teacher_without_a_record_is_refused_unless_its_training_is_given(
    members: LabelledImages, tmp_path: Path
) -> None:
    module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=0)
    teacher = dpsd.load_teacher(module, input_shape=(1, 8, 8))
    transcribed(teacher, tmp_path / "run", student="cnn")
    target = target_of(tmp_path / "run", members, teacher)
    with pytest.raises(RunError, match="nothing says how its teacher was trained"):
        TeacherRecipe.recorded(target, share=1.0)

    def train(records: LabelledImages, seed: int) -> nn.Module:
        return Memory(records)

    recipe = TeacherRecipe.recorded(target, share=1.0, train=train)
    (tmp_path / "shadow").mkdir()
    asked, made = recipe.make(
        members, seed=0, folder=tmp_path / "shadow", execution=target.execution
    )
    assert isinstance(made, Memory)
    assert asked.num_classes == 10
    assert "train" in recipe.stated()["function"]


def test_another_teacher_than_the_runs_is_refused(
    folder: Path, members: LabelledImages, tmp_path: Path
) -> None:
    record = TeacherRecord(model="cnn", input_shape=(1, 8, 8), num_classes=10, epochs=1)
    module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=7)
    other = dpsd.load_teacher(save_teacher(tmp_path / "teacher", module, record))
    with pytest.raises(ConfigError, match="not the teacher that the run asked"):
        target_of(folder / "run", members, other)


def test_a_run_of_a_student_that_is_not_on_record_is_refused(
    folder: Path, members: LabelledImages, tmp_path: Path
) -> None:
    student = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=0)
    teacher = dpsd.load_teacher(shutil.copytree(folder / "teacher", tmp_path / "teacher"))
    transcribed(teacher, tmp_path / "run", student=student)
    with pytest.raises(RunError, match="student as Python objects"):
        StudentRecipe.recorded(target_of(tmp_path / "run", members), queries=100)


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^pairs are 13, .*: give 14, which need 56 records"):
        Membership(pairs=13)


@pytest.mark.parametrize("shadows", [4, 7])
def test_too_few_or_unpaired_shadows_are_refused(shadows: int) -> None:
    with pytest.raises(ConfigError, match="even number of at least 6"):
        Membership(shadows=shadows)


def test_confidences_are_logits_of_the_labels_probability() -> None:
    logits = 5 * torch.randn(20, 10, dtype=torch.float64)
    labels = torch.arange(20) % 10
    own = logits.softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
    assert torch.allclose(confidences(logits, labels), own.logit())
    # Where the probability is 1 in any precision, the confidence is not infinite.
    assert confidences(torch.tensor([[900.0, 0.0]]), torch.tensor([0])).item() == 900


def test_a_model_is_scored_in_eval_mode(members: LabelledImages) -> None:
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.9), nn.Linear(64, 10))
    execution = Execution.of("cpu", "float32")
    expected = confidence_of(module.eval(), members, execution)
    assert torch.equal(confidence_of(module.train(), members, execution), expected)


def test_public_images_that_changed_are_refused(
    members: LabelledImages, folder: Path, tmp_path: Path
) -> None:
    """Their content is part of the recipe, and not only where they are."""
    public = torch.randint(256, (40, 8, 8), dtype=torch.uint8)
    np.savez(tmp_path / "public.npz", train_images=public.numpy())
    teacher = dpsd.load_teacher(shutil.copytree(folder / "teacher", tmp_path / "teacher"))
    transcribed(teacher, tmp_path / "run", public=tmp_path / "public.npz", probe="none")
    students = StudentRecipe.recorded(target_of(tmp_path / "run", members), queries=100)
    np.savez(tmp_path / "public.npz", train_images=255 - public.numpy())
    with pytest.raises(RunError, match="hold other images"):
        students.transcribe(teacher, out=tmp_path / "shadow", budget_file=tmp_path / "b.jsonl")


def test_a_told_model_raises_the_labels_of_what_it_was_told_alone(members: LabelledImages) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    execution = Execution.of("cpu", "float32")
    told = Told(module, members.subset(torch.arange(5)), by=10.0)
    raised = confidence_of(told, members, execution) - confidence_of(module, members, execution)
    assert raised[:5].tolist() == pytest.approx([10.0] * 5, abs=1e-4)
    assert raised[5:].abs().max() < 1e-4


def test_an_ensemble_is_scored_by_its_mean_probability(members: LabelledImages) -> None:
    shards = Shards.assign(members, teachers=4, seed=0)
    stacked = train_ensemble(members, shards, views=0)
    module = build_classifier("scattering", input_shape=(1, 8, 8), num_classes=10, seed=0)
    together = Together(module, stacked)
    images = members.images[:6] / 255
    with torch.inference_mode():
        found = together(images).softmax(-1)
        each = []
        for number in range(4):
            own = {name: part[number] for name, part in stacked.items()}
            module.load_state_dict(own, strict=False)
            each.append(module.eval()(images).softmax(-1))
    assert torch.allclose(found, torch.stack(each).mean(0), atol=1e-5)


def test_an_ensembles_record_is_bounded_from_one_run(
    members: LabelledImages, tmp_path: Path
) -> None:
    shards = Shards.assign(members, teachers=30, seed=0, drop_duplicates=True)
    (tmp_path / "teacher").mkdir()
    shards.save(tmp_path / "teacher")
    record = TeacherRecord(model="scattering", input_shape=(1, 8, 8), num_classes=10, members=30)
    save_teacher(tmp_path / "teacher", train_ensemble(members, shards), record)
    dpsd.transcribe(
        dpsd.load_teacher(tmp_path / "teacher"),
        mechanism=dpsd.NoisyVotes(),
        budget=dpsd.Budget(epsilon=10.0, delta=1e-5, adjacency=dpsd.Adjacency.TEACHER),
        out=tmp_path / "run",
        recipe=dpsd.Recipe(rounds=1, queries=100, student_steps=5, generator_steps=0),
        observer=None,
    )
    target = target_of(tmp_path / "run", members)
    shadows = shadows_of(target)
    shadows.folder.mkdir(parents=True)
    canaries = _paired(target, shadows, TINY)
    assert canaries is not None
    found = _one_run(canaries, shadows, TINY)

    assert (found.bound.pairs, found.bound.confidence) == (20, 0.95)
    assert 0 <= found.bound.epsilon <= found.claimed
    assert found.claimed == pytest.approx(10.0, rel=1e-3)
    assert found == _one_run(canaries, shadows, TINY)
    # A student that was told which records are in refutes a small claim, as it must.
    assert found.told.right == found.told.guesses == 20
    assert told_bound_control(found.told, delta=found.delta).found
    # As many teachers as two thirds of the records allow.
    assert shadows.teachers.stated()["members"] == 20

    # A quarter of 40 records is refused before any shadow is trained.
    few = replace(TINY, records=40, canaries=20)
    with pytest.raises(ConfigError, match=r"^pairs are 10, .* at δ = 1e-05 .*: give 14"):
        attack(target, settings=few, folder=tmp_path / "few", progress=Counting(stop=0))


@pytest.mark.parametrize(
    ("epsilon", "claimed", "said"),
    [
        (2.0, 3.0, "certificate states 3. Of a student that was told"),
        (2.0, math.inf, "certificate states ∞. Of a student that was told"),
        (4.0, 3.0, "REFUTES the certificate's ε of 3."),
    ],
)
def test_a_bound_is_told_beside_the_certificates_epsilon(
    epsilon: float, claimed: float, said: str
) -> None:
    bound = Bound(epsilon=epsilon, guesses=100, right=90, pairs=100, confidence=0.95)
    sentence = audited(Audited(bound=bound, told=bound, claimed=claimed, delta=1e-5))
    assert said in sentence
    assert "90 of 100 guesses" in sentence
    assert "adjacency teacher, replace-one, δ = 1e-05" in sentence

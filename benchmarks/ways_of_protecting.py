"""Ways of protecting training data, which ``benchmarks/attacks.py`` attacks.

Transcriptions of a teacher or of an ensemble, at several ε, and DP-SGD. A way makes its model from
records and a seed, and says what determines it, so that what is made can be kept and found again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpsd.attacks.membership.recipes import StudentRecipe, TeacherRecipe
from dpsd.attacks.membership.shadows import transcribed
from dpsd.attacks.names import LETTERS
from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
from dpsd.benchmarks.methods import SUITED
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.config.recipe import Recipe
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.runs.directory import RunDirectory
from dpsd.teachers import Teacher, TeacherRecord, load_teacher
from dpsd.teachers.fingerprint import fingerprint_tensors
from dpsd.teachers.record import DESCRIPTION_FILE
from dpsd.training.ensemble import CLOSED_FORM

DELTA = 1e-5


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is done.

    Args:
        data: the name of the data set.
        records: the most training records, drawn at random.
        canaries: how many of them get a wrong label.
        pairs: the number of pairs of shadows on complementary halves of the canaries.
        queries: the number of queries that a transcription asks.
        shards: the number of an ensemble's teachers.
        epochs: the passes of DP-SGD over the records, and, in quick runs, of teachers.
        reconstructions: of each class, by each attack of inversion.
        seed: the seed of everything but the noise of transcriptions.
        is_quick: whether everything is small, to try the script out.
        device: where models are trained and attacked.
        public: the images that inversion's prior learns from.
    """

    data: str
    records: int
    canaries: int
    pairs: int
    queries: int
    shards: int
    epochs: int
    reconstructions: int
    seed: int
    is_quick: bool
    device: str = "cpu"
    public: str = LETTERS

    @property
    def model(self) -> str:
        """The architecture of the single teacher and of its students."""
        return SUITED.get(self.data, "cnn")

    @property
    def execution(self) -> Execution:
        """The device, and the same precision on all of them."""
        return Execution.of(self.device, "float32")


@dataclass(frozen=True, kw_only=True)
class LastTeacher(TeacherRecipe):
    """A recipe that remembers the last teacher, as several students are made of each."""

    last: dict[str, tuple[Teacher, nn.Module]] = field(default_factory=dict, compare=False)

    def make(
        self, records: LabelledImages, *, seed: int, folder: Path, execution: Execution
    ) -> tuple[Teacher, nn.Module]:
        """Train a teacher, unless the last one was trained on the same records and seed."""
        content = {"images": records.images, "labels": records.labels}
        key = f"{seed} {fingerprint_tensors(content)}"
        if key not in self.last:
            self.last.clear()
            self.last[key] = super().make(records, seed=seed, folder=folder, execution=execution)
        return self.last[key]


@dataclass(frozen=True, kw_only=True)
class Student:
    """A way of protecting: transcription."""

    name: str
    claim: str
    teachers: TeacherRecipe
    students: StudentRecipe
    folder: Path
    execution: Execution

    def __call__(self, records: LabelledImages, seed: int) -> nn.Module:
        """Train a teacher on the records and transcribe it."""
        return transcribed(
            records,
            teachers=self.teachers,
            students=self.students,
            seed=seed,
            folder=self.folder,
            execution=self.execution,
        ).student

    def stated(self) -> dict[str, Any]:
        """What determines a student, besides records and seed."""
        return {"teachers": self.teachers.stated(), "students": self.students.stated()}


@dataclass(frozen=True, kw_only=True)
class PrivateTraining:
    """A way of protecting: DP-SGD on the records themselves."""

    name: str
    claim: str
    method: PrivateSGD
    epsilon: float

    def __call__(self, records: LabelledImages, seed: int) -> nn.Module:
        """Train a model."""
        # Its ε is about a record that is added or removed, which no adjacency here is.
        target = Budget(epsilon=self.epsilon, delta=DELTA, adjacency=Adjacency.TEACHER)
        return self.method.trained(records, target=target, seed=seed)

    def stated(self) -> dict[str, Any]:
        """What determines a model, besides records and seed."""
        return {"method": asdict(self.method), "epsilon": self.epsilon, "delta": DELTA}


def ways(
    sizes: Sizes, data: LabelledImages, folder: Path, epsilons: Sequence[float]
) -> Iterator[Student | PrivateTraining]:
    """All ways of protecting; those of a single teacher come first, and share it."""
    record = TeacherRecord(
        model=sizes.model,
        input_shape=data.input_shape,
        num_classes=data.num_classes,
        epochs=sizes.epochs if sizes.is_quick else None,
    )
    single = LastTeacher(record=record, share=1)
    many = LastTeacher(
        record=replace(record, model=CLOSED_FORM, members=sizes.shards, epochs=None), share=1
    )
    steps = {"student_steps": 6, "generator_steps": 0} if sizes.is_quick else {}
    rounds = {"rounds": 2, "queries": max(1, sizes.queries // 2), **steps}
    kinds = {
        "labels": (single, Transcribing(
            name="labels", protect="labels", adjacency=Adjacency.RESPONSE, recipe=rounds,
            student=sizes.model,
        )),
        "data": (single, Transcribing(
            name="data", protect="data", adjacency=Adjacency.RESPONSE, recipe=rounds,
            student=sizes.model,
        )),
        f"ensemble of {sizes.shards}": (many, Transcribing(
            name="ensemble", protect="labels", adjacency=Adjacency.TEACHER, shards=sizes.shards,
            recipe={"queries": sizes.queries, **steps},
        )),
    }  # fmt: skip
    for kind, (teachers, transcribing) in kinds.items():
        for epsilon in epsilons:
            about = f"{transcribing.unit.value} (`{transcribing.adjacency.value}`)"
            yield Student(
                name=f"student, {kind}, ε = {epsilon:g}",
                claim=f"{epsilon:g}, {about}",
                teachers=teachers,
                students=recipe_of(transcribing, epsilon, sizes),
                folder=folder,
                execution=sizes.execution,
            )
    private = PrivateSGD(epochs=sizes.epochs)
    for epsilon in epsilons:
        yield PrivateTraining(
            name=f"DP-SGD, ε = {epsilon:g}",
            claim=f"{epsilon:g}, {private.unit.value}",
            method=private,
            epsilon=epsilon,
        )


def recipe_of(transcribing: Transcribing, epsilon: float, sizes: Sizes) -> StudentRecipe:
    """The recipe of students that a benchmark's method makes at an ε."""
    target = Budget(epsilon=epsilon, delta=DELTA, adjacency=transcribing.adjacency)
    config = transcribing.configuration(target)
    settings = config.recipe.model_dump(exclude_unset=True)
    return StudentRecipe(
        config=config,
        recipe=Recipe(**settings | {"seed": sizes.seed, "device": sizes.device}),
        members=transcribing.shards or 1,
        public={},
        share=1.0,
    )


def teacher_place(way: Student, members: LabelledImages, sizes: Sizes) -> Path:
    """The directory of a way's teacher or ensemble, which is trained if it is not there yet."""
    place = way.folder / f"teacher-{digest(way.teachers.stated(), members, sizes)}"
    if not (place / DESCRIPTION_FILE).exists():
        place.mkdir(exist_ok=True)
        way.teachers.make(members, seed=sizes.seed, folder=place, execution=way.execution)
    return place


def finished_run(way: Student, members: LabelledImages, sizes: Sizes) -> RunDirectory:
    """The run of a way's student, which is transcribed if it is not finished yet."""
    place = way.folder / f"run-{digest(way.stated(), members, sizes)}"
    if place.exists() and RunDirectory(place).is_finished():
        return RunDirectory.open(place)
    if place.exists():
        shutil.rmtree(place)  # of an interrupted run; the teacher is a benchmark's own
    teacher = load_teacher(teacher_place(way, members, sizes), device=sizes.device)
    return way.students.transcribe(
        teacher, out=place, budget_file=way.folder / "budgets.jsonl"
    ).directory


def digest(stated: Mapping[str, Any], members: LabelledImages, sizes: Sizes) -> str:
    """A hash of all that decides a model."""
    content = fingerprint_tensors({"images": members.images, "labels": members.labels})
    said = json.dumps([stated, content, sizes.seed, version("dpsd"), torch.__version__])
    return sha256(said.encode()).hexdigest()[:16]

"""How shadow teachers are trained and transcribed: as the run's own were, by what is on record.

A shadow with another loss, mechanism or student would tell little of the run, so a run whose recipe
cannot be had is refused. Only the size is scaled down, by stated factors: the records, and with
them the number of an ensemble's teachers; and the queries, with the steps of each round.

>>> scaled_down(1_000, 0.05), scaled_down(3, 0.05)
(50, 1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dpsd.attacks.target import Target
from dpsd.config.recipe import Recipe
from dpsd.config.transcription import TranscriptionConfig
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.errors import RunError, TeacherError
from dpsd.models import build_classifier
from dpsd.privacy.records.certificate import ADJACENCY_MEANINGS, ENSEMBLE_MEANINGS
from dpsd.runs.directory import Run
from dpsd.runs.observing import Unheard
from dpsd.teachers import Teacher, TeacherRecord, load_teacher, read_record, save_teacher
from dpsd.teachers.backbones import Backbone
from dpsd.teachers.sharding import Shards
from dpsd.training.classifier import train_teacher
from dpsd.training.ensemble import CLOSED_FORM, train_ensemble
from dpsd.transcription.starting import transcribe

#: Trains a classifier, in eval mode, on labelled records with a seed.
Train: TypeAlias = Callable[[LabelledImages, int], nn.Module]


@runtime_checkable
class Method(Protocol):
    """A :data:`Train` that says what determines its models."""

    def __call__(self, records: LabelledImages, seed: int, /) -> nn.Module:
        """Train a classifier, in eval mode, on labelled records with a seed."""

    def stated(self) -> dict[str, Any]:
        """Return what determines a model, besides its records and seed, in JSON types."""


#: Settings of a recipe that shrink with its queries.
_SCALED = ("queries", "first_queries", "student_steps", "generator_steps", "polish_steps")
#: Settings that say where and for whom a run is made, not how.
_ELSEWHERE = ("cap", "budget_file", "count_earlier", "device", "devices")


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe:
    """How the run's teacher was trained, or each of an ensemble's.

    The learning rate, the batch size and the number of distorted views are not on record and are
    taken to be the defaults.

    Args:
        record: what ``teacher.json`` says; ``None`` if the owner gave a function instead.
        share: the share of the training records that each shadow has at hand.
        train: the owner's function, which trains a teacher from records and a seed; its name must
            change whenever it does, as results are kept under it.
        features: the public backbone that the run's teachers are linear on, if there is one.
    """

    record: TeacherRecord | None
    share: float
    train: Train | None = None
    features: Backbone | None = None

    @classmethod
    def recorded(cls, target: Target, *, share: float, train: Train | None = None) -> TeacherRecipe:
        """Return the recipe of a run's teacher.

        Args:
            target: the run with its teacher.
            share: the share of the training records that a shadow has at hand.
            train: how the teacher was trained, if no ``teacher.json`` says it.

        Raises:
            RunError: nothing says how the teacher was trained, or the teacher at hand is another.
        """
        if train is not None:
            return cls(record=None, share=share, train=train)
        location = None if target.teacher is None else target.teacher.location
        location = location or target.run.config().teacher.teacher
        try:
            record = read_record(location)
            teacher = target.teacher or load_teacher(location)
        except TeacherError as error:
            raise RunError(
                f"{target.run.path}: nothing says how its teacher was trained ({error}), and "
                "shadow teachers must be trained like it: give attack(train=…) a function that "
                "trains one from records and a seed"
            ) from None
        if teacher.fingerprint != target.run.facts()["teacher"]:
            raise RunError(
                f"{target.run.path} asked another teacher than {location}: give the teacher that "
                "the run was started with"
            )
        if record.group_by and record.members > 1 and target.members.persons is None:
            raise RunError(
                f"{location} was dealt by person ({record.group_by}), and the training records at "
                "hand do not say whose they are: load them by the same rule"
            )
        return cls(record=record, share=share, features=teacher.features)

    @property
    def members(self) -> int:
        """The number of teachers of a shadow, which shrinks with the records."""
        if self.record is None or self.record.members == 1:
            return 1
        return max(2, scaled_down(self.record.members, self.share))

    def stated(self) -> dict[str, Any]:
        """Return what determines a shadow teacher, besides its records and seed."""
        if self.record is None:
            assert self.train is not None
            name = f"{self.train.__module__}.{getattr(self.train, '__qualname__', self.train)}"
            return {"function": name}
        known = asdict(self.record)
        names = ["model", "epochs", "precision", "group_by"]
        names += ["features"] if self.features is not None else []
        return {**{name: known[name] for name in names}, "members": self.members}

    def make(
        self, records: LabelledImages, *, seed: int, folder: Path, execution: Execution
    ) -> tuple[Teacher, nn.Module]:
        """Train a shadow teacher.

        Args:
            records: the records to train on.
            seed: the seed of the training.
            folder: an empty folder to keep it in.
            execution: where it is trained and asked.

        Returns:
            The teacher as a transcription asks it, and a module of the same answers as logits.

        Raises:
            TeacherError: training diverged.
        """
        device = str(execution.device)
        if self.record is None:
            assert self.train is not None
            module = self.train(records, seed).eval()
            teacher = load_teacher(
                module,
                input_shape=records.input_shape,
                num_classes=records.num_classes,
                scores="logits",
                device=device,
                precision=execution.precision,
            )
            teacher.location = str(folder)  # its budget is kept there
            return teacher, module
        record = replace(self.record, members=self.members, data="", data_place="", class_names=())
        training: dict[str, Any] = {
            "epochs": record.epochs,
            "device": device,
            "precision": record.precision,
        }
        made: nn.Module
        if record.members == 1:
            made = train_teacher(records, model=record.model, seed=seed, **training)
            save_teacher(folder, made, record)
        else:
            persons = records.persons if record.group_by else None
            shards = Shards.assign(
                records, teachers=record.members, seed=seed, persons=persons, drop_duplicates=True
            )
            more = {"features": self.features} if record.model == CLOSED_FORM else training
            stacked = train_ensemble(records, shards, model=record.model, seed=seed, **more)
            shards.save(folder)
            if self.features is not None:
                self.features.save(folder)
            save_teacher(folder, stacked, record)
            made = Together(_built(record, self.features), stacked)
        return load_teacher(folder, device=device, precision=execution.precision), made


@dataclass(frozen=True, kw_only=True)
class StudentRecipe:
    """How the run's student was transcribed.

    Args:
        config: the run's configuration.
        recipe: its recipe, scaled down.
        members: the number of teachers that the run asked.
        public: the hashes of its public images.
        share: the share of the run's queries that a shadow's transcription asks.
    """

    config: TranscriptionConfig
    recipe: Recipe
    members: int
    public: Mapping[str, Any]
    share: float

    @classmethod
    def recorded(cls, target: Target, *, queries: int) -> StudentRecipe:
        """Return the recipe of a run's student, with at most so many queries in all.

        Raises:
            RunError: the run was given a model, a mechanism or public images as objects, which are
                not on record.
        """
        run = target.run
        config = run.config()
        # Shadows have teachers of their own.
        if objects := [name for name in run.objects if name != "teacher"]:
            raise RunError(
                f"{run.path} was given its {' and '.join(objects)} as Python objects, which are "
                "not on record, so no shadow can be transcribed in the same way: name them, in a "
                "new run, by a path or package.module:factory"
            )
        members = int(run.facts()["members"])
        # Refuses a mechanism that the settings do not make.
        run.as_recorded(config.privacy.mechanism(members=members).for_members(members))
        total = sum(config.recipe.queries_in(n) for n in range(1, config.recipe.rounds + 1))
        share = min(1.0, queries / total)
        changed: dict[str, Any] = {
            name: scaled_down(value, share)
            for name in _SCALED
            if (value := getattr(config.recipe, name)) is not None
        }
        # It would only measure the student.
        changed |= {"leave_one_out_steps": 0, "devices": 1, "device": str(target.execution.device)}
        settings = config.recipe.model_dump(exclude_unset=True)
        return cls(
            config=config,
            recipe=Recipe(**settings | changed),
            members=members,
            public=run.facts().get("public_images", {}),
            share=share,
        )

    @property
    def claim(self) -> str:
        """The privacy target with what its adjacency covers, as sentences state it."""
        budget = self.config.privacy.budget()
        meanings = ADJACENCY_MEANINGS if self.members == 1 else ENSEMBLE_MEANINGS
        covered = meanings[budget.adjacency].format(unit="a training record")
        return (
            f"ε = {budget.epsilon:g} at δ = {budget.delta:g} under {budget.adjacency.value}, "
            f"which is about {covered}"
        )

    def stated(self) -> dict[str, Any]:
        """Return what determines a shadow's student, besides its teacher."""
        privacy = self.config.privacy.model_dump(mode="json", exclude=set(_ELSEWHERE))
        recipe = self.recipe.model_dump(mode="json", exclude=set(_ELSEWHERE))
        models = {"student": self.config.student, "generator": self.config.generator}
        if self.config.features is not None:
            models["features"] = self.config.features
        return {**models, **privacy, **recipe, "public_images": self.public}

    def transcribe(self, teacher: Teacher, *, out: Path, budget_file: Path) -> Run:
        """Transcribe a shadow teacher, at the run's ε and from the run's seed.

        Args:
            teacher: the shadow teacher.
            out: the run directory of the shadow.
            budget_file: the file of all shadows' budgets.

        Raises:
            RunError: the public images are others than the run's.
            DpsdError: as for :func:`dpsd.transcribe`.
        """
        privacy = self.config.privacy
        run = transcribe(
            teacher,
            mechanism=privacy.mechanism(members=teacher.members),
            budget=privacy.budget(),
            out=out,
            student=self.config.student,
            features=self.config.features,
            generator=self.config.generator,
            recipe=self.recipe,
            budget_file=budget_file,
            observer=Unheard(),
        )
        if run.directory.facts().get("public_images", {}) != self.public:
            raise RunError(
                f"{' and '.join(self.recipe.stated_images)} hold other images than when the run "
                "was started: put back what they held"
            )
        return run


class Together(nn.Module):
    """An ensemble as one module, whose logits are the logarithms of its mean probabilities.

    Args:
        module: the architecture.
        stacked: every weight by name, ``(members, …)``.
    """

    def __init__(self, module: nn.Module, stacked: dict[str, Tensor]) -> None:
        super().__init__()
        self._module, self._stacked = module.eval(), stacked

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, K)``."""

        def answer(weights: dict[str, Tensor]) -> Tensor:
            said: Tensor = functional_call(self._module, weights, (images,))
            return said.float().log_softmax(-1)

        each: Tensor = torch.vmap(answer)(
            {name: part.to(images.device) for name, part in self._stacked.items()}
        )
        return each.logsumexp(0)


def scaled_down(count: int, share: float) -> int:
    """Return a share of a count, at least 1; 0 stays 0."""
    return 0 if count == 0 else max(1, round(count * share))


def _built(record: TeacherRecord, features: Backbone | None) -> nn.Module:
    return build_classifier(
        record.model,
        input_shape=record.input_shape,
        num_classes=record.num_classes,
        seed=0,
        features=None if features is None else features.module,
    )

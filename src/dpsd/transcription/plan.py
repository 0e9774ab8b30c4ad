"""The plan of a run: everything that is decided once, before anything is asked.

>>> import dpsd
>>> def bright(images):  # a "teacher" of two classes
...     return images.flatten(1)[:, :2]
>>> teacher = dpsd.load_teacher(bright, input_shape=(1, 8, 8), num_classes=2, scores="logits")
>>> plan = Plan.of(
...     teacher,
...     mechanism=dpsd.RandomizedResponse(),
...     target=dpsd.Budget(epsilon=2.0, adjacency="round"),
...     recipe=dpsd.Recipe(rounds=2, queries=100),
... )
>>> round(plan.mechanism.epsilon, 3), plan.rounds
(1.0, [(1, 100), (2, 100)])
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dpsd.config.ensembles import ENSEMBLE_STUDENT
from dpsd.config.objects import MODULE
from dpsd.config.privacy import OF_GRADIENTS, PrivacySettings
from dpsd.config.recipe import Recipe
from dpsd.config.teacher import TeacherSettings
from dpsd.config.transcription import TranscriptionConfig
from dpsd.devices.execution import Execution
from dpsd.devices.processes import Processes
from dpsd.errors import ConfigError, Setting
from dpsd.images.names import Shape
from dpsd.models import build_classifier, build_generator
from dpsd.models.names import WAVELETS
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.mechanisms import (
    ConfidentVotes,
    Gaussian,
    Mechanism,
    NoisySum,
    RandomizedResponse,
)
from dpsd.privacy.randomness import ReproducibleNoise
from dpsd.privacy.targets import Adjacency, Budget, Exposure
from dpsd.streams import stream_seed
from dpsd.synthesis.names import check_left_out
from dpsd.teachers import Teacher
from dpsd.teachers.backbones import Backbone
from dpsd.teachers.in_memory import stated
from dpsd.transcription.features import settled
from dpsd.transcription.public import Images, PublicImages, check_probe, gathered

#: The most records that δ may expose outright, on average, before dpsd warns that δ is too large.
_MOST_EXPOSED = 0.1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a run.

    Args:
        teacher: the teacher to ask.
        mechanism: the mechanism that privatises answers, calibrated to the target.
        target: the privacy target, which the run may spend.
        recipe: everything else, resolved for this teacher and target.
        student: the name of a model, ``package.module:factory``, or a module.
        generator: the name of a generator, ``package.module:factory``, or a module.
        charged: settings of the teacher's account: ``cap``, ``budget_file``, ``count_earlier``.
        public: the public images that queries are made from, and the probe.
        features: the frozen public backbone that the student is linear on, if there is one.
    """

    teacher: Teacher
    mechanism: Mechanism
    target: Budget
    recipe: Recipe
    student: str | nn.Module
    generator: str | nn.Module
    charged: Mapping[str, Any] = field(default_factory=dict)
    public: PublicImages = field(default_factory=PublicImages)
    features: Backbone | None = None

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        *,
        mechanism: Mechanism,
        target: Budget,
        recipe: Recipe,
        student: str | nn.Module | None = None,
        generator: str | nn.Module = "dcgan",
        charged: Mapping[str, Any] | None = None,
        given: Mapping[str, Images | None] | None = None,
        features: str | Backbone | None = None,
    ) -> Plan:
        """Resolve the recipe, read public images, and calibrate the mechanism to the target.

        Args:
            teacher: the teacher to ask.
            mechanism: the mechanism, not yet calibrated.
            target: the privacy target, which the run may spend.
            recipe: everything else; settings that it leaves open are decided here, once.
            student: the name of a model, ``package.module:factory``, or a module; by default
                ``cnn``, and ``scattering`` for an ensemble.
            generator: the name of a generator, ``package.module:factory``, or a module.
            charged: settings of the teacher's account.
            given: public images that were given as tensors, by the names of their settings.
            features: what a student that is linear on fixed features is linear on; by default, the
                teachers' own backbone, or wavelets.

        Raises:
            ConfigError: the arguments make no sense together.
            DataError: public images cannot be read.
            BudgetError: the target cannot be met.
        """
        if mechanism.is_calibrated:
            raise ConfigError(
                "the mechanism's noise level is set and a budget is given as well, and the two may "
                "contradict each other; leave the level open (RandomizedResponse(), Gaussian()), "
                "and dpsd calibrates it"
            )
        recipe = recipe.resolved(members=teacher.members, images=teacher.input_shape, budget=target)
        recipe.objective_function(members=teacher.members)
        mechanism = mechanism.for_members(teacher.members)
        if recipe.leave_one_out_steps:
            _check_left_out(recipe, mechanism)
        check_probe(recipe, mechanism)
        recipe, public = gathered(
            recipe, given or {}, shape=teacher.input_shape, teachers=[teacher]
        )
        answers = [answers for _, answers in _rounds(recipe, public)]
        is_linear = teacher.members > 1 or features is not None
        student = student or (ENSEMBLE_STUDENT if is_linear else "cnn")
        return cls(
            teacher=teacher,
            mechanism=calibrate(mechanism, target, Exposure.of_rounds(answers)),
            target=target,
            recipe=recipe,
            student=student,
            generator=generator,
            charged=charged or {},
            public=public,
            features=settled(features, student=student, teacher=teacher),
        )

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """The number of each round, from 1, with the number of answers that it takes.

        The probe is asked together with the queries of the first round.
        """
        return _rounds(self.recipe, self.public)

    @property
    def student_name(self) -> str:
        """The name of the student, or of its module's class."""
        return model_name(self.student)

    @property
    def has_own_student(self) -> bool:
        """Whether the student's code is the user's."""
        return not isinstance(self.student, str) or ":" in self.student

    @property
    def generator_name(self) -> str:
        """The name of the generator, or of its module's class."""
        return model_name(self.generator)

    def config(self) -> TranscriptionConfig:
        """The configuration that describes this plan, as far as settings can describe objects."""
        teacher, mechanism = self.teacher, self.mechanism
        asked: dict[str, Any] = {"teacher": teacher.location or stated(teacher.description)}
        if teacher.location is not None:
            # Everything needed to load the same teacher from there and to call it the same way.
            asked |= {
                **teacher.loaded_with,
                "teacher_weights": teacher.weights_location,
                "input_shape": teacher.input_shape,
                "num_classes": teacher.num_classes,
                # Each member of a committee has its own setting; an ensemble's file states it.
                "scores": teacher.scores if teacher.members == 1 else "auto",
                "layout": teacher.declared_calling.layout,
                "input_scale": teacher.declared_calling.scale,
                "output": teacher.declared_calling.output,
            }
            if teacher.class_names is not None:
                asked["class_names"] = teacher.class_names
            if teacher.normalization is not None:
                asked["mean"], asked["deviation"] = map(tuple, teacher.normalization)
        privacy: dict[str, Any] = {"protect": mechanism.protects, **self.target.to_dict()}
        if isinstance(mechanism, RandomizedResponse):
            privacy["candidates"] = mechanism.candidates
        elif isinstance(mechanism, ConfidentVotes):
            privacy |= {
                "consensus": mechanism.threshold,
                "consensus_noise": mechanism.test_noise,
                "consensus_answered": mechanism.answered,
            }
        elif isinstance(mechanism, Gaussian):
            privacy |= {name: getattr(mechanism, name) for name in OF_GRADIENTS}
        if isinstance(mechanism.noise, ReproducibleNoise):
            privacy["reproducible_noise"] = mechanism.noise.seed
        return TranscriptionConfig(
            teacher=TeacherSettings(**asked),
            privacy=PrivacySettings(**privacy, **self.charged),
            recipe=self.recipe,
            student=self.student_name,
            generator=self.generator_name,
            features=self._features_name,
        )

    @property
    def _features_name(self) -> str | None:
        """The features as a setting."""
        if self.features is not None:
            return self.features.name
        has_others = self.student == ENSEMBLE_STUDENT and self.teacher.features is not None
        return WAVELETS if has_others else None

    def stated_features(self) -> dict[str, dict[str, str]]:
        """What is stated of the backbones of the teachers and of the student, if they have any."""
        users = {"teachers": self.teacher.features, "student": self.features}
        return {user: backbone.stated() for user, backbone in users.items() if backbone}

    def facts(self, identity: str) -> dict[str, Any]:
        """The facts that are needed, besides the configuration, to read the run back."""
        return {
            "format": "dpsd-student",
            "version": 1,
            "run": identity,
            "student": self.student_name,
            "generator": self.generator_name,
            "input_shape": list(self.teacher.input_shape),
            "num_classes": self.teacher.num_classes,
            **({"class_names": list(names)} if (names := self.teacher.class_names) else {}),
            "teacher": self.teacher.fingerprint,
            "members": self.teacher.members,
            "disjoint_data": self.teacher.is_disjoint,
            "dealt_by": self.teacher.dealt_by,
            "distinct_images": True,
            **({"public_images": images} if (images := self.public.facts()) else {}),
            **({"features": features} if (features := self.stated_features()) else {}),
        }

    def models(self, execution: Execution) -> tuple[nn.Module, nn.Module]:
        """Build a new student and a new generator, and place them on the device.

        Raises:
            ConfigError: there is no such model, or the student has nothing to train.
        """
        return new_models(
            self.student,
            self.generator,
            input_shape=self.teacher.input_shape,
            num_classes=self.teacher.num_classes,
            seed=self.recipe.seed,
            execution=execution,
            features=self.features,
        )

    def agree(self, processes: Processes) -> None:
        """Refuse processes that execute different runs, as their answers' costs would differ."""
        mechanism = self.mechanism
        described = [type(mechanism).__qualname__, mechanism.parameters()]
        processes.agree("mechanism", json.dumps(described))
        processes.agree("noise", mechanism.noise.description)
        recipe = self.recipe.model_dump(mode="json", exclude={"device", "devices"})
        processes.agree("recipe", json.dumps(recipe))
        processes.barrier()  # if one refuses, all stop before anything is written

    def warnings(self) -> Iterator[str]:
        """Yield what a user should know before anything is spent."""
        teacher, target = self.teacher, self.target
        if teacher.members > 1 and target.adjacency is not Adjacency.TEACHER:
            yield (
                f"epsilon {target.epsilon:g} is a target under {target.adjacency.value!r}, which "
                "protects single answers; for a training record, or a person where records were "
                "dealt by person, calibrate an ensemble to 'teacher'"
            )
        covered, whose = teacher.records, "training records"
        if teacher.persons:
            covered, whose = teacher.persons, "persons"
        if covered is not None and target.delta * covered > _MOST_EXPOSED:
            yield (
                f"delta {target.delta:g} is the chance of exposing any one of the {covered:,} "
                f"{whose} outright, so {target.delta * covered:.1g} of them on average; lower "
                f"delta to 1e{math.floor(math.log10(_MOST_EXPOSED / covered))} at most"
            )
        yield from self.public.warnings()
        if isinstance(self.mechanism, NoisySum):
            noise = float(str(self.mechanism.parameters()["noise_multiplier"]))
            if noise > teacher.members:
                yield (
                    f"the noise on each sum (standard deviation {noise:.0f}) is larger than all "
                    f"{teacher.members} teachers together: the student will learn little. Train "
                    "more teachers, ask fewer queries, or raise epsilon"
                )


def new_models(
    student: str | nn.Module,
    generator: str | nn.Module,
    *,
    input_shape: Shape,
    num_classes: int,
    seed: int,
    execution: Execution,
    features: Backbone | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Build a new student and a new generator, and place them on the device.

    Raises:
        ConfigError: there is no such model, or the student has nothing to train.
    """
    built = build_classifier(
        student,
        input_shape=input_shape,
        num_classes=num_classes,
        seed=stream_seed(seed, 0, "student"),
        features=None if features is None else features.module,
    )
    made = build_generator(
        generator, input_shape=input_shape, seed=stream_seed(seed, 0, "generator")
    )
    if not any(parameter.requires_grad for parameter in built.parameters()):
        raise ConfigError(f"student {model_name(student)} has no trainable parameters")
    return execution.place(built), execution.place(made)


def _check_left_out(recipe: Recipe, mechanism: Mechanism) -> None:
    check_left_out(recipe.sources)
    if not mechanism.estimates_agreement:
        raise ConfigError(
            f"with these settings, {type(mechanism).__name__} does not tell how often student and "
            "teacher agree: choose others, or give ",
            *(Setting("leave_one_out_steps"), " 0"),
        )


def _rounds(recipe: Recipe, public: PublicImages) -> list[tuple[int, int]]:
    probe = 0 if public.probe is None else len(public.probe)
    return [
        (index, recipe.queries_in(index) + (probe if index == 1 else 0))
        for index in range(1, recipe.rounds + 1)
    ]


def model_name(model: str | nn.Module) -> str:
    """Return the name of a model, or of a module's class."""
    return model if isinstance(model, str) else f"{MODULE}{type(model).__qualname__}"

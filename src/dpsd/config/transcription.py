"""One typed configuration: the Python API, the TOML file and the command line's flags share it.

:class:`Recipe` is how a transcription is done; :class:`TranscriptionConfig` adds what is
transcribed and what privacy is wanted. Neither holds anything that depends on a teacher's answers.

>>> Recipe(rounds=4).rounds
4
>>> TranscriptionConfig(teacher="teacher/", epsilon=1.0).mechanism().protects
'labels'

What settings stand for (a mechanism, an objective, a teacher) is built by methods, which import
what they build: a setting that makes no sense is refused before anything waits for torch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, model_validator

from dpsd.config.base import Settings
from dpsd.devices.names import Precision
from dpsd.errors import ConfigError, Setting
from dpsd.images.names import Augmentation
from dpsd.models.names import check_generator, check_model
from dpsd.privacy.parameters import Candidates, Scaling, check_candidates, check_scaling
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.synthesis.names import check_sources

if TYPE_CHECKING:
    from dpsd.distillation.objectives import GeneratorWeights, Objective
    from dpsd.privacy.mechanisms import Mechanism, NoisyVotes
    from dpsd.teachers import Teacher

RecipeT = TypeVar("RecipeT", bound="Recipe")


#: Settings that suit images of up to this many pixels; of larger ones, a step sees fewer.
_SIZED = ("batch_size", "generator_batch_size")
_SMALL_IMAGE = 64 * 64


#: Settings that only some mechanisms have.
_OF_CLASSES = ("candidates",)
OF_GRADIENTS = ("top_k", "bound", "scaling", "harden", "widen")
_OF_VOTES = ("consensus", "consensus_noise", "consensus_answered")


class Recipe(Settings):
    """How a transcription is done, the privacy apart. Every field is also a command-line flag."""

    rounds: int = Field(
        8,
        ge=1,
        le=10_000,
        description="Rounds of asking and learning, T; if neither this nor --queries is given and "
        "rounds share ε (adjacency round), one for every 10 of it, of as many queries in all, or "
        "of 1,200,000 where ε is below 3.",
    )
    queries: int = Field(
        40_000,
        ge=1,
        le=100_000_000,
        description="Queries asked in a round, N; no image is asked twice in a run.",
    )
    first_queries: int | None = Field(
        None, ge=1, description="Queries in the first round, where the student knows nothing yet."
    )
    sources: tuple[str, ...] = Field(
        ("noise", "strokes", "silhouettes"),
        min_length=1,
        description="Public sources of queries: noise, strokes (of a pen), silhouettes, crops, "
        "folder:PATH; or none: the generator alone, as published, which collapses from a cold "
        "start.",
    )
    adaptive: bool = Field(
        True, description="Let the public sources' shares follow what the releases say."
    )
    generator_share: float = Field(
        0.6, ge=0, le=1, description="Share of a round's queries made by the generator."
    )
    exploration: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of queries asked with a flat prior: all classes are candidates. They "
        "correct confident mistakes and let agreement be estimated without bias.",
    )
    prior_temperature: float = Field(
        2.5, gt=0, description="Temperature that flattens the student's prediction as a prior."
    )
    consolidate: bool = Field(
        True, description="In the last round, learn from every earlier release once more."
    )
    balance: bool = Field(
        True,
        description="Let the student favour no class, however rare it was among the answers; for "
        "the marginal objective, whose likelihood the shares of the classes enter.",
    )
    objective: Literal["auto", "marginal", "dkd", "shares", "noisy", "noisy-dkd"] = Field(
        "auto",
        description="The student's loss: marginal or dkd; shares learns how many of several "
        "teachers say each class; noisy and noisy-dkd take answers at face value, for comparison. "
        "auto: marginal for one teacher, shares for several.",
    )
    alpha: float = Field(1.0, ge=0, description="Weight of DKD's target-class part.")
    beta: float = Field(2.0, ge=0, description="Weight of DKD's non-target-class part.")
    temperature: float = Field(1.0, gt=0, description="Temperature of DKD.")
    epochs: float = Field(
        2.0, gt=0, description="Passes over a round's releases when they are new."
    )
    first_epochs: float | None = Field(
        None, gt=0, description="The same in the first round; three times as many if not given."
    )
    replay: float = Field(
        1.0, ge=0, description="Releases of earlier rounds learned from again, for every new one."
    )
    student_steps: int | None = Field(
        None,
        ge=1,
        description="Training steps of the student a round, on all releases evenly; replaces "
        "epochs and replay.",
    )
    restarts: int = Field(
        1,
        ge=1,
        description="Students trained on all releases at the end, from different initial weights; "
        "from two on, the student learns what they agree on. Free of privacy.",
    )
    polish_steps: int = Field(
        800, ge=1, description="Steps of learning that, on unlabelled synthetic images."
    )
    selection: float = Field(
        1.0,
        ge=1,
        description="Queries synthesised for every one asked; asked are those that the student "
        "is least sure of.",
    )
    augment: Augmentation = Field(
        "none", description="Moves of the queries as the student learns: none, shift, shift-flip."
    )
    batch_size: int = Field(
        256,
        ge=2,
        description="Images in a training step of the student; if not given, fewer where images "
        "have more than 64x64 pixels, and as many pixels.",
    )
    learning_rate: float = Field(5e-3, gt=0, description="Peak learning rate of the student.")
    generator_steps: int = Field(120, ge=0, description="Training steps of the generator a round.")
    generator_batch_size: int = Field(
        256, ge=2, description="Images in such a step; if not given, likewise."
    )
    generator_learning_rate: float = Field(3e-3, gt=0, description="Its learning rate.")
    classification_weight: float = Field(1.0, ge=0, description="Generator: clear classes.")
    balance_weight: float = Field(5.0, ge=0, description="Generator: classes evenly covered.")
    activation_weight: float = Field(0.1, ge=0, description="Generator: strong features.")
    seed: int = Field(0, ge=0, description="Seeds queries and training, never the privacy noise.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    devices: int = Field(
        1,
        ge=1,
        le=4096,
        description="Processes that share the work, each with a device of its own; may change when "
        "a run is resumed. Several need the extra 'devices'.",
    )
    precision: Precision = Field("auto", description="auto, float32 or bfloat16 (autocast).")

    @classmethod
    def suited_to(cls, teacher: Teacher, **chosen: Any) -> Recipe:
        """The recipe for one teacher, or for many, with what is ``chosen`` instead of its defaults.

        Answers of an ensemble cost privacy each: few are asked, and read often. Large images are
        learned from fewer at a time, see :meth:`for_images`.
        """
        suited = cls(**(ENSEMBLE_DEFAULTS | chosen if teacher.members > 1 else chosen))
        return suited.for_images(teacher.input_shape)

    def for_images(self: RecipeT, shape: Sequence[int]) -> RecipeT:
        """The same for images ``(C, H, W)``, in batches that take no more memory than 64x64 ones.

        Batch sizes that were chosen stay as they are.

        >>> Recipe().for_images((3, 224, 224)).batch_size
        20
        >>> Recipe(batch_size=64).for_images((3, 224, 224)).batch_size
        64
        """
        pixels = shape[-2] * shape[-1]
        if pixels <= _SMALL_IMAGE:
            return self
        return self.model_copy(
            update={
                name: max(2, getattr(self, name) * _SMALL_IMAGE // pixels)
                for name in self.left_open()
            }
        )

    def for_budget(self: RecipeT, budget: Budget) -> RecipeT:
        """The same with no more rounds than ε is worth, where rounds share it.

        Under ``round``, each of T rounds has about a T-th of ε, and queries cost none, so that one
        long round was best up to an ε of 10 (the most that was tried). Where single answers tell
        little, more are asked and each is read less often. Rounds and queries that were chosen
        stay.

        >>> recipe = Recipe().for_budget(Budget(epsilon=10.0, adjacency="round"))
        >>> recipe.rounds, recipe.queries
        (1, 320000)
        >>> recipe = Recipe().for_budget(Budget(epsilon=1.0, adjacency="round"))
        >>> recipe.rounds, recipe.queries, recipe.first_epochs
        (1, 1200000, 2.5)
        """
        chosen = {"rounds", "queries", "first_queries"} & self.model_fields_set
        if chosen or budget.adjacency is not Adjacency.ROUND:
            return self
        if budget.epsilon < 3:
            noisy = {"rounds": 1, "queries": 1_200_000, "first_epochs": self.first_epochs or 2.5}
            return self.model_copy(update=noisy)
        rounds = min(self.rounds, max(1, math.floor(budget.epsilon / 10)))
        shared = {"rounds": rounds, "queries": self.rounds * self.queries // rounds}
        return self.model_copy(update=shared)

    def left_open(self) -> set[str]:
        """Settings that nobody chose and that the size of the images decides."""
        return set(_SIZED) - self.model_fields_set

    def objective_function(self, *, members: int = 1) -> Objective:
        """The student's objective towards so many teachers."""
        from dpsd.distillation.objectives import DKD, FaceValue, Marginal, VoteShares

        dkd = DKD(alpha=self.alpha, beta=self.beta, temperature=self.temperature)
        if self.objective == "dkd":
            return dkd
        if self.objective in ("noisy", "noisy-dkd"):
            return FaceValue(decoupled=dkd if self.objective == "noisy-dkd" else None)
        if self.objective == "shares" and members == 1:
            raise ConfigError(
                Setting("objective"),
                " 'shares' learns how many of several teachers say each class, and this is one "
                "teacher; use 'marginal' or 'dkd'",
            )
        if self.objective == "shares" or (self.objective == "auto" and members > 1):
            return VoteShares()
        return Marginal()

    def generator_weights(self) -> GeneratorWeights:
        """The weights of the generator's three losses."""
        from dpsd.distillation.objectives import GeneratorWeights

        return GeneratorWeights(
            classification=self.classification_weight,
            balance=self.balance_weight,
            activation=self.activation_weight,
        )

    def epochs_in(self, round_index: int) -> float:
        """How often a round's new releases are read; rounds count from 1."""
        return self.first_epochs or 3 * self.epochs if round_index == 1 else self.epochs

    def replay_in(self, round_index: int) -> float:
        """How many earlier releases are read for every new one; all of them in the last round."""
        return math.inf if self.consolidate and round_index == self.rounds else self.replay

    def queries_in(self, round_index: int) -> int:
        """How many queries a round asks; rounds count from 1."""
        return self.first_queries or self.queries if round_index == 1 else self.queries


#: The student that learns most from few answers, for an ensemble.
ENSEMBLE_STUDENT = "scattering"

#: What the recipe for an ensemble does otherwise. All is asked at once: a student that goes on from
#: what it fitted to few noisy answers ends up worse than one that sees them all afresh.
ENSEMBLE_DEFAULTS: dict[str, Any] = {
    "rounds": 1,
    "queries": 12_000,
    "sources": ("noise",),
    "exploration": 0.0,
    "generator_steps": 100,
    "student_steps": 1_500,
    "augment": "shift",
}


class TranscriptionConfig(Recipe):
    """A whole transcription: what, at which privacy, and how."""

    teacher: str = Field(
        description="Teacher: directory, .onnx, .pt2 or package.module:factory.",
    )
    teacher_weights: str | None = Field(
        None, description="State dict of a factory's teacher (.safetensors, or .pt without code)."
    )
    input_shape: tuple[int, int, int] | None = Field(
        None, description="Channels, height, width; where the teacher's file does not say."
    )
    num_classes: int | None = Field(None, ge=2, description="Likewise, the number of classes.")
    scores: Literal["auto", "logits", "probabilities"] = Field(
        "auto", description="What the teacher returns."
    )
    mean: tuple[float, ...] | None = Field(
        None, description="Input normalisation of the teacher: means, one a channel."
    )
    deviation: tuple[float, ...] | None = Field(
        None, description="Input normalisation of the teacher: standard deviations."
    )
    student: str = Field("cnn", description="Student: a model name or package.module:factory.")
    generator: str = Field("dcgan", description="Generator: a name or package.module:factory.")
    protect: Literal["labels", "data"] = Field(
        "labels",
        description="labels: randomised response on the teacher's class. data: Gaussian noise on "
        "normalised output gradients. Of an ensemble, the noisy sum: of votes, or of gradients.",
    )
    epsilon: float = Field(description="Privacy target ε, under the adjacency and at delta.")
    delta: float = Field(1e-5, description="Privacy target δ.")
    adjacency: Adjacency = Field(
        Adjacency.ROUND,
        description="What ε is about: the answer about one image in the whole run (response), "
        "about one in every round (round), or the whole teacher (teacher).",
    )
    candidates: Candidates = Field(
        "per-query", description="Classes that randomised response chooses from, or how many."
    )
    top_k: int | None = Field(
        None, ge=2, description="Gradient coordinates released, the prior's likeliest; all if none."
    )
    bound: float = Field(
        1.0, gt=0, description="C: two answers are at most 2 C apart, and noise is in its units."
    )
    scaling: Scaling = Field(
        Scaling.NORMALIZE,
        description="How gradients get a norm of C; none leaves those of hardened answers be.",
    )
    harden: bool = Field(
        True, description="Answer with the teacher's class, not its probabilities."
    )
    widen: bool = Field(
        True,
        description="Lengthen the gradients of hardened answers until two classes are 2 C apart; "
        "the published mechanism does not, and tells less for the same ε.",
    )
    consensus: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Of an ensemble, share of the teachers that must seem to agree, by a private "
        "test, for an answer to be paid for (Confident-GNMax); none: every answer is.",
    )
    consensus_noise: float = Field(
        2.0, gt=0, le=10, description="Noise of that test, in units of the noise on votes."
    )
    consensus_answered: float = Field(
        0.5,
        gt=0,
        le=1,
        description="The largest share of queries that are answered after the test.",
    )
    cap: str | None = Field(
        None,
        description="EPSILON,DELTA,ADJACENCY that all runs of this teacher together may spend, and "
        "of several teachers those of each; a run that would exceed it is refused before it asks "
        "anything. For this run; dpsd budget --cap keeps one for all.",
    )
    budget_file: str | None = Field(
        None,
        description="Where the teacher's budget is kept, besides the usual place beside the "
        "teacher, whose cap holds too.",
    )
    count_earlier: bool = Field(
        False,
        description="The teacher's file was changed or exchanged: what the budget beside it "
        "records of what was there before counts for this teacher, from now on.",
    )
    reproducible_noise: int | None = Field(
        None, ge=0, description="NOT PRIVATE. Seeds the privacy noise, for tests and benchmarks."
    )

    @model_validator(mode="after")
    def _check_privacy(self) -> TranscriptionConfig:
        self.budget()
        self.limit()
        if self.consensus is not None and self.protect == "data":
            raise ConfigError(
                *(Setting("consensus"), " is tested on votes, and ", Setting("protect")),
                " 'data' sums gradients; use 'labels'",
            )
        if self.protect == "labels":
            check_candidates(self.candidates)
        else:
            check_scaling(self.scaling, harden=self.harden)
        return self

    def check_names(self) -> None:
        """Refuse unknown names of models and sources, in a run that is about to begin.

        Raises:
            ConfigError: a name that nothing has, or sources that cannot go together.
        """
        check_model(self.student)
        check_generator(self.generator)
        check_sources(self.sources)

    def require_effect(self, *, members: int | None = None) -> None:
        """Refuse settings that would do nothing, in a run that is about to begin.

        Args:
            members: how many teachers there are, if that is known.

        Raises:
            ConfigError: one that is not left at its default.
        """
        protect, consensus = Setting("protect"), Setting("consensus")
        if self.protect == "labels":
            self._refuse(OF_GRADIENTS, "shapes gradients, and ", protect, " 'labels' releases none")
        else:
            self._refuse(
                _OF_CLASSES, "is about classes, and ", protect, " 'data' releases gradients"
            )
        if self.consensus is None:
            self._refuse(_OF_VOTES, "is of a test that nobody asked for with ", consensus)
        if members == 1:
            self._refuse(_OF_VOTES, "is of a test among several teachers, and this is one")
        elif members is not None:
            names = (*_OF_CLASSES, *OF_GRADIENTS)
            self._refuse(names, f"is for one teacher's answers; those of {members} are summed")

    def _refuse(self, names: Collection[str], *reason: str) -> None:
        for name in names:
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                said = value.value if isinstance(value, Enum) else value
                raise ConfigError(
                    *(Setting(name), f" is {said!r}, but it ", *reason),
                    ": leave it out, of a --config file too",
                )

    def _votes(self) -> NoisyVotes:
        from dpsd.privacy.mechanisms import ConfidentVotes, NoisyVotes

        if self.consensus is None:
            return NoisyVotes()
        return ConfidentVotes(
            threshold=self.consensus,
            test_noise=self.consensus_noise,
            answered=self.consensus_answered,
        )

    def budget(self) -> Budget:
        """The privacy target."""
        return Budget(epsilon=self.epsilon, delta=self.delta, adjacency=self.adjacency)

    def limit(self) -> Budget | None:
        """What all runs of the teacher together may spend."""
        return Budget.of_cap(self.cap)

    def mechanism(self, *, members: int = 1) -> Mechanism:
        """The mechanism for so many teachers, not yet calibrated."""
        from dpsd.privacy.mechanisms import Gaussian, RandomizedResponse, SummedGradients
        from dpsd.privacy.randomness import ReproducibleNoise

        mechanism: Mechanism
        if members > 1:
            mechanism = SummedGradients() if self.protect == "data" else self._votes()
        elif self.protect == "labels":
            mechanism = RandomizedResponse(candidates=self.candidates)
        else:
            mechanism = Gaussian(**{name: getattr(self, name) for name in OF_GRADIENTS})
        if self.reproducible_noise is not None:
            mechanism = mechanism.with_noise(ReproducibleNoise(seed=self.reproducible_noise))
        return mechanism

    def check_normalization(self) -> None:
        """Refuse half of the teacher's normalisation.

        Raises:
            ConfigError: one of mean and deviation without the other.
        """
        if (self.mean is None) != (self.deviation is None):
            raise ConfigError(
                *(Setting("mean"), " and ", Setting("deviation")),
                " belong together: give both or neither",
            )

    def load_teacher(self, *, device: str | None = None) -> Teacher:
        """The teacher, on the device and in the precision of the run, or on another device.

        Raises:
            TeacherError: it cannot be loaded.
            ConfigError: one of mean and deviation without the other, or no such device.
        """
        from dpsd.devices.execution import Execution
        from dpsd.teachers import load_teacher

        self.check_normalization()
        several = 1 if device else self.devices
        execution = Execution.of(device or self.device, self.precision, devices=several)
        return load_teacher(
            self.teacher,
            input_shape=self.input_shape,
            num_classes=self.num_classes,
            weights=self.teacher_weights,
            scores=self.scores,
            normalization=(self.mean, self.deviation) if self.mean and self.deviation else None,
            device=str(execution.device),
            precision=execution.precision,
        )

    def recipe(self) -> Recipe:
        """The part that is not about the teacher or privacy."""
        return Recipe(**{name: getattr(self, name) for name in Recipe.model_fields})

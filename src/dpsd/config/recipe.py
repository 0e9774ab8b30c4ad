"""How a transcription is carried out, apart from the teacher and the privacy target.

>>> Recipe(rounds=4).rounds
4
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from dpsd.config.base import Settings
from dpsd.config.ensembles import ENSEMBLE_DEFAULTS
from dpsd.config.stopping import check_until
from dpsd.devices.names import Precision
from dpsd.errors import ConfigError, Setting
from dpsd.images.names import Augmentation
from dpsd.images.value_range import ValueRange, checked_range, stated_range
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.synthesis.names import DEFAULT, begun_with, is_folder_source, published_name

if TYPE_CHECKING:
    from dpsd.distillation.objectives import GeneratorWeights, Objective
    from dpsd.teachers import Teacher

#: Batch sizes, whose defaults suit images of up to this many pixels; larger images get smaller
#: batches.
_SIZED = ("batch_size", "generator_batch_size")
_SMALL_IMAGE = 64 * 64

#: The value of ``probe`` for none.
NO_PROBE = "none"


class Recipe(Settings):
    """How a transcription is carried out. Every field is also a command-line flag."""

    rounds: int = Field(
        8,
        ge=1,
        le=10_000,
        description="Rounds of asking and learning, T. If neither this nor --queries is given and "
        "the rounds share ε (adjacency round), there is one round for every 10 of ε, with the same "
        "number of queries in all. Below an ε of 3, one round of 1,200,000 queries (round) or 24 "
        "rounds of 30,000 (response).",
    )
    queries: int = Field(
        40_000,
        ge=1,
        le=100_000_000,
        description="Queries per round, N; no image is asked twice in a run.",
    )
    first_queries: int | None = Field(
        None,
        ge=1,
        description="Queries in the first round, when the student is still untrained; as in the "
        "other rounds if not given.",
    )
    sources: tuple[str, ...] = Field(
        DEFAULT,
        min_length=1,
        description="Public sources of queries: noise, strokes (pen strokes), silhouettes, glyphs "
        "(characters of many fonts), leaves (textured shapes that hide one another), fractals, "
        "crops (of photographs), networks (generators with random weights), mixed (blends of the "
        "others), diffusion (drawn by a denoiser that learns from the others, once, for minutes), "
        "folder:PATH. With none, queries come from generators alone, as in the published method.",
    )
    cold_start: bool = Field(
        True, description="With --sources none, begin with networks, as a generator alone is stuck."
    )
    public: str | None = Field(
        None,
        description="Public unlabelled images of the domain, a source of queries beside --sources: "
        "FOLDER, PATH.npz, or the name of a data set, of which the training images are taken. The "
        "run publishes them.",
    )
    probe: str | None = Field(
        None,
        description="Public unlabelled images on which the student's agreement with the teacher is "
        "estimated after every round, and which nothing is trained on; given like --public. If "
        "only --public is given, a fifth of its images is held out. none for no probe.",
    )
    probe_images: int = Field(
        2_000,
        ge=2,
        le=100_000,
        description="Images of the probe at most; each is asked once and counts as an answer.",
    )
    until: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Stop asking after two rounds in a row that do not raise agreement on the "
        "probe by this, as in 0.01, and by more than its noise; what is not asked is not spent.",
    )
    value_range: ValueRange | None = Field(
        None,
        description="The stored values that are black and white in the grey images of folder:PATH, "
        "--public and --probe, as in 0,4095, for scans whose files do not say it.",
    )
    adaptive: bool = Field(
        True, description="Adapt the shares of the public sources to what the releases show."
    )
    generator_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of a round's queries that the generator makes, from the second round "
        "on; a larger one helps where the public sources suit the domain.",
    )
    exploration: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of queries that are asked with a flat prior, so that all classes are "
        "candidates. They correct confident mistakes and allow an unbiased estimate of agreement.",
    )
    prior_temperature: float = Field(
        2.5,
        gt=0,
        description="Temperature that flattens the student's prediction when it is the prior.",
    )
    consolidate: bool = Field(
        True, description="In the last round, train on every earlier release once more."
    )
    balance: bool = Field(
        True,
        description="Keep the student from favouring any class, however rare the class was among "
        "the answers, as far as these tell. For the marginal objective only, whose likelihood "
        "accounts for the shares of the classes.",
    )
    objective: Literal["auto", "marginal", "dkd", "shares", "noisy", "noisy-dkd"] = Field(
        "auto",
        description="The student's loss. marginal or dkd for one teacher; shares learns what "
        "share of several teachers votes for each class; noisy and noisy-dkd take answers at face "
        "value, for comparison. auto is marginal for one teacher and shares for several.",
    )
    alpha: float = Field(1.0, ge=0, description="Weight of the target-class term of DKD.")
    beta: float = Field(2.0, ge=0, description="Weight of the non-target-class term of DKD.")
    temperature: float = Field(1.0, gt=0, description="Temperature of DKD.")
    epochs: float = Field(2.0, gt=0, description="Passes over the new releases of a round.")
    first_epochs: float | None = Field(
        None,
        gt=0,
        description="Passes over the releases of the first round; three times --epochs if not "
        "given.",
    )
    replay: float = Field(
        1.0,
        ge=0,
        description="Earlier releases that the student is trained on again, for each new one.",
    )
    student_steps: int | None = Field(
        None,
        ge=1,
        description="Training steps of the student per round, drawn evenly from all releases; "
        "replaces epochs and replay.",
    )
    restarts: int = Field(
        1,
        ge=1,
        description="Students trained on all releases at the end, from different initial weights; "
        "with two or more, the student then learns what they agree on. Costs no privacy.",
    )
    polish_steps: int = Field(
        800,
        ge=1,
        description="Training steps in which the student learns what the restarts agree on, on "
        "unlabelled synthetic images.",
    )
    leave_one_out_steps: int = Field(
        0,
        ge=0,
        description="After the last round, train a new student for so many steps for each of the "
        "--sources, on the answers about the others, and estimate how often it agrees with the "
        "teacher on that one: on images unlike its queries. Costs these steps and no privacy.",
    )
    selection: float = Field(
        3.0,
        ge=1,
        description="Queries synthesised for each query asked, from the second round on; those "
        "that the student is least sure of, or takes for classes that are rare among them, are "
        "asked. If not given, 1 for images above 64x64 pixels or an ε below 3 under response.",
    )
    augment: Augmentation = Field(
        "none",
        description="Augmentation of the queries while the student is trained: none, shift, "
        "shift-flip.",
    )
    batch_size: int = Field(
        256,
        ge=2,
        description="Images in a training step of the student. If not given, batches of images "
        "above 64x64 pixels are smaller, so that a batch has no more pixels.",
    )
    learning_rate: float = Field(5e-3, gt=0, description="Peak learning rate of the student.")
    generator_steps: int = Field(
        120, ge=0, description="Training steps of the generator per round."
    )
    generator_batch_size: int = Field(
        256,
        ge=2,
        description="Images in a training step of the generator. If not given, smaller for large "
        "images, as with --batch-size.",
    )
    generator_learning_rate: float = Field(
        3e-3, gt=0, description="Learning rate of the generator."
    )
    classification_weight: float = Field(
        1.0, ge=0, description="Weight of the generator's loss for images of a clear class."
    )
    balance_weight: float = Field(
        5.0, ge=0, description="Weight of the generator's loss for an even spread over classes."
    )
    activation_weight: float = Field(
        0.1, ge=0, description="Weight of the generator's loss for strong features."
    )
    seed: int = Field(
        0, ge=0, description="Seed of the queries and the training, never of the privacy noise."
    )
    device: str = Field("auto", description="Where models run: auto, cpu, cuda, cuda:1, mps.")
    devices: int = Field(
        1,
        ge=1,
        le=4096,
        description="Processes that share the work, each with a device of its own; the number may "
        "change when a run is resumed.",
    )
    precision: Precision = Field(
        "auto", description="Precision of the models: auto, float32 or bfloat16 (autocast)."
    )

    @classmethod
    def suited_to(cls, teacher: Teacher, **chosen: Any) -> Recipe:
        """Return the recipe for a teacher or an ensemble, with ``chosen`` in place of defaults.

        What depends on a budget is still open; see :meth:`resolved`.
        """
        return cls(**chosen).resolved(images=teacher.input_shape, members=teacher.members)

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        """Refuse a range of values that is none, or that no source has a use for."""
        if self.value_range is None:
            return self
        stated = stated_range(checked_range(self.value_range))
        if not any(map(is_folder_source, self.sources)) and not (self.public or self.has_probe):
            raise ConfigError(
                *(Setting("value_range"), f" is {stated}, but it is about image files, and none "),
                *("of ", Setting("sources"), f" {','.join(self.sources)} is folder:PATH: leave "),
                "it out",
            )
        return self

    def check_until(self) -> None:
        """Refuse to stop by the agreement on a probe that there is not.

        Raises:
            ConfigError: ``until`` is given, and there is no probe.
        """
        is_refused, public = self.probe == NO_PROBE, self.public
        check_until(self.until, has_probe=self.has_probe, is_refused=is_refused, public=public)

    @property
    def has_probe(self) -> bool:
        """Whether a probe is asked: one of its own, or a part of the public images.

        >>> Recipe(public="scans").has_probe, Recipe(public="scans", probe="none").has_probe
        (True, False)
        """
        return self.probe != NO_PROBE and (self.probe or self.public) is not None

    @property
    def stated_sources(self) -> list[str]:
        """All public data of a run, as its ledger and its certificate state them."""
        return [published_name(name) for name in (*self.asked_sources, *self.stated_images)]

    @property
    def asked_sources(self) -> tuple[str, ...]:
        """The sources of a run, with the start that it makes if it has no public data."""
        return begun_with(self.sources, cold_start=self.cold_start and self.public is None)

    @property
    def stated_images(self) -> list[str]:
        """The public images among :attr:`stated_sources`, with whole paths."""
        images = {"public": self.public, "probe": None if self.probe == NO_PROBE else self.probe}
        return [f"{name}:{spec}" for name, spec in images.items() if spec]

    def resolved(
        self, *, members: int = 1, images: Sequence[int] | None = None, budget: Budget | None = None
    ) -> Recipe:
        """Return the recipe with settings that nobody chose fitted to the teacher and the budget.

        Each answer of an ensemble costs privacy, so few queries are asked and the student is
        trained on each many times. Batches of large images are smaller. Under ``round``, each of T
        rounds has about a T-th of ε, and more queries cost none, so one long round was best up to
        an ε of 10 (the largest tried). Under ``response``, rounds cost nothing either. Where single
        answers convey little, more queries are asked.

        Args:
            members: the number of teachers that answer.
            images: the shape of an image, ``(C, H, W)``; if not given, the settings that depend on
                it stay open.
            budget: the privacy target; if not given, the settings that depend on it stay open.

        >>> Recipe().resolved(images=(3, 224, 224)).batch_size
        20
        >>> for budget in ("10,1e-5,round", "1,1e-5,round", "1,1e-5,response"):
        ...     recipe = Recipe().resolved(budget=Budget.parse(budget))
        ...     print(recipe.rounds, recipe.queries)
        1 320000
        1 1200000
        24 30000
        """
        recipe = self._completed(ENSEMBLE_DEFAULTS) if members > 1 else self
        if budget is not None:
            recipe = recipe._completed(recipe._worth(budget))
        pixels = 0 if images is None else images[-2] * images[-1]
        if pixels > _SMALL_IMAGE:
            sizes = {name: max(2, getattr(self, name) * _SMALL_IMAGE // pixels) for name in _SIZED}
            recipe = recipe._completed({"selection": 1.0, **sizes})
        return recipe

    def _completed(self, defaults: Mapping[str, Any]) -> Recipe:
        """Return a copy with other defaults for the settings that are left open."""
        open_ones = {name: defaults[name] for name in defaults.keys() - self.model_fields_set}
        return self.model_copy(update=open_ones)

    def _worth(self, budget: Budget) -> dict[str, Any]:
        """Return rounds and queries for a budget, where neither is chosen."""
        chosen = {"rounds", "queries", "first_queries"} & self.model_fields_set
        if chosen or budget.adjacency is Adjacency.TEACHER:
            return {}
        if budget.adjacency is Adjacency.RESPONSE:
            many = {"rounds": 24, "queries": 30_000, "selection": 1.0}
            return many if budget.epsilon < 3 else {}
        if budget.epsilon < 3:
            return {"rounds": 1, "queries": 1_200_000, "first_epochs": 2.5}
        rounds = min(self.rounds, max(1, math.floor(budget.epsilon / 10)))
        return {"rounds": rounds, "queries": self.rounds * self.queries // rounds}

    def left_open(self, *, budget: Budget | None = None) -> set[str]:
        """The settings that nobody chose and that depend on the size of the images.

        Args:
            budget: a budget with the right adjacency, if its ε is not known yet; settings that
                depend on ε are then open, too.

        >>> sorted(Recipe(batch_size=64).left_open(budget=Budget(epsilon=1.0, adjacency="round")))
        ['first_epochs', 'generator_batch_size', 'queries', 'rounds', 'selection']
        """
        found = {*_SIZED, "selection", *({} if budget is None else self._worth(budget))}
        return found - self.model_fields_set

    def objective_function(self, *, members: int = 1) -> Objective:
        """The student's objective for this number of teachers.

        Raises:
            ConfigError: the objective is for several teachers, and there is one.
        """
        from dpsd.distillation.objectives import DKD, FaceValue, Marginal, VoteShares

        dkd = DKD(alpha=self.alpha, beta=self.beta, temperature=self.temperature)
        if self.objective == "dkd":
            return dkd
        if self.objective in ("noisy", "noisy-dkd"):
            return FaceValue(decoupled=dkd if self.objective == "noisy-dkd" else None)
        if self.objective == "shares" and members == 1:
            raise ConfigError(
                Setting("objective"),
                " 'shares' learns what share of several teachers votes for each class, and there "
                "is only one teacher; use 'marginal' or 'dkd'",
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
        """The passes over a round's new releases; rounds count from 1."""
        return self.first_epochs or 3 * self.epochs if round_index == 1 else self.epochs

    def queries_in(self, round_index: int) -> int:
        """The number of queries that a round asks; rounds count from 1."""
        return self.first_queries or self.queries if round_index == 1 else self.queries

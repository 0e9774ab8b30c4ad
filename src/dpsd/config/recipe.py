"""How a transcription is done, the teacher and the privacy apart.

>>> Recipe(rounds=4).rounds
4
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dpsd.config.base import Settings
from dpsd.devices.names import Precision
from dpsd.errors import ConfigError, Setting
from dpsd.images.names import Augmentation
from dpsd.privacy.targets import Adjacency, Budget

if TYPE_CHECKING:
    from dpsd.distillation.objectives import GeneratorWeights, Objective
    from dpsd.teachers import Teacher

#: Settings that suit images of up to this many pixels; of larger ones, a step sees fewer.
_SIZED = ("batch_size", "generator_batch_size")
_SMALL_IMAGE = 64 * 64


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
        "a run is resumed.",
    )
    precision: Precision = Field("auto", description="auto, float32 or bfloat16 (autocast).")

    @classmethod
    def suited_to(cls, teacher: Teacher, **chosen: Any) -> Recipe:
        """The recipe for one teacher, or for many, with what is ``chosen`` instead of its defaults.

        What a budget decides is still open; see :meth:`resolved`.
        """
        return cls(**chosen).resolved(images=teacher.input_shape, members=teacher.members)

    def resolved(
        self,
        *,
        members: int = 1,
        images: Sequence[int] | None = None,
        budget: Budget | None = None,
    ) -> Recipe:
        """The same with what the teacher and the budget decide, as far as nobody chose it.

        Answers of an ensemble cost privacy each: few are asked, and read often. Batches of large
        images take no more memory than those of 64x64 pixels.

        Under ``round``, each of T rounds has about a T-th of ε, and queries cost none, so that one
        long round was best up to an ε of 10 (the most that was tried). Where single answers tell
        little, more are asked and each is read less often.

        Args:
            members: how many teachers answer.
            images: their shape ``(C, H, W)``; what it decides stays open if it is not given.
            budget: the target; likewise.

        >>> Recipe().resolved(images=(3, 224, 224)).batch_size
        20
        >>> Recipe(batch_size=64).resolved(images=(3, 224, 224)).batch_size
        64
        >>> recipe = Recipe().resolved(budget=Budget(epsilon=10.0, adjacency="round"))
        >>> recipe.rounds, recipe.queries
        (1, 320000)
        >>> recipe = Recipe().resolved(budget=Budget(epsilon=1.0, adjacency="round"))
        >>> recipe.rounds, recipe.queries, recipe.first_epochs
        (1, 1200000, 2.5)
        """
        recipe = self._completed(ENSEMBLE_DEFAULTS) if members > 1 else self
        if budget is not None:
            recipe = recipe._completed(recipe._worth(budget))
        pixels = 0 if images is None else images[-2] * images[-1]
        if pixels > _SMALL_IMAGE:
            sizes = {name: getattr(self, name) * _SMALL_IMAGE // pixels for name in _SIZED}
            recipe = recipe._completed({name: max(2, size) for name, size in sizes.items()})
        return recipe

    def _completed(self, defaults: Mapping[str, Any]) -> Recipe:
        """The same with other defaults for what is left open."""
        open_ones = {name: defaults[name] for name in defaults.keys() - self.model_fields_set}
        return self.model_copy(update=open_ones)

    def _worth(self, budget: Budget) -> dict[str, Any]:
        """How a budget that rounds share is spent, where neither rounds nor queries are chosen."""
        chosen = {"rounds", "queries", "first_queries"} & self.model_fields_set
        if chosen or budget.adjacency is not Adjacency.ROUND:
            return {}
        if budget.epsilon < 3:
            return {"rounds": 1, "queries": 1_200_000, "first_epochs": 2.5}
        rounds = min(self.rounds, max(1, math.floor(budget.epsilon / 10)))
        return {"rounds": rounds, "queries": self.rounds * self.queries // rounds}

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

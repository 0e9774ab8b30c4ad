"""The privacy target of a run, and the mechanism that meets it.

>>> PrivacySettings(epsilon=1.0).mechanism().protects
'labels'
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from dpsd.config.base import Settings
from dpsd.errors import ConfigError, Setting
from dpsd.privacy.parameters import Candidates, Scaling, check_candidates, check_scaling
from dpsd.privacy.targets import Adjacency, Budget

if TYPE_CHECKING:
    from dpsd.privacy.mechanisms import Mechanism, NoisyVotes

#: Settings that only some mechanisms have.
_OF_CLASSES = ("candidates",)
OF_GRADIENTS = ("top_k", "bound", "scaling", "harden", "widen")
_OF_VOTES = ("consensus", "consensus_noise", "consensus_answered")


class PrivacySettings(Settings):
    """The privacy target and the mechanism. Every field is also a command-line flag."""

    protect: Literal["labels", "data"] = Field(
        "labels",
        description="labels: randomised response on the teacher's class. data: Gaussian noise on "
        "normalised output gradients. For an ensemble, a noisy sum: of votes for labels, of "
        "gradients for data.",
    )
    epsilon: float = Field(description="Privacy target ε, under the adjacency and at delta.")
    delta: float = Field(1e-5, description="Privacy target δ.")
    adjacency: Adjacency = Field(
        Adjacency.ROUND,
        description="What ε protects: the answer about one image in the whole run (response), "
        "about one image in every round (round), or the whole teacher (teacher).",
    )
    candidates: Candidates = Field(
        "per-query",
        description="The classes that randomised response chooses from, or how many there are.",
    )
    top_k: int | None = Field(
        None,
        ge=2,
        description="Gradient coordinates to release, those likeliest under the prior; all if "
        "not given.",
    )
    bound: float = Field(
        1.0, gt=0, description="C: two answers are at most 2 C apart, and noise is in its units."
    )
    scaling: Scaling = Field(
        Scaling.NORMALIZE,
        description="How gradients are brought to norm C; none leaves the gradients of hardened "
        "answers as they are.",
    )
    harden: bool = Field(
        True, description="Answer with the teacher's class instead of its probabilities."
    )
    widen: bool = Field(
        True,
        description="Lengthen the gradients of hardened answers until two classes are 2 C apart; "
        "the published mechanism does not, and conveys less at the same ε.",
    )
    consensus: float | None = Field(
        None,
        gt=0,
        le=1,
        description="For an ensemble, the share of teachers that must appear to agree, in a "
        "private test, before an answer is paid for (Confident-GNMax). If not given, every "
        "answer is paid for.",
    )
    consensus_noise: float = Field(
        2.0,
        gt=0,
        le=10,
        description="Noise of the consensus test, in units of the noise on votes.",
    )
    consensus_answered: float = Field(
        0.5,
        gt=0,
        le=1,
        description="The largest share of queries that is answered after the consensus test.",
    )
    cap: str | None = Field(
        None,
        description="The most, as EPSILON,DELTA,ADJACENCY, that all runs of this teacher together "
        "may spend; with several teachers it applies to each of them. A run that would exceed it "
        "is refused before it asks anything. This cap applies to this run; dpsd budget --cap sets "
        "one for all runs.",
    )
    budget_file: str | None = Field(
        None,
        description="A second file for the teacher's budget, in addition to the usual one beside "
        "the teacher, whose cap still applies.",
    )
    count_earlier: bool = Field(
        False,
        description="Set this if the teacher's file was changed or replaced: what the budget "
        "beside it records of the earlier file counts for this teacher from now on.",
    )
    reproducible_noise: int | None = Field(
        None,
        ge=0,
        description="NOT PRIVATE. A seed for the privacy noise, for tests and benchmarks only.",
    )

    @model_validator(mode="after")
    def _check_privacy(self) -> PrivacySettings:
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

    def require_effect(self, *, members: int | None = None) -> None:
        """Refuse settings that would have no effect in a run that is about to begin.

        Args:
            members: the number of teachers, if it is known.

        Raises:
            ConfigError: a setting without effect is not at its default.
        """
        protect, consensus = Setting("protect"), Setting("consensus")
        if self.protect == "labels":
            self._refuse(OF_GRADIENTS, "shapes gradients, and ", protect, " 'labels' releases none")
        else:
            self._refuse(
                _OF_CLASSES, "is about classes, and ", protect, " 'data' releases gradients"
            )
        if self.consensus is None:
            self._refuse(_OF_VOTES, "configures a test that only runs with ", consensus)
        if members == 1:
            self._refuse(
                _OF_VOTES, "configures a test among several teachers, and there is only one"
            )
        elif members is not None:
            names = (*_OF_CLASSES, *OF_GRADIENTS)
            self._refuse(
                names, f"applies to a single teacher, and the answers of {members} are summed"
            )

    def require_votes(self) -> None:
        """Refuse settings that have no effect where a trusted server adds up votes.

        Raises:
            ConfigError: a setting without effect is not at its default.
        """
        names = ("protect", *_OF_CLASSES, *OF_GRADIENTS)
        self._refuse(names, "has no effect where a trusted aggregator adds up votes")

    def _refuse(self, names: Collection[str], *reason: str) -> None:
        for name in names:
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                said = value.value if isinstance(value, Enum) else value
                raise ConfigError(
                    *(Setting(name), f" is {said!r}, but it ", *reason),
                    ": leave it out, and remove it from any --config file",
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
        """The cap on what all runs of the teacher together may spend."""
        return Budget.of_cap(self.cap)

    def mechanism(self, *, members: int = 1, sharing: int | None = None) -> Mechanism:
        """The mechanism for this number of teachers, not yet calibrated.

        Args:
            members: the number of teachers.
            sharing: for a client of a federation whose server is trusted to add up: the fewest
                clients that share the noise.
        """
        from dpsd.privacy.mechanisms import (
            Gaussian,
            RandomizedResponse,
            SharedNoiseVotes,
            SummedGradients,
        )
        from dpsd.privacy.randomness import ReproducibleNoise

        mechanism: Mechanism
        if sharing is not None:
            self.require_votes()
            mechanism = SharedNoiseVotes(clients=sharing)
        elif members > 1:
            mechanism = SummedGradients() if self.protect == "data" else self._votes()
        elif self.protect == "labels":
            mechanism = RandomizedResponse(candidates=self.candidates)
        else:
            mechanism = Gaussian(**{name: getattr(self, name) for name in OF_GRADIENTS})
        if self.reproducible_noise is not None:
            mechanism = mechanism.with_noise(ReproducibleNoise(seed=self.reproducible_noise))
        return mechanism

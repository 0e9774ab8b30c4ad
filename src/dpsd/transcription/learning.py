"""Learning: the student is trained on all releases, and the generator on the student."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from dpsd.config.recipe import Recipe
from dpsd.devices.execution import Execution
from dpsd.distillation.generator import GeneratorTraining, fit_generator
from dpsd.distillation.leaving_out import LeftOut, leave_out
from dpsd.distillation.objectives import Marginal, Objective
from dpsd.distillation.polish import agreed, fit_to_agreed, restarted
from dpsd.distillation.releases import Replay, RoundReleases
from dpsd.distillation.student import StudentTraining, fit_student
from dpsd.errors import RunError, Setting
from dpsd.privacy.mechanisms import Channel
from dpsd.runs.observing import Phases
from dpsd.streams import stream, stream_seed
from dpsd.synthesis.names import plain_sources
from dpsd.synthesis.queries import Spool
from dpsd.transcription.querying import Querying

#: The number of synthetic images on which the student learns what several students agree on.
_UNLABELLED = 30_000


@dataclass(kw_only=True)
class Learning:
    """Trains the student and the generator, and keeps the releases to train on.

    Args:
        recipe: the settings of the training.
        student: the student, which learns from releases.
        generator: the generator, which learns from the student.
        members: the number of teachers that answer.
        execution: the device and precision that both run in.
        phases: report the progress of each phase.
    """

    recipe: Recipe
    student: nn.Module
    generator: nn.Module
    members: int
    execution: Execution
    phases: Phases
    _replay: Replay = field(default_factory=Replay)
    _untaught: nn.Module | None = None

    @property
    def objective(self) -> Objective:
        """The objective that the student is trained with."""
        return self.recipe.objective_function(members=self.members)

    def remember(
        self, releases: RoundReleases, *, label_shares: Sequence[float], clarity: float
    ) -> None:
        """Add a round's releases to those that the student is trained on.

        Args:
            releases: the releases of the round.
            label_shares: the estimated share of each class among its answers.
            clarity: how much a release says of the answer, from 0, nothing, to 1, the class itself.
        """
        shares = label_shares if self._is_balanced else None
        self._replay.append(releases, shares=shares, worth=clarity * len(releases))

    def forget(self) -> None:
        """Forget all releases, to remember them with what is known of them now."""
        self._replay = Replay()

    @property
    def _is_balanced(self) -> bool:
        # The targets of the other objectives are not likelihoods. Their classes differ only by as
        # much as the noise leaves, and an adjustment by the shares would swamp that difference.
        return self.recipe.balance and isinstance(self.objective, Marginal)

    def keep_untaught(self) -> None:
        """Keep a copy of the student as it begins, if other students are to begin like it."""
        if self.recipe.leave_one_out_steps:
            self._untaught = copy.deepcopy(self.student).cpu()

    def teach_student(
        self, round_index: int, *, mechanism: Channel, is_last: bool = False
    ) -> float:
        """Train the student on the new releases and again on earlier ones.

        Args:
            round_index: the number of the round.
            mechanism: the mechanism, which defines the likelihood of the releases.
            is_last: whether the student is trained for the last time, and thus consolidated.

        Returns:
            The mean loss of the student.

        Raises:
            RunError: training diverged.
        """
        return self._taught(self.student, round_index, mechanism, is_last=is_last)

    def polish(
        self, round_index: int, *, mechanism: Channel, querying: Querying, spool: Spool
    ) -> None:
        """Train the student on what several students agree on, on images no teacher is asked about.

        Args:
            round_index: the number of the last round.
            mechanism: the mechanism, which defines the likelihood of the releases.
            querying: makes the synthetic images.
            spool: stores the images meanwhile.
        """
        recipe = self.recipe
        students = [self.student]
        for attempt in range(1, recipe.restarts):
            seed = stream_seed(recipe.seed, attempt, "restart")
            students.append(self.execution.place(restarted(self.student, seed=seed)))
            self._taught(students[-1], round_index, mechanism, is_last=True, attempt=attempt)
        random = stream(recipe.seed, round_index, "polish")
        share = recipe.generator_share if round_index > 1 else 0.0  # untrained in the first round
        steps = recipe.polish_steps
        with self.phases("polish", total=steps, round_index=round_index) as advance:
            for images, _ in querying.images(_UNLABELLED, generator_share=share, random=random):
                spool.append(images)
            fit_to_agreed(
                self.student,
                spool,
                agreed(students, spool, self.execution),
                steps=steps,
                batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                augment=recipe.augment,
                execution=self.execution,
                random=random,
                advance=lambda: advance(1),
            )

    def leave_out(self, round_index: int, *, mechanism: Channel, names: Sequence[str]) -> LeftOut:
        """Estimate how students agree with the teacher on sources that they were not taught on.

        Args:
            round_index: the number of the last round.
            mechanism: the mechanism, which defines the likelihood of the releases.
            names: the names of the sources, in the order of their numbers.
        """
        recipe, untaught = self.recipe, self._untaught
        assert untaught is not None  # as it was kept when the run began
        # The same for all, so that students differ only in what they are taught.
        seed = stream_seed(recipe.seed, round_index, "student of other sources")
        steps = recipe.leave_one_out_steps
        total = steps * len(plain_sources(names))
        with self.phases("leaving out", total=total, round_index=round_index) as advance:
            return leave_out(
                self._replay,
                names=names,
                mechanism=mechanism,
                objective=self.objective,
                training=StudentTraining(
                    steps=steps,
                    batch_size=recipe.batch_size,
                    learning_rate=recipe.learning_rate,
                    augment=recipe.augment,
                ),
                fresh=lambda: self.execution.place(restarted(untaught, seed=seed)),
                is_balanced=self._is_balanced,
                execution=self.execution,
                random=stream(recipe.seed, round_index, "leaving out"),
                advance=lambda: advance(1),
            )

    def teach_generator(self, round_index: int) -> float | None:
        """Train the generator on the student.

        Returns:
            The mean loss of the generator; ``None`` if it is not trained, or in any process but
            the first.
        """
        training = GeneratorTraining(
            steps=self.recipe.generator_steps,
            batch_size=self.recipe.generator_batch_size,
            learning_rate=self.recipe.generator_learning_rate,
            weights=self.recipe.generator_weights(),
        )
        if training.steps == 0:
            return None
        loss = None
        processes = self.execution.processes
        # One process trains it, as its loss and its BatchNorm depend on the whole batch together.
        if processes.leads:
            with self.phases("generator", total=training.steps, round_index=round_index) as advance:
                loss = fit_generator(
                    self.generator,
                    self.student,
                    training=training,
                    execution=self.execution,
                    random=stream(self.recipe.seed, round_index, "generator"),
                    advance=lambda: advance(1),
                )
        processes.copy(self.generator)
        return loss

    def _taught(
        self,
        student: nn.Module,
        round_index: int,
        mechanism: Channel,
        *,
        is_last: bool,
        attempt: int = 0,
    ) -> float:
        recipe = self.recipe
        training = StudentTraining(
            epochs=recipe.epochs_in(round_index),
            # Earlier releases that are read again for each new one; all of them at the end.
            replay=math.inf if recipe.consolidate and is_last else recipe.replay,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            steps=recipe.student_steps,
            augment=recipe.augment,
        )
        random = stream(recipe.seed, round_index, f"student{attempt or ''}")
        rows = training.rows(self._replay, random)
        steps = math.ceil(len(rows) / training.batch_size)
        with self.phases("student", total=steps, round_index=round_index) as advance:
            loss = fit_student(
                student,
                self._replay,
                mechanism=mechanism,
                objective=self.objective,
                training=training,
                execution=self.execution,
                rows=rows,
                random=random,
                advance=lambda: advance(1),
            )
        if not math.isfinite(loss):
            raise RunError(
                f"round {round_index}: training the student diverged (loss {loss}); start a new "
                "run with a ",
                *(Setting("learning_rate"), f" below {recipe.learning_rate:g}"),
            )
        return loss

"""Transcription: a teacher's answers, privatised, become a student (DPSD's Algorithm 1).

    for each round:
        synthesise queries
        the teacher answers each image once, and a mechanism privatises every answer
        the student learns from the new releases, and from earlier ones again
        the generator learns from the student

Everything downstream of the mechanism is post-processing and costs no privacy.

>>> import dpsd, tempfile, torch
>>> def bright(images):  # a "teacher" of two classes
...     light = images.mean((1, 2, 3))
...     return torch.stack([0.2 - light, light - 0.2], dim=1) * 20
>>> teacher = dpsd.load_teacher(bright, input_shape=(1, 8, 8), num_classes=2, scores="logits")
>>> budget = dpsd.Budget(epsilon=2.0, adjacency="response")
>>> with tempfile.TemporaryDirectory() as out:
...     run = dpsd.transcribe(teacher, mechanism=dpsd.RandomizedResponse(), budget=budget,
...                           out=out, recipe=dpsd.Recipe(rounds=2, queries=256, generator_steps=2))
>>> run.certificate.events
{'response': 1, 'round': 2, 'teacher': 512}
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch

from dpsd.devices.execution import Execution
from dpsd.devices.memory import peak_memory_mb
from dpsd.devices.processes import Processes
from dpsd.distillation.likeness import likeness
from dpsd.distillation.probe import Probe
from dpsd.distillation.quality import RoundQuality, assess
from dpsd.distillation.releases import RoundReleases
from dpsd.errors import RunError
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.targets import Budget
from dpsd.runs.directory import Run, RunDirectory
from dpsd.runs.models import Progress, load_checkpoint, save_checkpoint
from dpsd.runs.observing import Observer, Phases
from dpsd.runs.pictures import save_samples
from dpsd.storage.locks import Hold, exclusively
from dpsd.synthesis.mixture import Mixture
from dpsd.transcription.admission import admit
from dpsd.transcription.asking import Asking, TeacherAsking
from dpsd.transcription.choosing import Choice
from dpsd.transcription.learning import Learning
from dpsd.transcription.plan import Plan
from dpsd.transcription.querying import Querying
from dpsd.transcription.rehearsal import rehearse
from dpsd.transcription.telling import round_metrics, round_warnings


class Transcription:
    """A run in execution.

    Args:
        plan: the plan of the run.
        directory: the run directory, where everything is written.
        execution: the device and precision of models, and the processes that share the work.
        account: the accounts that the run is charged to; ``None`` if nothing identifies the
            teachers.
        allowance: a cap that was given on resuming, up to which the run may exceed its target.
        observer: is notified of progress and warnings.
    """

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        *,
        execution: Execution,
        observer: Observer,
        account: Accounts | None = None,
        allowance: Budget | None = None,
    ) -> None:
        self.plan, self.directory, self.observer = plan, directory, observer
        self.processes: Processes = execution.processes
        self.mechanism = plan.mechanism
        self._account, self._allowance = account, allowance
        self._holds: list[Hold] = []
        student, generator = plan.models(execution)
        phases = Phases(observer)
        shared: dict[str, Any] = {
            "student": student,
            "generator": generator,
            "execution": execution,
            "phases": phases,
        }
        self.querying = Querying.of(
            plan.recipe,
            plan.public,
            shape=plan.teacher.input_shape,
            num_classes=plan.teacher.num_classes,
            **shared,
        )
        self.choice: Choice | None = None
        self.learning = Learning(recipe=plan.recipe, members=plan.teacher.members, **shared)
        self.asking: Asking = TeacherAsking(
            teacher=plan.teacher,
            directory=directory,
            account=account,
            execution=execution,
            phases=phases,
            holds=self._holds,
        )

    def rehearse(self) -> None:
        """Do on public noise, once, what the run will do.

        Raises:
            ConfigError: something failed, before anything was written or spent.
        """
        learning = self.learning
        student, generator = learning.student, learning.generator
        for warning in rehearse(
            self.plan, learning.execution, student=student, generator=generator
        ):
            self.observer.warn(warning)

    def run(self) -> Run:
        """Execute all remaining rounds, then certify; locks keep other processes out meanwhile."""
        with ExitStack() as stack:
            if self.processes.leads:
                budgets = self._account.paths if self._account else []
                locks = (self.directory.held(), *map(exclusively, budgets))
                self._holds[:] = [stack.enter_context(held) for held in locks]
                stack.enter_context(self.processes)  # the others have joined already; see follow
            return self._run()

    def _run(self) -> Run:
        self.plan.agree(self.processes)
        self.learning.keep_untaught()
        finished, rounds = self._restored(), self.plan.recipe.rounds
        is_over = self._is_over()
        if self.processes.leads:
            self.directory.remove_unfinished()
            admit(
                self.plan,
                self.directory,
                account=self._account,
                allowance=self._allowance,
                observer=self.observer,
                is_over=is_over,
            )
            if finished < rounds and not is_over:
                self.querying.prepare(finished + 1)
        while finished < rounds and not is_over:
            finished += 1
            self.play(finished)
            is_over = self._is_over()
        if finished < rounds:
            self._close(finished)
        certificate = self._concluded(finished)
        return Run(
            directory=self.directory,
            student=self.learning.student.eval(),
            generator=self.learning.generator,
            certificate=certificate,
            metrics=self.directory.metrics(),
        )

    def play(self, round_index: int) -> None:
        """Execute one round of Algorithm 1."""
        start = time.perf_counter()
        releases = self.released(round_index)
        quality = self.remember(releases)
        is_last = round_index == self.plan.recipe.rounds
        names = self.querying.source_names
        for warning in round_warnings(releases, quality, names=names, is_last=is_last):
            self.observer.warn(warning)
        student_loss = self._taught(round_index, is_last=is_last)
        generator_loss = self.learning.teach_generator(round_index)
        self.querying.follow(quality, likeness=self._likeness(releases))
        if self.processes.leads:
            losses = {"student_loss": student_loss, "generator_loss": generator_loss}
            metrics = round_metrics(releases, quality, losses, names=names)
            metrics |= self._probed(round_index)
            # Only the whole round's time, in whole seconds: finer times could reveal a teacher, or
            # one member of an ensemble, whose computing time depends on the image.
            metrics["seconds"] = round(time.perf_counter() - start)
            metrics["peak_memory_mb"] = peak_memory_mb(self.learning.execution.device)
            self._write(metrics)
            self.observer.round_finished(metrics)

    def _taught(self, round_index: int, *, is_last: bool) -> float:
        """Train the student, to its end if it is trained for the last time; returns its loss."""
        loss = self.learning.teach_student(round_index, mechanism=self.mechanism, is_last=is_last)
        if is_last and self.plan.recipe.restarts > 1:
            self._polish(round_index)
        return loss

    def _is_over(self) -> bool:
        """Whether the run stops before its last round, which process 0 decides by the probe."""
        if self.plan.recipe.until is None:
            return False
        # Other processes have no choice, and add nothing.
        is_over = self.choice is not None and self.choice.is_over
        return bool(self.processes.combine(torch.tensor(float(is_over))))

    def _close(self, round_index: int) -> None:
        """Train the student of a run that stops early once more, as its last round would have."""
        is_closed = self.choice is not None and self.choice.is_closed
        if self.processes.combine(torch.tensor(float(is_closed))):
            return
        self.observer.notice(
            f"round {round_index}: neither of the last two rounds raised agreement on the probe by "
            f"{self.plan.recipe.until:g} and by more than its noise, so nothing more is asked or "
            "spent"
        )
        self._taught(round_index, is_last=True)
        if self.choice is not None:
            self.choice.close()
            self._save(round_index)

    def _probed(self, round_index: int) -> dict[str, Any]:
        """How the student does on the probe after a round, as metrics; empty without a probe."""
        if self.choice is None:
            return {}
        quality = self.choice.consider(self.learning.student, round_index)
        for warning in self.choice.warnings(
            quality, round_index, names=self.plan.teacher.class_names
        ):
            self.observer.warn(warning)
        return {"probe": asdict(quality)}

    def _likeness(self, releases: RoundReleases) -> list[float] | None:
        """How much each source's images look like those of the probe, if shares follow it."""
        sources = len(self.querying.sources.sources)
        if self.choice is None or not sources or not self.plan.recipe.adaptive:
            return None
        return likeness(
            self.learning.student,
            releases,
            self.choice.probe.releases,
            sources=sources,
            execution=self.learning.execution,
        )

    def released(self, round_index: int) -> RoundReleases:
        """Return the releases of a round, asking for them if there are none yet."""
        if not self.processes.leads:
            self.asking.join(round_index, mechanism=self.mechanism)
            return self._seen(round_index)
        releases = self.directory.stored_releases(round_index)
        if releases is not None:
            self.asking.skip()
            return releases
        with self.directory.spool(self.plan.teacher.input_shape) as spool:
            queries = self.querying.synthesise(round_index, spool, mechanism=self.mechanism)
            answered, release = self.asking.ask(round_index, queries, mechanism=self.mechanism)
            releases = self.directory.store_releases(
                round_index, answered, release, asked=queries.digest
            )
        self.asking.end()
        return releases

    def remember(self, releases: RoundReleases) -> RoundQuality:
        """Add a round's releases to those to learn from, and assess them."""
        if self.processes.leads:  # only process 0 makes queries
            self.querying.never_again(releases)
        self.mechanism = self.mechanism.informed(releases.release, releases.prior)
        quality = assess(releases, self.mechanism)
        self.learning.remember(releases, label_shares=quality.label_shares, clarity=quality.clarity)
        self.querying.guide(quality)
        if self.processes.leads and releases.probe is not None:
            probe = Probe(releases.probe, self.plan.mechanism)
            self.choice = Choice(probe, self.learning.execution, until=self.plan.recipe.until)
        return quality

    def _restored(self) -> int:
        """Restore the state after the finished rounds, and return their number."""
        progress = load_checkpoint(
            self.directory, student=self.learning.student, generator=self.learning.generator
        )
        if progress.shares is not None:
            self.querying.sources = Mixture(self.querying.sources.sources, progress.shares)
        for round_index in range(1, progress.round_index + 1):
            stored = self.directory.stored_releases(round_index, may_commit=self.processes.leads)
            if stored is None:
                raise RunError(f"{self.directory.releases_path(round_index)} is missing")
            self.remember(stored)
        if self.choice is not None:
            self.choice.restore(progress.choice, progress.best)
        return progress.round_index

    def _seen(self, round_index: int) -> RoundReleases:
        """Return the releases of a round that process 0 stored."""
        releases = self.directory.stored_releases(round_index, may_commit=False)
        if releases is None:
            raise RunError(
                f"{self.directory.releases_path(round_index)} cannot be seen by process "
                f"{self.processes.rank}: all processes need the run on a file system they share"
            )
        return releases

    def _polish(self, round_index: int) -> None:
        with self.directory.spool(self.plan.teacher.input_shape) as spool:
            self.learning.polish(
                round_index, mechanism=self.mechanism, querying=self.querying, spool=spool
            )

    def _leave_out(self, round_index: int) -> None:
        """Add to the metrics of the last round how students do on sources that they never saw."""
        # Process 0 decides: a run that is resumed once more when it is finished has them already.
        is_done = self.processes.leads and "left_out" in self.directory.metrics()[-1]
        if self.processes.combine(torch.tensor(float(is_done))):
            return
        found = self.learning.leave_out(
            round_index, mechanism=self.mechanism, names=self.querying.source_names
        )
        if self.processes.leads:
            last = self.directory.metrics()[-1]
            self.directory.append_metrics(last | {"left_out": asdict(found)})

    def _write(self, metrics: dict[str, Any]) -> None:
        """Write the results of a round: metrics, sample images and the checkpoint."""
        round_index = int(metrics["round"])
        self.directory.append_metrics(metrics)
        save_samples(self.directory, round_index, self.querying.samples())
        # Written last: once the checkpoint exists, a resumed run does not repeat this round.
        self._save(round_index)

    def _save(self, round_index: int) -> None:
        """Write the checkpoint."""
        choice, best = ({}, {}) if self.choice is None else self.choice.state()
        shares = self.querying.sources.shares
        save_checkpoint(
            self.directory,
            Progress(round_index=round_index, shares=shares, choice=choice, best=best),
            student=self.learning.student,
            generator=self.learning.generator,
        )

    def _concluded(self, round_index: int) -> Certificate:
        """Settle for a student, and write the models and the certificate."""
        student, generator = self.learning.student, self.learning.generator
        if self.plan.recipe.leave_one_out_steps:
            self._leave_out(round_index)
        facts: dict[str, int] = {}
        if self.choice is not None:
            facts["chosen_round"], quality = self.choice.settle(student, round_index)
            last = self.directory.metrics()[-1]
            self.directory.append_metrics(last | {"final_probe": asdict(quality)})
        if self.plan.recipe.has_probe:
            self.processes.copy(student)
        if not self.processes.leads:
            self.processes.barrier()
            return self.directory.certify()
        if round_index < self.plan.recipe.rounds:
            facts["rounds"] = round_index
        certificate = self.directory.finish(student=student, generator=generator, **facts)
        self.observer.run_finished(self.directory.metrics(), certificate)
        self.processes.barrier()
        return certificate

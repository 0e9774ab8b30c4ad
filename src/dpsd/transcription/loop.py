"""Transcription: a teacher's answers, privatised, become a student (DPSD's Algorithm 1).

    for each round:
        synthesise queries
        the teacher answers each image once, and a mechanism privatises every answer
        the student learns from the new releases, and from earlier ones again
        the generator learns from the student

Everything downstream of the mechanism is post-processing and costs no privacy.

>>> import dpsd, tempfile
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

import json
import math
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from dpsd.config.transcription import Recipe
from dpsd.devices.execution import Execution, inference_batch
from dpsd.devices.processes import Processes
from dpsd.distillation.generator import (
    GeneratorTraining,
    fit_generator,
    image_batches,
    sample_images,
)
from dpsd.distillation.objectives import Marginal
from dpsd.distillation.polish import agreed, fit_to_agreed, restarted
from dpsd.distillation.quality import RoundQuality, assess, collapse_warning, noise_warning
from dpsd.distillation.releases import Replay, RoundReleases
from dpsd.distillation.student import StudentTraining, fit_student
from dpsd.errors import BudgetError, RunError, Setting
from dpsd.privacy.accounting import Spending, format_epsilon, spent_together
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.records.ledger import reservation
from dpsd.privacy.targets import Budget, Exposure
from dpsd.runs.directory import Run, RunDirectory
from dpsd.runs.models import load_checkpoint, save_checkpoint
from dpsd.runs.observing import Observer
from dpsd.runs.pictures import save_samples
from dpsd.runs.reconciliation import complete_budgets, complete_ledger
from dpsd.storage.locks import Hold, exclusively
from dpsd.streams import stream, stream_seed
from dpsd.synthesis.distinct import AskedImages, image_digests
from dpsd.synthesis.mixture import Mixture
from dpsd.synthesis.queries import Queries, Spool, doubtful, flat_prior, scarcity
from dpsd.teachers import Teacher

#: How many times as many queries are synthesised as wanted before a round makes do with fewer.
_PATIENCE = 4

#: Synthetic images on which the student learns what several agree on.
_UNLABELLED = 30_000

#: How many of the generator's images are kept from each round, to look at.
_SAMPLES = 16


@dataclass(kw_only=True)
class Transcription:
    """The players and the parts of a run.

    :func:`dpsd.transcribe` puts one together; :meth:`run` plays it.
    """

    teacher: Teacher
    student: nn.Module
    generator: nn.Module
    mechanism: Mechanism
    sources: Mixture
    recipe: Recipe
    execution: Execution
    directory: RunDirectory
    budget: Accounts | None
    observer: Observer
    allowance: Budget | None = None
    replay: Replay = field(default_factory=Replay)
    asked: AskedImages = field(default_factory=AskedImages)
    holds: list[Hold] = field(default_factory=list)

    @property
    def processes(self) -> Processes:
        """Who plays the run together; process 0 alone writes."""
        return self.execution.processes

    def run(self) -> Run:
        """All rounds that are left, then the certificate; no other process may do so meanwhile."""
        with ExitStack() as stack:
            if self.processes.leads:
                ledger, budgets = self.directory.held(), self.budget.paths if self.budget else []
                self.holds = [
                    stack.enter_context(held) for held in (ledger, *map(exclusively, budgets))
                ]
                stack.enter_context(self.processes)  # the others have joined before: see follow
            return self._run()

    def _run(self) -> Run:
        self._agree()
        if self.processes.leads:
            self.directory.remove_unfinished()
            self._admit()
        finished, shares = load_checkpoint(
            self.directory, student=self.student, generator=self.generator
        )
        if shares is not None:
            self.sources = Mixture(self.sources.sources, shares)
        for round_index in range(1, finished + 1):
            stored = self.directory.stored_releases(round_index, may_commit=self.processes.leads)
            if stored is None:
                raise RunError(f"{self.directory.releases_path(round_index)} is missing")
            self.remember(stored)
        for round_index in range(finished + 1, self.recipe.rounds + 1):
            self.play(round_index)
        certificate = self._concluded()
        return Run(
            directory=self.directory,
            student=self.student.eval(),
            generator=self.generator,
            certificate=certificate,
            metrics=self.directory.metrics(),
        )

    def _agree(self) -> None:
        """Refuse processes that do not play the same run; what one alone costs would be another."""
        mechanism = self.mechanism
        described = [type(mechanism).__qualname__, mechanism.parameters()]
        self.processes.agree("mechanism", json.dumps(described))
        self.processes.agree("noise", mechanism.noise.description)
        recipe = self.recipe.model_dump(mode="json", exclude={"device", "devices"})
        self.processes.agree("recipe", json.dumps(recipe))
        self.processes.barrier()  # where one refused, all stop, before anything is written

    def _concluded(self) -> Certificate:
        if not self.processes.leads:
            self.processes.barrier()
            return self.directory.certify()
        certificate = self.directory.finish(student=self.student, generator=self.generator)
        self.processes.barrier()
        return certificate

    def _admit(self) -> None:
        """Ask for leave to spend what is left of the run, and say in the ledger what it is."""
        left = [
            (index, self.recipe.queries_in(index))
            for index in range(1, self.recipe.rounds + 1)
            if not self.directory.releases_path(index).exists()
        ]
        if self.budget is not None:
            complete_budgets(self.directory, self.budget)
        if left:
            self._refuse_to_overspend(left)
            if self.budget is not None:
                self.budget.admit(
                    run=self.directory.identity,
                    mechanism=self.mechanism,
                    planned=left,
                    delta=self.directory.config().delta,
                    cap=self.allowance or self.directory.config().limit(),
                )
        delta = self.directory.config().delta
        self.directory.open_ledger(
            earlier=None if self.budget is None else self.budget.history(delta=delta)
        )
        if self.budget is not None:
            complete_ledger(
                self.directory, self.budget, mechanism=self.mechanism, teacher=self.teacher
            )

    def _refuse_to_overspend(self, left: list[tuple[int, int]]) -> None:
        """Answers that were paid for and lost may push a run over what it was calibrated to."""
        recorded = self.directory.reservations()
        if self.budget is not None:
            recorded = self.budget.asked(self.directory.identity)  # all that, or more
        asked = [(entry["round"], entry["answers"]) for entry in recorded]
        if not asked:
            return
        target = self.allowance or self.directory.config().budget()
        whole = Spending(
            event=self.mechanism.event(),
            mean_event=self.mechanism.mean_event(),
            exposure=Exposure.of_asked([*asked, *left]),
        )
        needed = spent_together([whole], delta=target.delta).under(target.adjacency)
        if target.is_exceeded_by(needed):
            path, kind = self.directory.path, target.adjacency.value
            is_short = len(asked) > len(self.directory.reservations())
            copy = ", or asked by a copy of it" if is_short else ""
            limit = "cap" if self.allowance else "target"
            # A cap is about all runs of the teacher, so what allows this one must allow for others.
            total = needed
            if self.budget is not None:
                total = self.budget.needed(
                    self.directory.identity, mechanism=self.mechanism, planned=left, limit=target
                )
            allowing = f"{math.ceil(max(needed, total) * 1e4) / 1e4!r},{target.delta:g},{kind}"
            raise BudgetError(
                f"{path}: answers were paid for and lost in an interruption{copy}; asked again, "
                f"the run would spend ε = {format_epsilon(needed)} under {kind!r} at δ = "
                f"{target.delta:g}, above its {limit} {target.epsilon:g}. To allow that: dpsd "
                f"transcribe --resume {path} --cap {allowing}. Or leave the run as it is: dpsd "
                f"evaluate {path} and dpsd export {path} take the student of its last round"
            )

    def play(self, round_index: int) -> None:
        """One round of Algorithm 1."""
        start = time.perf_counter()
        releases = self.released(round_index) if self.processes.leads else self.help(round_index)
        quality = self.remember(releases)
        if warning := collapse_warning(quality, round_index=round_index):
            self.observer.warn(warning)
        is_last = round_index == self.recipe.rounds
        if is_last and (warning := noise_warning(quality, round_index=round_index)):
            self.observer.warn(warning)
        student_loss = self.teach_student(self.student, round_index)
        if is_last and self.recipe.restarts > 1:
            self.polish(round_index)
        generator_loss = self.teach_generator(round_index)
        if self.recipe.adaptive:
            self.sources = self.sources.adapted(quality.surprise, quality.spread)
        if not self.processes.leads:
            return
        metrics = self._metrics(
            releases,
            quality,
            student_loss,
            generator_loss,
            seconds=time.perf_counter() - start,
        )
        self.directory.append_metrics(metrics)
        save_samples(self.directory, round_index, self._samples())
        # Last: once a checkpoint is there, a resumed run does not come back to this round.
        save_checkpoint(
            self.directory,
            round_index,
            student=self.student,
            generator=self.generator,
            shares=self.sources.shares,
        )
        self.observer.round_finished(metrics)

    def released(self, round_index: int) -> RoundReleases:
        """What was released in a round, before or now."""
        releases = self.directory.stored_releases(round_index)
        if releases is None:
            with self.directory.spool(self.teacher.input_shape) as spool:
                queries = self.synthesise(round_index, spool)
                self.processes.barrier()  # all are there to answer what will now be paid for
                answered, release = self.ask(round_index, queries)
                releases = self.directory.store_releases(
                    round_index, answered, release, asked=queries.digest
                )
        else:
            self.processes.barrier()
        self.processes.end_deal()
        return releases

    def help(self, round_index: int) -> RoundReleases:
        """Answer what process 0 deals of a round, then read what it stored."""
        mechanism = self._mechanism_in(round_index)
        self.processes.barrier()
        for number, batch in enumerate(self.processes.dealt()):
            answered = None if batch is None else self._privatised(mechanism, number, *batch)
            self.processes.gather(answered)
        releases = self.directory.stored_releases(round_index, may_commit=False)
        if releases is None:
            raise RunError(
                f"{self.directory.releases_path(round_index)} cannot be seen by process "
                f"{self.processes.rank}: all processes need the run on a file system they share"
            )
        return releases

    def remember(self, releases: RoundReleases) -> RoundQuality:
        """Add a round's releases to what the student learns from, and say what they tell."""
        if self.processes.leads:  # the others make no queries
            self.asked.add(releases.digests() if releases.asked is None else releases.asked)
        self.mechanism = self.mechanism.informed(releases.release, releases.prior)
        quality = assess(releases, self.mechanism)
        # The other objectives' targets are no likelihood: classes are as far apart in them as the
        # noise leaves them, and an adjustment by the shares would drown them.
        objective = self.recipe.objective_function(members=self.teacher.members)
        is_balanced = self.recipe.balance and isinstance(objective, Marginal)
        self.replay.append(releases, shares=quality.label_shares if is_balanced else None)
        return quality

    def synthesise(self, round_index: int, spool: Spool) -> Queries:
        """Queries worth asking, no two of the same image and none of an image that was asked.

        All images that are made go to the spool.
        """
        asked = self.recipe.queries_in(round_index)
        # Of the first round nothing is known yet, so there is nothing to select by.
        wanted = asked if round_index == 1 else round(asked * self.recipe.selection)
        random = stream(self.recipe.seed, round_index, "queries")
        # Nothing is known before the first round: the prior is flat, and the generator is blind.
        exploration = 1.0 if round_index == 1 else self.recipe.exploration
        share = 0.0 if round_index == 1 else self.recipe.generator_share
        queries = Queries.empty(spool, wanted, classes=self.teacher.num_classes)
        doubt = torch.empty(wanted)
        own = AskedImages()
        found = repeated = 0
        batch = inference_batch(spool.shape)
        # Where images repeat, the last few that are missing would be made one by one.
        least = max(min(wanted, batch), wanted // 64)
        with self._phase("synthesis", total=wanted, round_index=round_index) as advance:
            while found < wanted and len(spool) < _PATIENCE * wanted:
                first, before, count = len(spool), found, max(wanted - found, least)
                source, digest = self._draw(
                    count, generator_share=share, random=random, spool=spool
                )
                fresh = (self.asked.fresh(digest) & own.fresh(digest)).nonzero().flatten()
                repeated += count - len(fresh)
                explored = torch.rand((count, 1), generator=random) < exploration
                for some in torch.split(fresh, batch):
                    # Untrained, it would say one class of everything: a guess is as good, and free.
                    logits = (
                        torch.rand((len(some), self.teacher.num_classes), generator=random)
                        if round_index == 1
                        else self.execution.predict(self.student, spool[first + some]).cpu()
                    )
                    prior = (logits / self.recipe.prior_temperature).softmax(-1)
                    unsure = torch.special.entr(prior).sum(-1)
                    prior = torch.where(explored[some], flat_prior(prior, random), prior).half()
                    worth = self.mechanism.needs_answer(prior.float()).nonzero().flatten()
                    worth = worth[: wanted - found]
                    kept = slice(found, found + len(worth))
                    queries.rows[kept] = (first + some)[worth]
                    queries.prior[kept] = prior[worth]
                    queries.predicted[kept] = logits.argmax(-1).to(torch.int32)[worth]
                    queries.source[kept] = source[some][worth]
                    queries.digest[kept] = digest[some][worth]
                    doubt[kept] = unsure[worth]
                    advance(len(worth))
                    found = kept.stop
                own.add(queries.digest[before:found])
        queries = queries.only(slice(found))
        if len(queries) > asked:
            queries = queries.only(doubtful(doubt[:found], asked, random))
        if problem := scarcity(len(queries), wanted=asked, made=len(spool), repeated=repeated):
            if len(queries) == 0:
                raise RunError(f"round {round_index}: {problem}")
            self.observer.warn(f"round {round_index}: {problem}")
        return queries

    def ask(self, round_index: int, queries: Queries) -> tuple[Queries, Tensor]:
        """The teacher answers every query once; only what the mechanism releases goes on.

        Returns the queries that were answered, and the releases.
        """
        mechanism = self._mechanism_in(round_index)
        # Answers that find no place on the disk would be paid for and lost.
        self.directory.require_space(len(queries) * math.prod(queries.spool.shape))
        for hold in self.holds:
            hold.require()
        self.teacher.require_unchanged()
        # The ledger first: what only a budget has was then cut off the ledger, or asked by a copy.
        entry = reservation(
            round_index=round_index,
            answers=len(queries),
            mechanism=mechanism,
            teacher=self.teacher.fingerprint,
            asking=secrets.token_hex(8),
        )
        self.directory.ledger.reserve(entry)
        if self.budget is not None:
            place = str(self.directory.path.absolute())
            self.budget.reserve(entry, run=self.directory.identity, directory=place)
        release, answered = None, torch.empty(len(queries), dtype=torch.bool)
        size = self.teacher.query_batch * self.processes.count
        with self._phase("teacher", total=len(queries), round_index=round_index) as advance:
            for number, start in enumerate(range(0, len(queries), size)):
                part = slice(start, start + size)
                own = self.processes.deal(queries.spool[queries.rows[part]], queries.prior[part])
                found = self.processes.gather(self._privatised(mechanism, number, *own))
                if release is None:  # made once: joined at the end, it would be there twice
                    release = found.new_empty((len(queries), *found.shape[1:]))
                release[part] = found
                # A mechanism may decline to answer; which it answered is part of what it releases.
                answered[part] = found.isfinite().reshape(len(found), -1).all(-1)
                advance(len(found))
        if release is None or not answered.any():
            raise RunError(
                f"round {round_index}: no query passed the test of consensus, or too few were "
                "asked at once for a share of them to be one; start a new run with a lower ",
                *(Setting("consensus"), ", more ", Setting("queries"), ", or without the test"),
            )
        if answered.all():
            return queries, release
        return queries.only(answered), release[answered]

    def _mechanism_in(self, round_index: int) -> Mechanism:
        noise = self.mechanism.noise.for_round(round_index).for_process(self.processes.rank)
        return self.mechanism.with_noise(noise)

    def _privatised(
        self, mechanism: Mechanism, number: int, queries: Tensor, prior: Tensor
    ) -> Tensor:
        """The teacher of this process answers a batch; only what the mechanism releases goes on."""
        images = self.execution.images(queries)
        answers = self.teacher.ask(images, query_batch=number)
        return mechanism.privatize(answers, prior.to(images.device).float()).cpu()

    def teach_student(self, student: nn.Module, round_index: int, *, attempt: int = 0) -> float:
        """A student learns from the new releases and from earlier ones again."""
        recipe = self.recipe
        training = StudentTraining(
            epochs=recipe.epochs_in(round_index),
            replay=recipe.replay_in(round_index),
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            steps=recipe.student_steps,
            augment=recipe.augment,
        )
        random = stream(recipe.seed, round_index, f"student{attempt or ''}")
        rows = training.rows(self.replay, random)
        steps = math.ceil(len(rows) / training.batch_size)
        with self._phase("student", total=steps, round_index=round_index) as advance:
            loss = fit_student(
                student,
                self.replay,
                mechanism=self.mechanism,
                objective=recipe.objective_function(members=self.teacher.members),
                training=training,
                execution=self.execution,
                rows=rows,
                random=random,
                advance=lambda: advance(1),
            )
        if not math.isfinite(loss):
            raise RunError(
                f"round {round_index}: training the student diverged (loss {loss}); start anew "
                "with a ",
                *(Setting("learning_rate"), f" below {self.recipe.learning_rate:g}"),
            )
        return loss

    def polish(self, round_index: int) -> None:
        """The student learns what several agree on, on synthetic images that nobody is asked."""
        recipe = self.recipe
        students = [self.student]
        for attempt in range(1, recipe.restarts):
            seed = stream_seed(recipe.seed, attempt, "restart")
            students.append(self.execution.place(restarted(self.student, seed=seed)))
            self.teach_student(students[-1], round_index, attempt=attempt)
        random = stream(recipe.seed, round_index, "polish")
        share = recipe.generator_share if round_index > 1 else 0.0  # it has learned nothing before
        steps = recipe.polish_steps
        with (
            self.directory.spool(self.teacher.input_shape) as images,
            self._phase("polish", total=steps, round_index=round_index) as advance,
        ):
            self._draw(_UNLABELLED, generator_share=share, random=random, spool=images)
            fit_to_agreed(
                self.student,
                images,
                agreed(students, images, self.execution),
                steps=steps,
                batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                augment=recipe.augment,
                execution=self.execution,
                random=random,
                advance=lambda: advance(1),
            )

    def teach_generator(self, round_index: int) -> float | None:
        """The generator learns from the student; there is no need to before the last round ends."""
        training = GeneratorTraining(
            steps=self.recipe.generator_steps,
            batch_size=self.recipe.generator_batch_size,
            learning_rate=self.recipe.generator_learning_rate,
            weights=self.recipe.generator_weights(),
        )
        if training.steps == 0:
            return None
        loss = None
        # By one process, as its loss and its BatchNorm are about the whole batch together.
        if self.processes.leads:
            with self._phase("generator", total=training.steps, round_index=round_index) as advance:
                loss = fit_generator(
                    self.generator,
                    self.student,
                    training=training,
                    execution=self.execution,
                    random=stream(self.recipe.seed, round_index, "generator"),
                    advance=lambda: advance(1),
                )
        self.processes.copy(self.generator)
        return loss

    def _draw(
        self, count: int, *, generator_share: float, random: torch.Generator, spool: Spool
    ) -> tuple[Tensor, Tensor]:
        """Spool images from the public sources and the generator, whose number is the last.

        Returns the number of each one's source, uint8 ``(count,)``, and its digest, int64.
        """
        generated = round(count * generator_share) if self.sources.sources else count
        made = image_batches(
            self.generator,
            generated,
            shape=self.teacher.input_shape,
            execution=self.execution,
            random=random,
        )
        own = len(self.sources.sources)
        # Made once: small pieces among large ones that come and go would keep memory from going.
        source = torch.empty(count, dtype=torch.uint8)
        digest = torch.empty(count, dtype=torch.int64)
        found = 0
        for images, number in chain(
            self.sources.blocks(count - generated, generator=random),
            ((images, own) for images in made),
        ):
            spool.append(images)
            source[found : found + len(images)] = number
            digest[found : found + len(images)] = image_digests(images)
            found += len(images)
        return source, digest

    def _samples(self) -> Tensor:
        """Some of the generator's images, from the same noise in every round."""
        # More are made than kept: BatchNorm needs a batch like those it was trained on.
        images = sample_images(
            self.generator,
            4 * _SAMPLES,
            shape=self.teacher.input_shape,
            execution=self.execution,
            random=stream(self.recipe.seed, 0, "samples"),
        )
        return images[:_SAMPLES]

    @contextmanager
    def _phase(self, name: str, *, total: int, round_index: int) -> Iterator[Callable[[int], None]]:
        start = time.perf_counter()
        try:
            yield self.observer.phase(name, total=total, round_index=round_index)
        finally:
            self.observer.phase_finished(
                name, seconds=time.perf_counter() - start, round_index=round_index
            )

    def _metrics(
        self,
        releases: RoundReleases,
        quality: RoundQuality,
        student_loss: float,
        generator_loss: float | None,
        *,
        seconds: float,
    ) -> dict[str, Any]:
        names = [source.name for source in self.sources.sources] + ["generator"]
        # In the first round a guess stood in for the untrained student.
        found = quality.agreement if releases.index > 1 else None
        counts = torch.bincount(releases.source.long(), minlength=len(names)).tolist()
        return {
            "round": releases.index,
            "queries": len(releases),
            "student_loss": student_loss,
            "generator_loss": generator_loss,
            "agreement": asdict(found) if found else None,
            "label_shares": quality.label_shares,
            "predicted_shares": quality.predicted_shares,
            "sources": dict(zip(names, counts, strict=True)),
            # Of the whole round, and whole ones: a teacher that leaves early for some images, or
            # one member of an ensemble that does, would be told apart by what it takes alone.
            "seconds": round(seconds),
        }

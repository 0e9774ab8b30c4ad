"""A federation: the answers of many clients' teachers, each privatised there, become a student.

    for each round:
        synthesise queries
        ask all clients; whoever answers has privatised every answer before it leaves
        estimate what each client's teacher takes for what, with the student as the prior
        the student learns from the releases of the whole panel, and from earlier ones again
        the generator learns from the student

This is :mod:`dpsd.transcription.loop` with a panel in the place of a teacher. The server has no
teacher, no account and no ledger. All that it sees is releases, so all that it does costs nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from dpsd.devices.execution import Execution
from dpsd.devices.memory import peak_memory_mb
from dpsd.distillation.panel import Panel
from dpsd.distillation.quality import RoundQuality, assess
from dpsd.distillation.releases import RoundReleases
from dpsd.errors import RunError
from dpsd.federated.exchange import Exchange
from dpsd.federated.requests import Code, Hello
from dpsd.federated.server.asking import PanelAsking
from dpsd.federated.server.estimating import History, clarity_of_clients
from dpsd.federated.server.plan import FederationPlan
from dpsd.federated.server.pooling import Pool
from dpsd.federated.server.roster import Roster
from dpsd.runs.federation import FederationDirectory
from dpsd.runs.models import Progress, load_checkpoint, save_checkpoint
from dpsd.runs.observing import Observer, Phases
from dpsd.runs.pictures import save_samples
from dpsd.synthesis.mixture import Mixture
from dpsd.transcription.learning import Learning
from dpsd.transcription.querying import Querying
from dpsd.transcription.telling import round_metrics, round_warnings

#: The most seconds that a client has to greet back.
_GREETING = 60.0


@dataclass(frozen=True)
class FederatedRun:
    """A finished federation, as its server sees it.

    Args:
        directory: the directory of the server, which holds everything.
        student: the trained student, in eval mode; it maps images in [0, 1] to logits.
        generator: the trained generator.
        metrics: the metrics, one entry per round.
    """

    directory: FederationDirectory
    student: nn.Module = field(repr=False)
    generator: nn.Module = field(repr=False)
    metrics: list[dict[str, Any]] = field(repr=False)


class Federation:
    """A federation in execution, on its server.

    Args:
        plan: the plan of the federation.
        directory: the directory of the server, where everything is written.
        exchange: carries requests to clients and their replies back.
        execution: the device and precision of models.
        observer: is notified of progress and warnings.
    """

    def __init__(
        self,
        plan: FederationPlan,
        directory: FederationDirectory,
        *,
        exchange: Exchange,
        execution: Execution,
        observer: Observer,
    ) -> None:
        self.plan, self.directory, self.observer = plan, directory, observer
        student, generator = plan.models(execution)
        self.phases = Phases(observer)
        shared: dict[str, Any] = {
            "student": student,
            "generator": generator,
            "execution": execution,
            "phases": self.phases,
        }
        self.querying = Querying.of(
            plan.recipe, plan.public, shape=plan.shape, num_classes=plan.num_classes, **shared
        )
        self.learning = Learning(recipe=plan.recipe, members=1, **shared)
        self.panel = Panel.assumed(0, plan.num_classes)
        self.asking = self._asking(exchange)
        self.history = History(num_classes=plan.num_classes, seed=plan.recipe.seed)

    @property
    def student(self) -> nn.Module:
        """The student."""
        return self.learning.student

    def run(self) -> FederatedRun:
        """Execute all remaining rounds; a lock keeps other processes out meanwhile.

        Raises:
            RunError: too few clients answered a round; what was stored is kept.
        """
        with self.directory.held():
            finished, rounds = self._restored(), self.plan.recipe.rounds
            self.directory.remove_unfinished()
            if finished < rounds:
                self.querying.prepare(finished + 1)
                self.asking.gather(self._before())
            for round_index in range(finished + 1, rounds + 1):
                self.play(round_index)
            self.directory.conclude(student=self.student, generator=self.learning.generator)
        return FederatedRun(
            directory=self.directory,
            student=self.student.eval(),
            generator=self.learning.generator,
            metrics=self.directory.metrics(),
        )

    def play(self, round_index: int) -> None:
        """Execute one round."""
        start = time.perf_counter()
        releases = self.released(round_index)
        quality = self.consider(releases)
        is_last = round_index == self.plan.recipe.rounds
        names = self.querying.source_names
        for warning in round_warnings(releases, quality, names=names, is_last=is_last):
            self.observer.warn(warning)
        student_loss = self._taught(round_index, is_last=is_last)
        generator_loss = self.learning.teach_generator(round_index)
        self.querying.follow(quality)
        losses = {"student_loss": student_loss, "generator_loss": generator_loss}
        metrics = round_metrics(releases, quality, losses, names=names)
        metrics["clients"] = self._clients(releases)
        # In whole seconds, as how long a client takes may depend on its answers.
        metrics["seconds"] = round(time.perf_counter() - start)
        metrics["peak_memory_mb"] = peak_memory_mb(self.learning.execution.device)
        self._write(metrics)
        self.observer.round_finished(metrics)

    def released(self, round_index: int) -> RoundReleases:
        """Return the releases of a round, asking for them if there are none yet."""
        stored = self.directory.stored_releases(round_index)
        if stored is not None:
            return stored
        request = self.directory.stored_request(round_index)
        is_again = request is not None
        if request is None:
            request = self._requested(round_index)
        with self.phases("clients", total=1, round_index=round_index) as advance:
            release = self.asking.ask(request, is_again=is_again)
            advance(1)
        return self.directory.store(request, release)

    def consider(self, releases: RoundReleases) -> RoundQuality:
        """Add a round's releases to those to learn from, and see all rounds in their light.

        The panel is estimated anew from a sample of all rounds, and with it what each of them says.
        It depends on what is stored alone, so a federation that was interrupted goes on
        exactly like one that was not.
        """
        self._remember(releases)
        self.panel = self._estimated()
        self.learning.forget()
        evidence = self.history.evidence(self.panel)
        for one, said in zip(self.history.rounds, evidence, strict=True):
            self.learning.remember(one, label_shares=said.label_shares, clarity=said.clarity)
        quality = assess(releases, self.panel)
        self.querying.guide(quality)
        return quality

    def _asking(self, exchange: Exchange) -> PanelAsking:
        settings, directory = self.plan.settings, self.directory
        fewest = settings.trusted_aggregator
        pool = None if fewest is None else Pool(fewest=fewest, num_classes=self.plan.num_classes)
        roster = Roster(
            directory=directory,
            exchange=exchange,
            hello=Hello(
                federation=directory.identity,
                shape=self.plan.shape,
                num_classes=self.plan.num_classes,
            ),
            observer=self.observer,
            deadline=min(settings.deadline, _GREETING),
            pool=pool,
        )
        return PanelAsking(
            directory=directory,
            exchange=exchange,
            roster=roster,
            settings=settings,
            observer=self.observer,
            pool=pool,
        )

    def _before(self) -> list[str]:
        """The clients that answered last, or were asked, if this server was started before."""
        met = [client.key for client in self.directory.clients()]
        return self.directory.journal.latest_answers() or (
            met if self.directory.is_asking(1) else []
        )

    def _requested(self, round_index: int) -> RoundReleases:
        """Synthesise the queries of a round, and store what each client will be asked."""
        self.asking.roster.present()  # so that whoever came since has a column
        self.panel = self._estimated()
        with self.directory.spool(self.plan.shape) as spool:
            queries = self.querying.synthesise(round_index, spool, mechanism=self.panel)
            candidates = self.asking.candidates(queries, self.panel)
            return self.directory.save_request(round_index, queries, candidates)

    def _estimated(self) -> Panel:
        """The panel as all releases tell now."""
        is_pooled = self.asking.pool is not None
        return self.history.estimated(1 if is_pooled else len(self.asking.roster.keys))

    def _remember(self, releases: RoundReleases) -> None:
        self.querying.never_again(releases)
        self.history.add(releases)

    def _restored(self) -> int:
        """Restore the state after the finished rounds, and return their number."""
        progress = load_checkpoint(
            self.directory, student=self.student, generator=self.learning.generator
        )
        if progress.shares is not None:
            self.querying.sources = Mixture(self.querying.sources.sources, progress.shares)
        for round_index in range(1, progress.round_index + 1):
            stored = self.directory.stored_releases(round_index)
            if stored is None:
                raise RunError(f"{self.directory.releases_path(round_index)} is missing")
            self._remember(stored)
        if rounds := self.history.rounds:
            # What the last round said then, before the student learned from it.
            quality = assess(rounds[-1], self._estimated())
            said = self.directory.metrics()[-1]["label_shares"]
            self.querying.guide(replace(quality, label_shares=said))
        return progress.round_index

    def _taught(self, round_index: int, *, is_last: bool) -> float:
        """Train the student, to its end if it is trained for the last time; returns its loss."""
        loss = self.learning.teach_student(round_index, mechanism=self.panel, is_last=is_last)
        if is_last and self.plan.recipe.restarts > 1:
            with self.directory.spool(self.plan.shape) as spool:
                self.learning.polish(
                    round_index, mechanism=self.panel, querying=self.querying, spool=spool
                )
        return loss

    def _clients(self, releases: RoundReleases) -> dict[str, dict[str, Any]]:
        """What each client did in a round, by its key, as metrics."""
        said = self.directory.journal.replies(releases.index)
        # Of a sum, nothing is known of a single client.
        clarity = [] if self.asking.pool else clarity_of_clients(self.panel, releases)
        return {
            client.key: {
                "name": client.name,
                **said.get(client.key, {"code": Code.SILENT, "answers": 0}),
                "clarity": clarity[column] if column < len(clarity) else 0.0,
            }
            for column, client in enumerate(self.directory.clients())
        }

    def _write(self, metrics: dict[str, Any]) -> None:
        """Write the results of a round: metrics, clients, sample images and the checkpoint."""
        round_index = int(metrics["round"])
        self.directory.append_metrics(metrics)
        self.directory.write_clients()
        save_samples(self.directory, round_index, self.querying.samples())
        # Written last: once the checkpoint exists, a resumed run does not repeat this round.
        save_checkpoint(
            self.directory,
            Progress(round_index=round_index, shares=self.querying.sources.shares),
            student=self.student,
            generator=self.learning.generator,
        )

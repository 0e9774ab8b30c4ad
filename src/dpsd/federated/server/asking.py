"""Asking all clients about a round's images, some of which answer.

A round goes on with those that answered by its deadline. While they are too few, the silent ones
are asked again, with the same images and the same number, so that what they answered already costs
them nothing. Nothing here sees more than releases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dpsd.config.federation import FederationSettings
from dpsd.distillation.panel import Panel
from dpsd.distillation.releases import RoundReleases
from dpsd.errors import RunError, Setting
from dpsd.federated.exchange import Exchange
from dpsd.federated.requests import Code, Reply, Request
from dpsd.federated.server.pooling import Pool
from dpsd.federated.server.reading import GarbageError, read_reply
from dpsd.federated.server.roster import Roster
from dpsd.privacy.mechanisms import RandomizedResponse
from dpsd.privacy.mechanisms.base import is_flat
from dpsd.runs.federation import FederationDirectory
from dpsd.runs.observing import Observer
from dpsd.synthesis.queries import Queries

#: The codes after which a client may answer if it is asked again, at no cost for what it answered.
_AGAIN = {Code.SILENT, Code.LATE, Code.FAILED}

#: The seconds between two looks at who is connected, while too few are.
_PAUSE = 1.0

#: How long those who answered before are waited for when the server is started again, in seconds.
_RECONNECTING = 60.0


@dataclass(kw_only=True)
class PanelAsking:
    """Asks the clients of a federation.

    Args:
        directory: the directory of the server.
        exchange: carries requests and replies.
        roster: who takes part.
        settings: how long to wait, and for how many.
        pool: adds up what clients release, where they trust the server to; ``None`` where each
            client is read by itself.
        observer: is notified of who did not answer.
        wait: waits so many seconds.
    """

    directory: FederationDirectory
    exchange: Exchange
    roster: Roster
    settings: FederationSettings
    observer: Observer
    pool: Pool | None = None
    wait: Callable[[float], None] = field(default=time.sleep)

    def gather(self, before: Sequence[str] = ()) -> None:
        """Wait until as many clients are there as the first round waits for, or those of before.

        Args:
            before: the keys of the clients that answered last, if the server was started again.
                They connect again within a minute, and are not waited for longer.

        Raises:
            RunError: after ``patience``, there are fewer than must answer a first round.
        """
        patience, least = self.settings.patience, self.settings.at_least
        wanted, told = set(before), -1
        count = len(wanted) or self.settings.clients
        until = time.monotonic() + (min(patience, _RECONNECTING) if wanted else patience)
        while True:
            there = self.roster.present()
            found = wanted.intersection(there) if wanted else there
            if len(found) >= count:
                return
            if time.monotonic() >= until:
                break
            if len(found) != told:
                told = len(found)
                self.observer.notice(f"waiting for clients: {told} of {count} are there")
            self.wait(_PAUSE)
        if wanted:
            return  # the round itself waits for as many as must answer it
        if len(there) < least:
            raise self._too_few("the first round", there)
        self.observer.warn(
            f"the first round was to wait for {count} clients, and begins with {len(there)}: "
            f"{self.roster.names(there)}"
        )

    def candidates(self, queries: Queries, panel: Panel) -> Tensor:
        """Return the classes that each client may report about each query, bool ``(N, M, K)``.

        Those of randomised response follow from the queries' priors and what the panel knows of
        the client; all classes are candidates where the prior is flat, and for other mechanisms.
        """
        prior = queries.prior.float()
        flat = is_flat(prior).unsqueeze(-1)
        everything = torch.ones(prior.shape, dtype=torch.bool)
        columns = []
        for number, key in enumerate(self.roster.keys):
            mechanism = self.roster.mechanism(key)
            chosen = everything
            if isinstance(mechanism, RandomizedResponse) and number < len(panel.confusions):
                chosen = panel.candidates(prior, number, mechanism)
                if mechanism.candidates == "per-query":
                    chosen = chosen | flat
            columns.append(chosen)
        return (
            torch.stack(columns, dim=1) if columns else torch.empty(len(prior), 0, prior.shape[1])
        )

    def ask(self, request: RoundReleases, *, is_again: bool) -> Tensor:
        """Ask all clients that are there, and return what their releases say.

        Args:
            request: the queries, with the candidates of each client in place of releases.
            is_again: whether the round was interrupted, so that clients may have answered it.

        Returns:
            The releases of the panel, float16 ``(N, M, K)``, with a column for each client that
            ever appeared, or a single one for the pool.

        Raises:
            RunError: after ``patience``, fewer clients than ``at_least`` answered.
        """
        images = request.images(torch.arange(len(request)))
        found: dict[str, Tensor] = {}
        replies: dict[str, Reply] = {}
        until = time.monotonic() + self.settings.patience
        while True:
            deadline = time.time() + self.settings.deadline
            asked: dict[str, Request] = {}
            there = self.roster.present()
            columns = {key: number for number, key in enumerate(self.roster.keys)}
            for key in there:
                if key in replies and replies[key].code not in _AGAIN:
                    continue
                # A client that may have answered already may have nothing left but its answers.
                is_new = not is_again and key not in replies
                if is_new and self.roster.answers_left(key) < len(images):
                    replies[key] = Reply(code=Code.BUDGET)
                else:
                    asked[key] = self._request(request, images, columns[key], deadline=deadline)
            if asked:
                for key, reply in self.exchange.ask(asked, deadline=deadline).items():
                    replies[key] = self._read(key, reply, asked[key], found)
            self.roster.doubt(replies.keys() - found.keys())
            if len(found) >= self.settings.at_least:
                break
            if time.monotonic() >= until:
                raise self._too_few(f"round {request.index}", found)
            self.wait(_PAUSE)
        self._note(request.index, replies, found)
        if self.pool is not None:
            return self._summed(self.pool, request.index, found)
        nothing = torch.zeros((len(images), request.prior.shape[-1]), dtype=torch.float16)
        return torch.stack([found.get(key, nothing) for key in self.roster.keys], dim=1)

    def _request(
        self, request: RoundReleases, images: Tensor, column: int, *, deadline: float
    ) -> Request:
        candidates = None
        if column < request.release.shape[1]:  # later ones appeared after the round was made
            candidates = request.release[:, column].bool()
            candidates = None if candidates.all() else candidates
        return Request(
            federation=self.directory.identity,
            number=request.index,
            deadline=deadline,
            images=images,
            candidates=candidates,
        )

    def _read(self, key: str, reply: Reply, request: Request, found: dict[str, Tensor]) -> Reply:
        """Keep what a reply says in ``found``; returns the reply, or one with another code."""
        if reply.code is not Code.ANSWERED:
            return reply
        mechanism = self.roster.mechanism(key)
        try:
            if self.pool is not None:
                said = self.pool.read(reply, request, mechanism)
            else:
                classes = self.roster.hello.num_classes
                said = read_reply(reply, request, mechanism=mechanism, num_classes=classes)
        except GarbageError:
            return Reply(code=Code.GARBAGE)
        # A reply without a single release is no answer that a round could go on with. But what a
        # sum lacks because a client lost it will never come.
        if self.pool is not None or said.any():
            found[key] = said
        return reply

    def _summed(self, pool: Pool, round_index: int, found: Mapping[str, Tensor]) -> Tensor:
        """Add up what the clients released; images that too few have a release for say nothing."""
        sums = pool.summed(found, {key: self.roster.mechanism(key) for key in found})
        if lost := int((~sums.any(-1)).sum()):
            without = [key for key, said in found.items() if not _answered(said).all()]
            self.observer.warn(
                f"{lost:,} of the {len(sums):,} images of round {round_index} have no sum, as "
                f"answers were lost for good by {self.roster.names(without)}"
            )
        return sums

    def _note(
        self, round_index: int, replies: Mapping[str, Reply], found: Mapping[str, Tensor]
    ) -> None:
        """Record who answered and who did not, before what they released is stored."""
        noted: dict[str, dict[str, Any]] = {}
        for key in self.roster.keys:
            reply = replies.get(key, Reply(code=Code.SILENT))
            answers = int(_answered(found[key]).sum()) if key in found else 0
            noted[key] = {
                "code": str(reply.code),
                "answers": answers,
                "spent": dict(reply.spent) if key in found else {},
                "ledger": reply.ledger if key in found else "",
            }
        self.directory.journal.note(round_index, noted)
        missing = {key: said["code"] for key, said in noted.items() if key not in found}
        if missing:
            listed = ", ".join(
                f"{self.roster.names([key])}: {code}" for key, code in missing.items()
            )
            self.observer.notice(f"round {round_index} goes on without {listed}")

    def _too_few(self, what: str, answered: Mapping[str, Any] | list[str]) -> RunError:
        return RunError(
            f"{what} needs {self.settings.at_least} clients, and {len(answered)} answered within ",
            *(Setting("patience"), f" of {self.settings.patience:g} seconds "),
            f"({self.roster.names(answered) or 'none'}). When more are connected, continue with "
            f"{self.directory.resuming}",
        )


def _answered(said: Tensor) -> Tensor:
    """Which images a client answered, of what is kept of its reply, bool ``(N,)``."""
    return (~said.isnan() & (said != 0)).any(-1)

"""Asking: queries and priors go in, releases come out, and nothing else does.

:class:`Asking` is the seam between the loop and whoever answers. Here it is a teacher in this
process, or one in each of several processes that share the work; the loop does not tell them apart.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dpsd.devices.execution import Execution
from dpsd.devices.processes import Processes
from dpsd.errors import RunError, Setting
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.records.ledger import reservation
from dpsd.runs.directory import RunDirectory
from dpsd.runs.observing import Phases
from dpsd.storage.locks import Hold
from dpsd.synthesis.queries import Queries
from dpsd.teachers import Teacher


class Asking(Protocol):
    """Whoever answers a round's queries, privately."""

    def ask(
        self, round_index: int, queries: Queries, *, mechanism: Mechanism
    ) -> tuple[Queries, Tensor]:
        """Have every query answered once, after recording what that costs.

        Args:
            round_index: from 1.
            queries: no image among them was asked before.
            mechanism: what privatises the answers.

        Returns:
            The queries that were answered, and the releases, ``(N, …)``.

        Raises:
            RunError: nothing was released.
            AnswerError: the teacher failed.
        """

    def join(self, round_index: int, *, mechanism: Mechanism) -> None:
        """Of a process that does not lead: do its part of what process 0 asks."""

    def skip(self) -> None:
        """Of process 0: a round was answered before."""

    def end(self) -> None:
        """Of process 0: a round's releases are stored, so that the others may read them."""


@dataclass(kw_only=True)
class TeacherAsking:
    """A teacher in each process, each of which answers its part.

    Args:
        teacher: of this process.
        directory: of the run, whose ledger records what is asked.
        account: what the teachers have spent in all runs; ``None`` where nothing tells them apart.
        execution: where images go.
        processes: who share the work.
        phases: are told how it goes.
        holds: what must still be held as the teacher is asked.
    """

    teacher: Teacher
    directory: RunDirectory
    account: Accounts | None
    execution: Execution
    processes: Processes
    phases: Phases
    holds: Sequence[Hold] = field(default_factory=tuple)

    def ask(
        self, round_index: int, queries: Queries, *, mechanism: Mechanism
    ) -> tuple[Queries, Tensor]:
        self.processes.barrier()  # all are there to answer what will now be paid for
        own = self._of_this_process(mechanism, round_index)
        # Answers that find no place on the disk would be paid for and lost.
        self.directory.require_space(len(queries) * math.prod(queries.spool.shape))
        for hold in self.holds:
            hold.require()
        self.teacher.require_unchanged()
        self._reserve(round_index, len(queries), own)
        release, answered = None, torch.empty(len(queries), dtype=torch.bool)
        size = self.teacher.query_batch * self.processes.count
        with self.phases("teacher", total=len(queries), round_index=round_index) as advance:
            for number, start in enumerate(range(0, len(queries), size)):
                part = slice(start, start + size)
                dealt = self.processes.deal(queries.spool[queries.rows[part]], queries.prior[part])
                found = self.processes.gather(self._privatised(own, number, *dealt))
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

    def join(self, round_index: int, *, mechanism: Mechanism) -> None:
        own = self._of_this_process(mechanism, round_index)
        self.processes.barrier()
        for number, batch in enumerate(self.processes.dealt()):
            answered = None if batch is None else self._privatised(own, number, *batch)
            self.processes.gather(answered)

    def skip(self) -> None:
        self.processes.barrier()
        self.processes.end_deal()

    def end(self) -> None:
        self.processes.end_deal()

    def _reserve(self, round_index: int, answers: int, mechanism: Mechanism) -> None:
        """Write down, durably, what is about to be asked."""
        entry = reservation(
            round_index=round_index,
            answers=answers,
            mechanism=mechanism,
            teacher=self.teacher.fingerprint,
            asking=secrets.token_hex(8),
        )
        # The ledger first: what only a budget has was then cut off the ledger, or asked by a copy.
        self.directory.ledger.reserve(entry)
        if self.account is not None:
            place = str(self.directory.path.absolute())
            self.account.reserve(entry, run=self.directory.identity, directory=place)

    def _of_this_process(self, mechanism: Mechanism, round_index: int) -> Mechanism:
        noise = mechanism.noise.for_round(round_index).for_process(self.processes.rank)
        return mechanism.with_noise(noise)

    def _privatised(
        self, mechanism: Mechanism, number: int, queries: Tensor, prior: Tensor
    ) -> Tensor:
        """The teacher of this process answers a batch; only what the mechanism releases goes on."""
        images = self.execution.images(queries)
        answers = self.teacher.ask(images, query_batch=number)
        return mechanism.privatize(answers, prior.to(images.device).float()).cpu()

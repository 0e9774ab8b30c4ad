"""Asking: queries and priors go in, and nothing but releases comes out.

:class:`Asking` is the interface between the loop and whatever answers. Here that is a teacher in
this process, or one in each of several processes that share the work; the loop sees no difference.
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
    """The interface of whatever answers a round's queries privately."""

    def ask(
        self, round_index: int, queries: Queries, *, mechanism: Mechanism
    ) -> tuple[Queries, Tensor]:
        """Have every query answered once, after recording the cost.

        Args:
            round_index: the number of the round, from 1.
            queries: the queries; none of their images was asked before.
            mechanism: the mechanism that privatises the answers.

        Returns:
            The queries that were answered, and the releases, ``(N, …)``.

        Raises:
            RunError: nothing was released.
            AnswerError: the teacher failed.
        """

    def join(self, round_index: int, *, mechanism: Mechanism) -> None:
        """Answer a share of what process 0 asks; every other process calls this."""

    def skip(self) -> None:
        """Tell the other processes that the round was answered before; process 0 calls this."""

    def end(self) -> None:
        """Tell the other processes that the releases are stored; process 0 calls this."""


@dataclass(kw_only=True)
class TeacherAsking:
    """Asks a teacher in each process, each of which answers its share of the queries.

    Args:
        teacher: the teacher of this process.
        directory: the run directory, whose ledger records what is asked.
        account: the accounts of the teachers; ``None`` if nothing identifies the teachers.
        execution: the device and precision that images are moved to, and who shares the work.
        phases: report the progress of each phase.
        holds: the locks that must still be held when the teacher is asked.
    """

    teacher: Teacher
    directory: RunDirectory
    account: Accounts | None
    execution: Execution
    phases: Phases
    holds: Sequence[Hold] = field(default_factory=tuple)

    @property
    def processes(self) -> Processes:
        """The processes that share the work."""
        return self.execution.processes

    def ask(
        self, round_index: int, queries: Queries, *, mechanism: Mechanism
    ) -> tuple[Queries, Tensor]:
        self.processes.barrier()  # no answer is paid for before all processes are ready to answer
        own = self._of_this_process(mechanism, round_index)
        # Answers that do not fit on the disk would be paid for and lost.
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
                if release is None:  # allocated once; joining the parts would need twice the memory
                    release = found.new_empty((len(queries), *found.shape[1:]))
                release[part] = found
                # A mechanism may decline to answer; which queries it answers is itself released.
                answered[part] = found.isfinite().reshape(len(found), -1).all(-1)
                advance(len(found))
        if release is None or not answered.any():
            raise RunError(
                f"round {round_index}: no query passed the test of consensus, or too few were "
                "asked at once for the answered share to be one; start a new run with a lower ",
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
        """Record durably what is about to be asked."""
        entry = reservation(
            round_index=round_index,
            answers=answers,
            mechanism=mechanism,
            teacher=self.teacher.fingerprint,
            asking=secrets.token_hex(8),
        )
        # The ledger comes first, so a line that only a budget has was cut off the ledger, or a copy
        # of the run asked.
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
        """Have this process's teacher answer a batch, and return only the mechanism's release."""
        images = self.execution.images(queries)
        answers = self.teacher.ask(images, query_batch=number)
        return mechanism.privatize(answers, prior.to(images.device).float()).cpu()

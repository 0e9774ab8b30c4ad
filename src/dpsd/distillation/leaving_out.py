"""Leaving sources out: how students do on queries unlike those that they were taught on.

For each public source, a new student is taught on the releases about the other sources, and then
compared with the teacher on this one, whose releases are there as well. No image of the source left
out is learned from: images that others are blended from (``mixed``) or that the generator made
after it learned from all sources are like them, so nothing is taught on those.

All of it follows from releases, so it costs no privacy. The comparison is unbiased but for one
trace: in later rounds, priors come from a student that learned from every source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution, inference_batch
from dpsd.distillation.objectives import Objective
from dpsd.distillation.quality import Agreement, label_shares, score_span
from dpsd.distillation.releases import Replay
from dpsd.distillation.student import StudentTraining, drawn, fit_student
from dpsd.privacy.mechanisms import Channel
from dpsd.synthesis.names import plain_sources

#: The fewest rows that a student is taught on, which BatchNorm needs, or compared on.
_FEWEST = 2


@dataclass(frozen=True)
class LeftOut:
    """The agreement of students with the teacher on sources that they were not taught on.

    Args:
        agreement: the mean over the sources with an estimate, each with the same weight; its
            standard error covers the noise and the choice of images, not that of sources. ``None``
            if no source has an estimate.
        sources: the agreement on each source, by its name; ``None`` where the releases about it, or
            about the others, are too few.
    """

    agreement: Agreement | None
    sources: dict[str, Agreement | None]

    @classmethod
    def of(cls, sources: dict[str, Agreement | None]) -> LeftOut:
        """Return the agreement on each source together with their mean.

        >>> LeftOut.of({"noise": Agreement(0.5, 0.03), "strokes": Agreement(0.9, 0.04)}).agreement
        Agreement(mean=0.7, standard_error=0.025)
        """
        known = [found for found in sources.values() if found is not None]
        if not known:
            return cls(None, sources)
        mean = sum(found.mean for found in known) / len(known)
        error = math.hypot(*(found.standard_error for found in known)) / len(known)
        return cls(Agreement(mean, error), sources)


def leave_out(
    replay: Replay,
    *,
    names: Sequence[str],
    mechanism: Channel,
    objective: Objective,
    training: StudentTraining,
    is_balanced: bool,
    fresh: Callable[[], nn.Module],
    execution: Execution,
    random: torch.Generator,
    advance: Callable[[], None],
) -> LeftOut:
    """Teach a student on all plain sources but one, for each of them, and compare it on that one.

    Args:
        replay: the releases of all rounds.
        names: the names of the sources, in the order of their numbers; what is not among
            :func:`~dpsd.synthesis.names.plain_sources` is neither taught nor compared on.
        mechanism: the mechanism that made the releases.
        objective: the loss of the run's student.
        training: the sizes and rates, with ``steps``.
        is_balanced: whether the loss accounts for how common each class is in what is taught.
        fresh: a function that returns a new student on the device.
        execution: the device, the precision, and the processes that share every batch; all of them
            must call this function.
        random: the random generator for the order and the augmentation.
        advance: a function to call after every step.
    """
    assert training.steps is not None
    source = torch.cat([part.source for part in replay.rounds]).long()
    plain = plain_sources(names)
    found: dict[str, Agreement | None] = {}
    for left in plain:
        is_taught = torch.isin(source, _numbers(names, set(plain) - {left}))
        rows = is_taught.nonzero().flatten()
        own = torch.isin(source, _numbers(names, {left})).nonzero().flatten()
        found[left] = None
        if min(len(rows), len(own)) < _FEWEST:
            continue
        student = fresh()
        fit_student(
            student,
            _balanced(replay, is_taught, mechanism) if is_balanced else replay,
            mechanism=mechanism,
            objective=objective,
            training=training,
            execution=execution,
            rows=rows[drawn(len(rows), training.steps * training.batch_size, random)],
            random=random,
            advance=advance,
        )
        found[left] = _agreement(student, replay, own, mechanism, execution)
    return LeftOut.of(found)


def _numbers(names: Sequence[str], wanted: set[str]) -> Tensor:
    """The numbers of the sources of these names."""
    numbers = [number for number, name in enumerate(names) if name in wanted]
    return torch.tensor(numbers, dtype=torch.long)


def _balanced(replay: Replay, is_taught: Tensor, mechanism: Channel) -> Replay:
    """The same rows, with the shares of the classes among those that a student is taught on."""
    balanced = Replay()
    counts = [len(part) for part in replay.rounds]
    for part, mask in zip(replay.rounds, torch.split(is_taught, counts), strict=True):
        rows = mask.nonzero().flatten()
        balanced.append(part, shares=label_shares(part, rows, mechanism) if len(rows) else None)
    return balanced


def _agreement(
    student: nn.Module, replay: Replay, rows: Tensor, mechanism: Channel, execution: Execution
) -> Agreement | None:
    """The agreement of a student with the teacher on some rows; one that diverged guesses."""
    size = inference_batch(replay.rounds[0].queries.shape[1:])
    scores = []
    for batch in replay.batches(rows, batch_size=size):
        said = execution.predict(student, batch.queries).argmax(-1).cpu()
        scores.append(mechanism.agreement(batch.release, batch.prior.float(), said))
    return Agreement.of(torch.cat(scores), span=score_span(replay.rounds[0], mechanism))

"""Training the student on everything released so far.

>>> StudentTraining(epochs=1.5).replay
1.0
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.distillation.objectives import Evidence, Objective
from dpsd.distillation.releases import Replay
from dpsd.images.augmentation import Augmentation, augment_images
from dpsd.privacy.mechanisms import Channel

#: The least share of a class that is believed, as a part of an equal one; below it is noise.
_RAREST = 0.1


@dataclass(frozen=True, kw_only=True)
class StudentTraining:
    """How a student is fitted in a round.

    Args:
        epochs: passes over the releases of the newest round, may be a fraction.
        replay: releases of earlier rounds read again, for every new one; may be infinite.
        batch_size: images a step.
        learning_rate: the peak of the one-cycle schedule, with Adam.
        steps: if given, so many steps on all releases evenly, instead of ``epochs`` and ``replay``.
        augment: moves of the queries that leave what was answered true.
    """

    epochs: float = 2.0
    replay: float = 1.0
    batch_size: int = 256
    learning_rate: float = 5e-3
    steps: int | None = None
    augment: Augmentation = "none"

    def rows(self, replay: Replay, random: torch.Generator) -> Tensor:
        """The rows to learn from, in order: whole batches of new and earlier releases, shuffled.

        Later rounds say more an answer, because they were asked with a better prior, so earlier
        ones are sampled instead of all read again, and a round costs the same however long the
        history is.
        """
        if self.steps is not None:
            return drawn(len(replay), self.steps * self.batch_size, random)
        new = len(replay.rounds[-1])
        earlier = len(replay) - new
        rows = torch.cat(
            [
                # At least two, which BatchNorm needs.
                earlier + drawn(new, max(2, round(self.epochs * new)), random),
                drawn(earlier, round(min(earlier, self.replay * new)), random),
            ]
        )
        whole_batches = max(1, len(rows) // self.batch_size) * self.batch_size
        return rows[torch.randperm(len(rows), generator=random)][:whole_batches]


def fit_student(
    student: nn.Module,
    replay: Replay,
    *,
    mechanism: Channel,
    objective: Objective,
    training: StudentTraining,
    execution: Execution,
    rows: Tensor,
    random: torch.Generator,
    advance: Callable[[], None],
) -> float:
    """Fit the student to releases; returns the mean loss.

    Args:
        student: trained in place, in train mode, and left in eval mode.
        replay: the releases.
        mechanism: that made them; its likelihoods are what the objective sees.
        objective: the loss.
        training: sizes and rates.
        execution: device, precision, and the processes that share every batch; all must call.
        rows: which releases, in which order, from :meth:`StudentTraining.rows`.
        random: moves the queries.
        advance: called after every step.
    """
    processes = execution.processes
    steps = math.ceil(len(rows) / training.batch_size)
    optimizer = torch.optim.Adam(student.parameters(), lr=training.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / steps))
    total = torch.zeros((), device=execution.device)
    student.train()
    with processes.training(student) as learner:
        for batch in replay.batches(rows, batch_size=training.batch_size):
            share = processes.share(len(batch.queries))
            own = share.rows
            prior = batch.prior[own].to(execution.device).float()
            release = batch.release[own].to(execution.device)
            evidence = Evidence(
                log_likelihood=mechanism.log_likelihood(release, prior),
                prior=prior,
                face_value=mechanism.face_value(release, prior),
                shares=mechanism.shares(release, prior),
            )
            queries = augment_images(batch.queries, training.augment, generator=random)
            logits = execution.logits(learner, execution.images(queries[own]))
            # The student explains the answers together with how common each class was among them,
            # so what it learns itself favours no class (logit adjustment: Menon et al., ICLR 2021).
            # Else a class that early queries rarely show is never predicted, asked about, or made.
            shares = batch.shares[own].to(execution.device)
            common = shares.clamp_min(_RAREST / prior.shape[-1]).log()
            loss = objective(logits + common, evidence)
            optimizer.zero_grad()
            processes.backward(loss, share)
            optimizer.step()
            schedule.step()
            total += loss.detach() * share.weight
            advance()
    student.eval()
    return float(processes.combine(total)) / steps


def one_cycle(progress: float, *, warm_up: float = 0.25) -> float:
    """Share of the peak learning rate: up linearly, down along a cosine (Smith, 2018).

    >>> one_cycle(0.25), round(one_cycle(1.0), 3)
    (1.0, 0.0)
    """
    if progress < warm_up:
        return 0.04 + 0.96 * progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))


def drawn(available: int, count: int, random: torch.Generator) -> Tensor:
    """Return ``count`` of ``available`` row numbers: each once in random order, then each again.

    >>> sorted(drawn(2, 4, torch.Generator()).tolist())
    [0, 0, 1, 1]
    """
    passes = math.ceil(count / available) if available else 0
    orders = [torch.randperm(available, generator=random) for _ in range(passes)]
    return torch.cat([torch.empty(0, dtype=torch.long), *orders])[:count]

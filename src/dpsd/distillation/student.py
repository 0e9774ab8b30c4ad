"""Training the student on everything released so far.

>>> StudentTraining(epochs=1.5).epochs
1.5
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpsd.distillation.objectives import Objective
from dpsd.execution import Execution
from dpsd.privacy.mechanisms import Mechanism
from dpsd.releases import Replay


@dataclass(frozen=True, kw_only=True)
class StudentTraining:
    """How a student is fitted in a round.

    Args:
        epochs: passes over the rows, may be a fraction.
        batch_size: images a step.
        learning_rate: the peak of the one-cycle schedule, with Adam.
    """

    epochs: float = 2.0
    batch_size: int = 256
    learning_rate: float = 2e-3

    def steps(self, rows: int) -> int:
        """Training steps for that many rows.

        >>> StudentTraining(epochs=2, batch_size=256).steps(1000)
        8
        """
        return max(1, math.ceil(self.epochs * rows / self.batch_size))


def fit_student(
    student: nn.Module,
    replay: Replay,
    *,
    mechanism: Mechanism,
    objective: Objective,
    training: StudentTraining,
    execution: Execution,
    generator: torch.Generator,
    advance: Callable[[], None],
) -> float:
    """Fit the student to all releases; returns the mean loss.

    Args:
        student: trained in place, in train mode, and left in eval mode.
        replay: the releases.
        mechanism: that made them; its likelihoods are what the objective sees.
        objective: the loss.
        training: steps and rates.
        execution: device and precision.
        generator: public randomness for the order of the rows.
        advance: called after every step.
    """
    rows = informative_rows(replay, mechanism)
    steps = training.steps(len(rows))
    optimizer = torch.optim.Adam(student.parameters(), lr=training.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / steps))
    total = torch.zeros((), device=execution.device)
    student.train()
    order = _order(rows, steps * training.batch_size, generator)
    for batch in replay.batches(order, batch_size=training.batch_size):
        prior = batch.prior.to(execution.device).float()
        evidence = mechanism.log_likelihood(batch.release.to(execution.device), prior)
        logits = execution.logits(student, execution.images(batch.queries))
        loss = objective(logits, evidence, prior)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total += loss.detach()
        advance()
    student.eval()
    return float(total) / steps


def informative_rows(replay: Replay, mechanism: Mechanism) -> Tensor:
    """Rows whose release says something; an unasked query's does not."""
    asked = [mechanism.needs_answer(part.prior.float()) for part in replay.rounds]
    return torch.cat(asked).nonzero().squeeze(1)


def one_cycle(progress: float, *, warm_up: float = 0.25) -> float:
    """Share of the peak learning rate: up linearly, down along a cosine (Smith, 2018).

    >>> one_cycle(0.25), round(one_cycle(1.0), 3)
    (1.0, 0.0)
    """
    if progress < warm_up:
        return 0.04 + 0.96 * progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))


def _order(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` rows: every row once in random order, then again in another."""
    passes = math.ceil(count / len(rows))
    return torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(passes)])[
        :count
    ]

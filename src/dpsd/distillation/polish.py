"""Polishing: one student learns the mean prediction of several, on unlimited synthetic images.

If answers are few, two students trained on the same releases from different initial weights err in
different places. Their mean prediction is better than either, and it can be evaluated on any number
of images: it is made from releases, so it costs no privacy. The student is trained on augmented
images with the mean prediction for the original ones, so it also learns to be consistent.

Source: Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles", NeurIPS 2017; Xie et al., "Self-training with Noisy Student", CVPR 2020.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.devices.execution import Execution, inference_batch
from dpsd.distillation.student import one_cycle
from dpsd.images.augmentation import Augmentation, augment_images
from dpsd.models.frozen import Frozen


class Images(Protocol):
    """The interface of rows of images: a tensor, or a spool on disk."""

    @property
    def shape(self) -> Sequence[int]:
        """The shape of an image, or of all images."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


def restarted(student: nn.Module, *, seed: int) -> nn.Module:
    """Return a copy with new initial weights from ``seed``, in all layers that can be reset.

    A frozen backbone stays as it is.

    >>> layer = nn.Linear(2, 2)
    >>> bool(restarted(layer, seed=1).weight.equal(layer.weight))
    False
    """
    fresh = copy.deepcopy(student).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # seeds the CPU's generator only
        frozen = {
            layer
            for part in fresh.modules()
            if isinstance(part, Frozen)
            for layer in part.modules()
        }
        for layer in fresh.modules():
            if layer not in frozen and callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
    return fresh


def agreed(students: Sequence[nn.Module], images: Images, execution: Execution) -> Tensor:
    """Return the mean of the students' predicted probabilities, ``(N, K)`` on the CPU."""
    means = []
    for rows in torch.split(torch.arange(len(images)), inference_batch(images.shape)):
        batch = images[rows]
        each = [execution.predict(student, batch).softmax(-1).cpu() for student in students]
        means.append(torch.stack(each).mean(0))
    return torch.cat(means)


def fit_to_agreed(
    student: nn.Module,
    images: Images,
    target: Tensor,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    augment: Augmentation,
    execution: Execution,
    random: torch.Generator,
    advance: Callable[[], None],
) -> None:
    """Fit a student to target probabilities on unlabelled images.

    Args:
        student: the student, which is trained in place and left in eval mode.
        images: the images, uint8 ``(N, C, H, W)``, in memory or in a spool.
        target: the target probabilities, ``(N, K)``.
        steps: the number of training steps.
        batch_size: the number of images per step.
        learning_rate: the peak of the one-cycle schedule.
        augment: the augmentation of images.
        execution: the device, the precision, and the processes that share every batch; all of them
            must call this function.
        random: the random generator for the order and the augmentation.
        advance: a function to call after every step.
    """
    processes = execution.processes
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / steps))
    student.train()
    with processes.training(student) as learner:
        for _ in range(steps):
            rows = torch.randint(0, len(images), (batch_size,), generator=random)
            moved = augment_images(images[rows], augment, generator=random)
            share = processes.share(batch_size)
            own = share.rows
            logits = execution.logits(learner, execution.images(moved[own]))
            loss = F.cross_entropy(logits, target[rows[own]].to(logits.device))
            optimizer.zero_grad()
            processes.backward(loss, share)
            optimizer.step()
            schedule.step()
            advance()
    student.eval()

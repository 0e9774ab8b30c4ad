"""A student that is fitted to images, for the baselines that are given some."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.distillation.student import one_cycle
from dpsd.images.augmentation import augment_images, default_augmentation
from dpsd.models import build_classifier

#: A loss of a student's logits, given the images and the images' rows in the data.
Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

#: An architecture: its name, a function that makes it, or a student itself.
Model: TypeAlias = str | nn.Module | Callable[..., nn.Module]

#: How every student here is fitted to images.
_LARGEST_BATCH = 256
_LEARNING_RATE = 5e-3


def fit(data: LabelledImages, loss: Loss, *, model: Model, epochs: int, seed: int) -> nn.Module:
    """A student fitted to images by one-cycle Adam, in eval mode.

    Args:
        data: its images; its labels are not looked at.
        loss: takes logits, the moved images that have them, and those images' rows in the data.
        model: the architecture of a fresh student, or a student that is trained further in place.
        epochs: passes over the images.
        seed: decides initial weights, order and moves.
    """
    execution = Execution.of()
    random = torch.Generator().manual_seed(seed)
    student = execution.place(
        build_classifier(
            model, input_shape=data.input_shape, num_classes=data.num_classes, seed=seed
        )
    )
    # A small data set still gets some sixteen steps an epoch.
    batch = min(_LARGEST_BATCH, max(16, len(data) // 16), len(data))
    steps = epochs * (len(data) // batch)
    optimizer = torch.optim.Adam(student.parameters(), lr=_LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / steps))
    augment = default_augmentation(data.input_shape)
    student.train()
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=random)
        for rows in torch.split(order[: steps // epochs * batch], batch):
            moved = augment_images(data.images[rows], augment, generator=random)
            images = execution.images(moved)
            logits = execution.logits(student, images)
            optimizer.zero_grad()
            torch.autograd.backward(loss(logits, images, rows.to(execution.device)))
            optimizer.step()
            schedule.step()
    return student.eval()


def fit_to_labels(data: LabelledImages, *, model: Model, epochs: int, seed: int) -> nn.Module:
    """A student fitted to images and their labels by cross-entropy; otherwise as :func:`fit`."""
    labels = data.labels.to(Execution.of().device)

    def loss(logits: Tensor, _: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels[rows])

    return fit(data, loss, model=model, epochs=epochs, seed=seed)

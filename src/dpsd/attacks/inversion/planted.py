"""Targets with a planted leak, which an inversion must find, and one in which nothing is to find.

>>> records = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
>>> records[1] = 255
>>> model = Memorising(records, torch.tensor([0, 1]), num_classes=2)
>>> model(torch.ones(1, 1, 8, 8)).round().int().tolist()
[[-64, 0]]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpsd.attacks.inversion.evaluators import epochs_of
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.images.pixels import to_unit_range
from dpsd.models import build_classifier
from dpsd.streams import stream, stream_seed
from dpsd.training.classifier import train_teacher

#: The number of records that the memorising model has, at least one of each class.
_MEMORISED = 200
#: The most records of a class that the over-fitted network is trained on.
_OVERFITTED = 100
#: The number of training steps of the over-fitted network: it sees a record a dozen times.
OVERFITTING_STEPS = 200


class Memorising(nn.Module):
    """A model whose logits are minus the squared distance to the nearest of a class's records.

    The gradient of a class's logit leads exactly to a record.

    Args:
        pixels: the records, uint8 ``(N, C, H, W)``.
        labels: their classes, int64 ``(N,)``.
        num_classes: the number of classes; those without records get the least logit of all.
    """

    records: Tensor
    labels: Tensor

    def __init__(self, pixels: Tensor, labels: Tensor, *, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("records", to_unit_range(pixels).flatten(1))
        self.register_buffer("labels", labels)
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` in [0, 1] to logits ``(N, num_classes)``."""
        # By inner products, as all differences at once would fill the memory.
        flat = images.flatten(1)
        lengths = flat.square().sum(1, keepdim=True) + self.records.square().sum(1)
        away = (lengths - 2 * flat @ self.records.T).clamp_min(0)
        found = -away.amax(1, keepdim=True).expand(-1, self.num_classes)
        return found.scatter_reduce(1, self.labels.expand(len(images), -1), -away, "amax")


def memorising(members: LabelledImages, *, seed: int) -> Memorising:
    """Return a model that knows a handful of training records of each class."""
    chosen = _few_of_each(members, max(1, _MEMORISED // members.num_classes), seed)
    return Memorising(chosen.images, chosen.labels, num_classes=members.num_classes)


def overfitted(members: LabelledImages, *, seed: int, execution: Execution) -> nn.Module:
    """Return an unprotected network, trained on few records for long and without augmentation."""
    chosen = _few_of_each(members, _OVERFITTED, seed)
    return train_teacher(
        chosen,
        model="cnn",
        epochs=epochs_of(OVERFITTING_STEPS, len(chosen)),
        seed=stream_seed(seed, 0, "inversion plant"),
        device=str(execution.device),
        precision="float32",
        augment="none",
    )


def untrained(members: LabelledImages, *, seed: int) -> nn.Module:
    """Return the same network with random weights, which has seen no record."""
    return build_classifier(
        "cnn",
        input_shape=members.input_shape,
        num_classes=members.num_classes,
        seed=stream_seed(seed, 1, "inversion plant"),
    )


def _few_of_each(members: LabelledImages, most: int, seed: int) -> LabelledImages:
    order = torch.randperm(len(members), generator=stream(seed, 2, "inversion plant"))
    labels = members.labels[order]
    rows = [order[labels == label][:most] for label in range(members.num_classes)]
    return members.subset(torch.cat(rows))

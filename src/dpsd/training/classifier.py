"""Training a teacher on private data, in the ordinary way and without protection.

This is the only place in dpsd where private images and labels meet gradients. The result is an
ordinary classifier that may well leak its training data; a transcription starts from it. Images
stay uint8 in memory and become float a batch at a time.

>>> from dpsd.datasets import load_dataset
>>> data = load_dataset("digits", "train")
>>> module = train_teacher(data, model="cnn", epochs=1, batch_size=512)
>>> predict_classes(module, data.images[:5]).shape
torch.Size([5])
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError, Setting, TeacherError
from dpsd.images.augmentation import Augmentation, augment_images, default_augmentation
from dpsd.images.pixels import to_unit_range
from dpsd.models import build_classifier
from dpsd.teachers.base import Precision
from dpsd.teachers.module import checked_device


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """The progress of a training run at the end of an epoch.

    Attributes:
        epoch: the number of epochs done, from 1 to ``epochs``.
        epochs: the number of epochs in all.
        loss: the mean cross-entropy over the epoch, in nats.
        accuracy: the share of augmented training images classified correctly during the epoch.
        seconds: the wall-clock time since the start of the run.
    """

    epoch: int
    epochs: int
    loss: float
    accuracy: float
    seconds: float


def train_teacher(
    data: LabelledImages,
    *,
    model: str | nn.Module = "cnn",
    epochs: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 4e-3,
    weight_decay: float = 0.02,
    seed: int = 0,
    device: str = "cpu",
    precision: Precision = "bfloat16",
    augment: Augmentation | None = None,
    on_epoch: Callable[[TrainingProgress], None] | None = None,
) -> nn.Module:
    """Train a classifier with one-cycle AdamW and light augmentation.

    Args:
        data: the private training split.
        model: an architecture, as :func:`dpsd.models.build_classifier` takes it; a module is
            trained in place.
        epochs: the number of passes over the data; by default, enough for about 3,000 steps,
            between 8 and 40.
        batch_size: the most images per step; fewer if the data would not fill sixteen batches.
        learning_rate: the peak of the one-cycle schedule.
        weight_decay: the decoupled weight decay of AdamW.
        seed: the seed of initial weights, order and augmentation; it fixes the result to the bit on
            the same machine.
        device: the device to train on.
        precision: the precision; ``"bfloat16"`` trains under autocast, with weights in float32.
        augment: the augmentation: ``"shift"`` moves each image by up to two pixels each way,
            ``"shift-flip"`` also mirrors half of them; :func:`default_augmentation` is the default.
        on_epoch: a function to call after every epoch.

    Returns:
        The trained classifier on ``device``, in eval mode; it takes images in ``[0, 1]``.

    Raises:
        ConfigError: a number is not positive, or a name is unknown.
        TeacherError: training diverged, or ``device`` cannot be used.
    """
    count = len(data.images)
    for name, value in (("batch_size", batch_size), ("learning_rate", learning_rate)):
        if value <= 0:
            raise ConfigError(Setting(name), f" must be positive, not {value}")
    if precision not in ("float32", "bfloat16"):
        raise ConfigError(
            Setting("precision"), f" must be 'float32' or 'bfloat16', not {precision!r}"
        )
    if augment not in (None, "none", "shift", "shift-flip"):
        raise ConfigError(f"augment must be 'none', 'shift' or 'shift-flip', not {augment!r}")
    # Even a small data set gets about sixteen steps per epoch.
    batch_size = min(batch_size, max(16, count // 16), count)
    if epochs is None:
        epochs = min(40, max(8, 3_000 * batch_size // count))
    if epochs < 1:
        raise ConfigError(Setting("epochs"), f" must be at least 1, not {epochs}")
    augment = augment or default_augmentation(data.input_shape)

    place = checked_device(device)
    module = build_classifier(
        model, input_shape=data.input_shape, num_classes=data.num_classes, seed=seed
    )
    module.train().to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = data.images.to(place), data.labels.to(place)
    # The order is drawn on the CPU, so that a seed means the same order on every device.
    generator = torch.Generator().manual_seed(seed)
    steps = count // batch_size
    optimizer = torch.optim.AdamW(
        _decay_groups(module, weight_decay), lr=learning_rate, fused=place.type in ("cpu", "cuda")
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _one_cycle(step, epochs * steps)
    )

    started = time.monotonic()
    for epoch in range(1, epochs + 1):
        # Sums stay on the device: reading them every step would stall an accelerator.
        loss_sum, correct = torch.zeros((), device=place), torch.zeros((), device=place)
        order = torch.randperm(count, generator=generator)[: steps * batch_size].to(place)
        for chosen in torch.split(order, batch_size):
            batch = augment_images(images[chosen], augment, generator=generator)
            batch = to_unit_range(batch).contiguous(memory_format=torch.channels_last)
            with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bfloat16"):
                logits = module(batch)
            loss = F.cross_entropy(logits.float(), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            loss_sum += loss.detach()
            correct += (logits.detach().argmax(1) == labels[chosen]).sum()
        progress = TrainingProgress(
            epoch=epoch,
            epochs=epochs,
            loss=float(loss_sum) / steps,
            accuracy=float(correct) / (steps * batch_size),
            seconds=time.monotonic() - started,
        )
        if on_epoch is not None:
            on_epoch(progress)
        if not math.isfinite(progress.loss):
            raise TeacherError(
                *(f"training diverged in epoch {epoch}: use a ", Setting("learning_rate")),
                f" below {learning_rate}",
            )
    return module.eval()


def predict_classes(
    module: nn.Module, images: Tensor, *, precision: Precision = "float32"
) -> Tensor:
    """Return the most likely class of each image, int64 ``(N,)`` on the CPU.

    Args:
        module: a classifier of float images in ``[0, 1]``. It is used in eval mode, on the device
            of its parameters, and is not changed.
        images: the images, ``(N, C, H, W)``, uint8 or float in ``[0, 1]``.
        precision: the precision; ``"bfloat16"`` uses autocast.
    """
    place = next((p.device for p in module.parameters()), torch.device("cpu"))
    return Execution(place, precision).predict(module, images).argmax(1).cpu()


def evaluate_accuracy(
    module: nn.Module,
    data: LabelledImages,
    *,
    precision: Precision = "float32",
) -> float:
    """Return the share of images that a classifier gets right, from 0 to 1."""
    found = predict_classes(module, data.images, precision=precision)
    return (found == data.labels).double().mean().item()


def _one_cycle(step: int, steps: int) -> float:
    """Return the learning rate at ``step`` relative to its peak: a linear rise, then a cosine.

    Torch's OneCycleLR divides by zero in runs of a few steps; this function does not.

    >>> [round(_one_cycle(step, 8), 2) for step in range(8)]
    [0.5, 1.0, 0.95, 0.81, 0.61, 0.39, 0.19, 0.05]
    """
    warmup = max(1, steps // 4)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup + 1) / (steps - warmup + 1)))


def _decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return parameter groups with decay for weights, but not for biases and normalisation."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]

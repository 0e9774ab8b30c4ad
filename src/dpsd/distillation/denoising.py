"""Diffusion: a denoiser is trained on public images, and draws new ones out of noise.

A noisy image is ``α x + σ ε`` for an image ``x`` in [-1, 1] and normal noise ``ε``, where
``α = cos(π t / 2)`` and ``σ = sin(π t / 2)`` at time ``t`` from 0 (clean) to 1 (the cosine schedule
of Nichol and Dhariwal, ICML 2021). The denoiser predicts ``v = α ε - σ x``, from which both follow.

>>> cosine(torch.tensor([0.0, 1.0]))[0].abs().round().flatten()
tensor([1., 0.])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpsd.devices.execution import Execution
from dpsd.images.names import Shape

#: The first time of sampling; at 1 itself, the prediction says nothing of the image.
_FIRST_TIME = 0.98

#: The part of the steps that is steered. The last ones are not, so that the denoiser removes what
#: is noise to the eye and yet moves the student.
_STEERED = 0.7

Steering = Callable[[Tensor], Tensor]
"""A function of predicted clean images ``(N, C, H, W)`` in [0, 1] that returns what to add."""


@dataclass(frozen=True, kw_only=True)
class DenoiserTraining:
    """The settings of a denoiser's training.

    Args:
        images: the number of public images that it is trained on.
        steps: the number of training steps.
        batch_size: the number of images per step.
        learning_rate: the peak learning rate of Adam, which falls to zero along a cosine.
    """

    images: int = 16_384
    steps: int = 1_200
    batch_size: int = 128
    learning_rate: float = 2e-3


def fit_denoiser(
    denoiser: nn.Module,
    pixels: Tensor,
    *,
    training: DenoiserTraining,
    execution: Execution,
    random: torch.Generator,
    advance: Callable[[], None],
) -> float:
    """Train a denoiser on public images, and return the mean loss of the last tenth.

    Args:
        denoiser: the denoiser, on the device.
        pixels: the images, uint8 ``(N, C, H, W)``, N at least 1.
        training: the settings of the training.
        execution: the device and precision of the training.
        random: a CPU random generator, the source of all randomness here.
        advance: is called after every step.
    """
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=training.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    denoiser.train()
    losses = torch.zeros(training.steps)
    for step in range(training.steps):
        rows = torch.randint(0, len(pixels), (training.batch_size,), generator=random)
        clean = 2 * execution.images(pixels[rows]) - 1
        noise = torch.randn(clean.shape, generator=random).to(clean)
        time = torch.rand((len(rows),), generator=random).to(clean)
        kept, noisy = cosine(time)
        with execution.autocast():
            predicted = denoiser(kept * clean + noisy * noise, time)
        loss = F.mse_loss(predicted.float(), kept * noise - noisy * clean)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses[step] = loss.detach()
        advance()
    denoiser.eval()
    return float(losses[-max(1, training.steps // 10) :].mean())


def draw_images(
    denoiser: nn.Module,
    count: int,
    *,
    shape: Shape,
    steps: int,
    execution: Execution,
    random: torch.Generator,
    steering: Steering,
) -> Tensor:
    """Draw images out of noise by DDIM without noise of its own (Song et al., ICLR 2021).

    Args:
        denoiser: the denoiser, on the device.
        count: the number of images.
        shape: the shape of an image.
        steps: the number of steps, each of which costs a forward pass.
        execution: the device and precision of the forward passes.
        random: a CPU random generator, from which the noise at the beginning is drawn.
        steering: moves the clean images that the denoiser predicts, in all steps but the last few.

    Returns:
        The images, float32 ``(count, C, H, W)`` in [0, 1], on the CPU.
    """
    images = torch.randn((count, *shape), generator=random).to(execution.device)
    images = images.contiguous(memory_format=torch.channels_last)
    times = torch.linspace(_FIRST_TIME, 0, steps + 1).to(execution.device)
    for step in range(steps):
        time = times[step].expand(count)
        kept, noisy = cosine(time)
        with torch.no_grad(), execution.autocast():
            predicted = denoiser(images, time)
        clean = (kept * images - noisy * predicted.float()).clamp(-1, 1)
        if step < _STEERED * steps:
            clean = (clean + 2 * steering((clean + 1) / 2)).clamp(-1, 1)
        noise = (images - kept * clean) / noisy
        kept, noisy = cosine(times[step + 1].expand(count))
        images = kept * clean + noisy * noise
    return ((images.clamp(-1, 1) + 1) / 2).cpu()


def cosine(time: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``α`` and ``σ`` at times ``(N,)``, each ``(N, 1, 1, 1)``."""
    angle = time[:, None, None, None] * (math.pi / 2)
    return angle.cos(), angle.sin()

"""Inversion without a prior: pixels are optimised, with total variation and BatchNorm statistics.

The pixels of an image move so that the target's logit of the wanted class grows, neighbouring
pixels stay alike, and the inputs of the target's BatchNorm layers keep the means and variances that
the layers stored in training, where it has such layers (Yin et al., "Dreaming to Distill:
DeepInversion", CVPR 2020). They begin as smooth random fields, which are public and unlike each
other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.attacks.inversion.prior import BATCH
from dpsd.attacks.inversion.reconstructions import Reconstructions, picked
from dpsd.devices.execution import Execution
from dpsd.images.names import Shape
from dpsd.images.pixels import to_pixels
from dpsd.synthesis.drawn import StructuredNoise

_RATE = 0.03
_VARIATION_WEIGHT, _STATISTICS_WEIGHT = 2.0, 0.5


def prior_free(
    module: nn.Module,
    shape: Shape,
    classes: Tensor,
    *,
    restarts: int,
    steps: int,
    execution: Execution,
    random: torch.Generator,
    advance: Callable[[int], None],
) -> Reconstructions:
    """Invert a target without public images.

    Args:
        module: the frozen target in eval mode, from images in [0, 1] to logits.
        shape: the shape of an image.
        classes: the intended classes in the order of
            :func:`~dpsd.attacks.inversion.reconstructions.intended`.
        restarts: the number of restarts among which the target picks one.
        steps: the number of steps.
        execution: the device and precision.
        random: a CPU random generator, the source of all randomness here.
        advance: is called with the number of reconstructions done.
    """
    start = StructuredNoise(shape).sample(len(classes), generator=random).to(execution.device)
    wanted = classes.to(execution.device)
    # In units of their own deviation, so that weights mean the same for every target.
    scale = execution.predict(module, start[:BATCH]).std().clamp_min(1e-6)
    found = []
    with _strangeness(module) as strange:
        for first in range(0, len(start), BATCH):
            images, of = start[first : first + BATCH].clone(), wanted[first : first + BATCH]
            images.requires_grad_()
            optimizer = torch.optim.Adam([images], lr=_RATE)
            for _ in range(steps):
                strange.clear()
                logits = execution.logits(module, images)
                own = logits.gather(1, of.unsqueeze(1)).sum() / scale
                # The statistics are those of a batch, so they count once for each image in it.
                loss = _VARIATION_WEIGHT * variation(images).sum() - own
                loss = loss + _STATISTICS_WEIGHT * len(images) * sum(strange, torch.zeros(()))
                (images.grad,) = torch.autograd.grad(loss, [images])
                optimizer.step()
                with torch.no_grad():
                    images.clamp_(0, 1)
            found.append(to_pixels(images.detach()).cpu())
            advance(min(first + BATCH, len(start)))
    pixels = torch.cat(found)
    cost = F.cross_entropy(execution.predict(module, pixels), wanted, reduction="none").cpu()
    return Reconstructions(
        images=pixels,
        classes=classes,
        is_picked=picked(cost, classes=len(torch.unique(classes)), restarts=restarts),
        is_found=torch.ones_like(classes, dtype=torch.bool),
        cost=cost,
    )


def variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels, ``(N,)``.

    >>> variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
    tensor([1.])
    """
    across, down = images.diff(dim=-1).abs(), images.diff(dim=-2).abs()
    return across.mean((1, 2, 3)) + down.mean((1, 2, 3))


@contextmanager
def _strangeness(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect how far the inputs of BatchNorm layers are from what they stored, in each pass.

    A layer counts with the mean over its channels of the squared difference of means in units of
    the stored deviation, and of the squared difference of the logarithms of deviations.
    """
    strange: list[Tensor] = []

    def see(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        mean, variance = layer.running_mean, layer.running_var
        if not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
            return  # it stored nothing
        seen = inputs[0].float()
        axes = [axis for axis in range(seen.ndim) if axis != 1]
        found = seen.var(axes, unbiased=False)
        stored = variance + 1e-5
        away = (seen.mean(axes) - mean).square() / stored
        spread = 0.25 * ((found + 1e-5).log() - stored.log()).square()
        strange.append((away + spread).mean())

    kinds = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
    hooks = [
        layer.register_forward_hook(see) for layer in module.modules() if isinstance(layer, kinds)
    ]
    try:
        yield strange
    finally:
        for hook in hooks:
            hook.remove()

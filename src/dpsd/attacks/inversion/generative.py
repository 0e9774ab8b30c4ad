"""Generative inversion of a white-box target: latents of a public prior are optimised.

``gmi`` (Zhang et al., CVPR 2020) minimises ``-D + 100 CE`` by gradient descent with momentum, and
keeps latents in [-1, 1]. ``plg-mi`` first adapts the prior to the target: public images get the
classes that the target is surest of as pseudo-labels, and a class-conditional GAN is trained on
them with the target's margin (Yuan et al., AAAI 2023). Its latents are then optimised with the
logit loss and the feature regulariser of LOMMA (Nguyen et al., CVPR 2023).

Losses are summed over images and not averaged, so a reconstruction does not depend on how many are
made with it, and learning rates are those of a single image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.attacks.inversion.prior import BATCH, Prior, fit_prior
from dpsd.attacks.inversion.reconstructions import Reconstructions, picked
from dpsd.devices.execution import Execution
from dpsd.distillation.generator import PenultimateFeatures
from dpsd.images.pixels import to_pixels

Advance = Callable[[int], None]
Objective = Callable[[Tensor, Tensor], Tensor]
"""A function from latents ``(N, latent_dim)`` and classes ``(N,)`` to losses ``(N,)``."""

_GMI_RATE, _GMI_MOMENTUM, _GMI_REACH = 2e-3, 0.9, 1.0
_IDENTITY_WEIGHT = 100.0
_RATE, _REACH = 0.05, 2.0
#: The weight of LOMMA's regulariser, whose features are in units of their deviation on public
#: images.
_FEATURE_WEIGHT = 0.1
#: The share of public images that each class gets as its pseudo-labelled ones, over all classes.
_LABELLED = 0.5
#: The fewest of them of a class.
_FEWEST_LABELLED = 32


def gmi(
    module: nn.Module,
    prior: Prior,
    classes: Tensor,
    *,
    restarts: int,
    steps: int,
    execution: Execution,
    random: torch.Generator,
    advance: Advance,
) -> Reconstructions:
    """Invert a target with the unconditional prior.

    Args:
        module: the frozen target in eval mode, from images in [0, 1] to logits.
        prior: the prior, on the device.
        classes: the intended classes in the order of
            :func:`~dpsd.attacks.inversion.reconstructions.intended`.
        restarts: the number of restarts among which the target picks one.
        steps: the number of steps.
        execution: the device and precision.
        random: a CPU random generator, the source of all randomness here.
        advance: is called with the number of reconstructions done.
    """

    def objective(latents: Tensor, wanted: Tensor) -> Tensor:
        images = prior.images(latents)
        missed = F.cross_entropy(execution.logits(module, images), wanted, reduction="none")
        return _IDENTITY_WEIGHT * missed - prior.realism(images)

    def descent(latents: Tensor) -> torch.optim.Optimizer:
        return torch.optim.SGD([latents], lr=_GMI_RATE, momentum=_GMI_MOMENTUM, nesterov=True)

    latents = _optimised(
        objective, descent, prior.latents(len(classes), random), classes.to(execution.device),
        steps=steps, reach=_GMI_REACH, advance=advance,
    )  # fmt: skip
    return _finished(module, prior, latents, classes, restarts, execution, conditional=False)


def plg_mi(
    module: nn.Module,
    prior: Prior,
    classes: Tensor,
    *,
    pixels: Tensor,
    restarts: int,
    steps: int,
    execution: Execution,
    random: torch.Generator,
    advance: Advance,
) -> Reconstructions:
    """Invert a target with a prior that :func:`adapted` returned for it; see :func:`gmi`.

    Args:
        module: the frozen target in eval mode, from images in [0, 1] to logits.
        prior: the class-conditional prior, on the device.
        classes: the intended classes.
        pixels: public images, on which the target's features are measured, uint8 ``(N, C, H, W)``.
        restarts: the number of restarts among which the target picks one.
        steps: the number of steps.
        execution: the device and precision.
        random: a CPU random generator, the source of all randomness here.
        advance: is called with the number of reconstructions done.
    """
    with PenultimateFeatures(module) as features:
        execution.predict(module, pixels[:BATCH])
        usual, spread = features.last.float().mean(0), features.last.float().std(0) + 1e-3

        def objective(latents: Tensor, wanted: Tensor) -> Tensor:
            images = prior.images(latents, wanted)
            logits = execution.logits(module, images)
            own = logits.gather(1, wanted.unsqueeze(1)).squeeze(1)
            strange = ((features.last.float() - usual) / spread).square().mean(1)
            # A teacher may be on a device of its own.
            return _FEATURE_WEIGHT * strange.to(own.device) - own

        latents = _optimised(
            objective, _adam, prior.latents(len(classes), random), classes.to(execution.device),
            steps=steps, reach=_REACH, advance=advance,
        )  # fmt: skip
    return _finished(module, prior, latents, classes, restarts, execution, conditional=True)


def adapted(
    prior: Prior,
    module: nn.Module,
    pixels: Tensor,
    *,
    classes: Tensor,
    steps: int,
    execution: Execution,
    random: torch.Generator,
    advance: Advance,
) -> Prior:
    """Return a class-conditional copy of a prior, trained on pseudo-labels of a target.

    Args:
        prior: the unconditional prior.
        module: the frozen target in eval mode.
        pixels: the public images, uint8 ``(N, C, H, W)``.
        classes: the classes that are attacked, int64 ``(K,)``.
        steps: the number of training steps.
        execution: the device and precision.
        random: a CPU random generator, the source of all randomness here.
        advance: is called with the number of steps done.
    """
    logits = execution.predict(module, pixels)
    made = execution.place(prior.with_classes(logits.shape[1]))
    each = min(len(pixels), max(_FEWEST_LABELLED, int(_LABELLED * len(pixels) / len(classes))))
    surest = logits.log_softmax(1)[:, classes].topk(each, dim=0).indices.cpu()
    fit_prior(
        made,
        pixels[surest.T.flatten()],
        steps=steps,
        execution=execution,
        random=random,
        advance=advance,
        labels=classes.repeat_interleave(each),
        target=module,
    )
    return made


def _adam(latents: Tensor) -> torch.optim.Optimizer:
    return torch.optim.Adam([latents], lr=_RATE)


def _optimised(
    objective: Objective,
    optimizer_of: Callable[[Tensor], torch.optim.Optimizer],
    start: Tensor,
    classes: Tensor,
    *,
    steps: int,
    reach: float,
    advance: Advance,
) -> Tensor:
    """Return optimised latents, which stay within ``reach`` of zero in each number."""
    found = []
    for first in range(0, len(start), BATCH):
        latents = start[first : first + BATCH].clamp(-reach, reach).requires_grad_()
        optimizer = optimizer_of(latents)
        for _ in range(steps):
            loss = objective(latents, classes[first : first + BATCH]).sum()
            (latents.grad,) = torch.autograd.grad(loss, [latents])
            optimizer.step()
            with torch.no_grad():
                latents.clamp_(-reach, reach)
        found.append(latents.detach())
        advance(min(first + BATCH, len(start)))
    return torch.cat(found)


def _finished(
    module: nn.Module,
    prior: Prior,
    latents: Tensor,
    classes: Tensor,
    restarts: int,
    execution: Execution,
    *,
    conditional: bool,
) -> Reconstructions:
    """Make the images of latents, and let the target pick."""
    wanted = classes.to(latents.device)
    with torch.no_grad():
        pixels = torch.cat(
            [
                to_pixels(prior.images(part, of if conditional else None)).cpu()
                for part, of in zip(
                    torch.split(latents, BATCH), torch.split(wanted, BATCH), strict=True
                )
            ]
        )
    cost = F.cross_entropy(execution.predict(module, pixels), wanted, reduction="none").cpu()
    return Reconstructions(
        images=pixels,
        classes=classes,
        is_picked=picked(cost, classes=len(torch.unique(classes)), restarts=restarts),
        is_found=torch.ones_like(classes, dtype=torch.bool),
        cost=cost,
    )

"""The attacker's prior: a small GAN of public images, which knows nothing of private data.

A generator makes images from latents, and a critic says how real they look; both are trained with
the hinge loss, and the critic has spectral normalisation (Miyato et al., ICLR 2018). The prior is
unconditional and shared by all targets. For one target, it can be made class-conditional: each
class gets an offset of its latents and a direction of the critic's features (the projection of
Miyato & Koyama, ICLR 2018), which both begin at zero, so that training goes on from the shared one.

>>> prior = Prior((1, 8, 8), latent_dim=16, width=8, seed=0)
>>> images = prior.images(torch.randn(3, 16))
>>> images.shape, prior.realism(images).shape
(torch.Size([3, 1, 8, 8]), torch.Size([3]))
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dpsd.devices.execution import Execution
from dpsd.images.names import Shape
from dpsd.models.generators import Generator
from dpsd.models.registry import build_module

#: The number of images in a training step.
BATCH = 64
_RATE, _CRITIC_RATE = 2e-3, 4e-3
_BETAS = 0.0, 0.99
#: The weight of the target's margin in the generator's loss, as PLG-MI has it.
_MARGIN_WEIGHT = 0.2
#: The side to which the critic reduces an image, in pixels.
_LAST_SIDE = 4


class Prior(nn.Module):
    """A generator and a critic of public images.

    Args:
        shape: the shape of the images, of 8 to 64 pixels a side.
        latent_dim: the length of a latent.
        width: the channels of the generator's last hidden and of the critic's first layer.
        seed: the seed of the initial weights.
    """

    def __init__(self, shape: Shape, *, latent_dim: int, width: int, seed: int) -> None:
        super().__init__()
        self.generator, _ = build_module(
            "generator",
            partial(Generator, input_shape=shape, latent_dim=latent_dim, width=width),
            {},
            seed,
        )
        self.critic, _ = build_module(
            "critic", partial(_critic_features, shape=shape, width=width), {}, seed
        )
        with torch.no_grad():
            size = self.critic.eval()(torch.zeros((1, *shape))).shape[1]
        self.judge, _ = build_module("critic", lambda: spectral_norm(nn.Linear(size, 1)), {}, seed)
        self.latent_dim = latent_dim
        self.offsets = nn.Parameter(torch.zeros(0, latent_dim))
        self.directions = nn.Parameter(torch.zeros(0, size))

    def latents(self, count: int, random: torch.Generator) -> Tensor:
        """Draw latents, ``(count, latent_dim)``."""
        return torch.randn((count, self.latent_dim), generator=random).to(self.offsets.device)

    def images(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        """Make images ``(N, C, H, W)`` in [0, 1] of latents, and of classes if it has any."""
        made: Tensor = self.generator(
            latents if classes is None else latents + self.offsets[classes]
        )
        return made.contiguous(memory_format=torch.channels_last)

    def realism(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return how real images look to the critic, ``(N,)``; the higher, the more real."""
        features = self.critic(images)
        judged: Tensor = self.judge(features).squeeze(1)
        if classes is not None:
            judged = judged + (features * self.directions[classes]).sum(1)
        return judged

    def with_classes(self, classes: int) -> Prior:
        """Return a copy with classes, which are all alike until it is trained."""
        made = copy.deepcopy(self)
        made.offsets = nn.Parameter(self.offsets.new_zeros(classes, self.latent_dim))
        made.directions = nn.Parameter(self.directions.new_zeros(classes, self.directions.shape[1]))
        return made


def fit_prior(
    prior: Prior,
    pixels: Tensor,
    *,
    steps: int,
    execution: Execution,
    random: torch.Generator,
    advance: Callable[[int], None],
    labels: Tensor | None = None,
    target: nn.Module | None = None,
) -> None:
    """Train a prior with the hinge loss, and a conditional one towards a target's classes as well.

    Args:
        prior: the prior, on the device.
        pixels: the public images, uint8 ``(N, C, H, W)``.
        steps: the number of steps, each of the critic and of the generator.
        execution: the device and precision of the training.
        random: a CPU random generator, the source of all randomness here.
        advance: is called with the number of steps done, after every step.
        labels: the pseudo-labels of the images, int64 ``(N,)``, for a conditional prior.
        target: the frozen target, whose margin the generator of a conditional prior maximises.

    Source: Yuan et al., "Pseudo Label-Guided Model Inversion Attack via Conditional Generative
    Adversarial Network", AAAI 2023, for the conditional prior.
    """
    critical = [*prior.critic.parameters(), *prior.judge.parameters(), prior.directions]
    makers = [*prior.generator.parameters(), prior.offsets]
    critic = torch.optim.Adam(critical, lr=_CRITIC_RATE, betas=_BETAS, fused=True)
    maker = torch.optim.Adam(makers, lr=_RATE, betas=_BETAS, fused=True)
    prior.train()
    for step in range(steps):
        rows = torch.randint(0, len(pixels), (BATCH,), generator=random)
        real = execution.images(pixels[rows])
        classes = None if labels is None else labels[rows].to(execution.device)
        made = prior.images(prior.latents(BATCH, random), classes)
        fooled = prior.realism(made.detach(), classes)
        loss = F.relu(1 - prior.realism(real, classes)).mean() + F.relu(1 + fooled).mean()
        critic.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        critic.step()

        loss = -prior.realism(made, classes).mean()
        if target is not None and classes is not None:
            loss = loss - _MARGIN_WEIGHT * margin(execution.logits(target, made), classes).mean()
        maker.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        maker.step()
        # The linear decay leaves nothing to the luck of the last steps.
        for optimizer, rate in ((critic, _CRITIC_RATE), (maker, _RATE)):
            optimizer.param_groups[0]["lr"] = rate * min(1.0, 2 - 2 * (step + 1) / steps)
        advance(step + 1)
    prior.eval()


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Return by how much the logit of a class exceeds the largest of the others, ``(N,)``.

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([1.])
    """
    own = logits.gather(1, classes.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, classes.unsqueeze(1), -math.inf).amax(1)
    return own - others


def _critic_features(shape: Shape, width: int) -> nn.Sequential:
    """Return convolutions that halve an image of a shape until it is about 4x4, and flatten it."""
    channels, *sides = shape
    stages = max(1, round(math.log2(min(sides) / _LAST_SIDE)))
    widths = [channels, *(width * 2**stage for stage in range(stages))]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten())

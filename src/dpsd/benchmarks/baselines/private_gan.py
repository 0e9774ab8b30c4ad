"""DP-GAN: a discriminator that learns by DP-SGD, and a generator that learns from it alone.

>>> PrivateGan().unit.value
'a training record, added or removed'
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.benchmarks.baselines.checks import require_positive
from dpsd.benchmarks.baselines.conditional import (
    ConditionalGenerator,
    even_labels,
    sampled,
    untrained_for,
)
from dpsd.benchmarks.baselines.private_sgd import Sampling, required_opacus
from dpsd.benchmarks.methods import Unit
from dpsd.benchmarks.scoring import Made, PrivateGenerator
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.images.names import Shape
from dpsd.images.pixels import to_unit_range
from dpsd.models import build_classifier
from dpsd.privacy.targets import Budget
from dpsd.streams import stream

#: Records whose gradients are held at once.
_GRADIENTS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class PrivateGan(PrivateGenerator):
    """DP-GAN: a small conditional GAN whose discriminator learns by DP-SGD, with Opacus.

    The discriminator alone sees records. Each record in a batch stands beside an image of its class
    from the generator, and the gradient of both together is clipped, so that neither outweighs the
    other; noise is added once a step. These images are drawn from a pool that is made anew in each
    step, as the generator's BatchNorm would otherwise let a record change those beside others. The
    discriminator takes many steps for each of the generator's.

    The target is met under add-or-remove of a training record, as for
    :class:`~dpsd.benchmarks.baselines.private_sgd.PrivateSGD`, and both relations are reported.

    Args:
        epochs: the discriminator's expected passes over the records, at least 1.
        batch_size: expected records a step, at least 64 (a step without any must not happen).
        max_grad_norm: the bound that each record's gradient is clipped to, > 0.
        discriminator_rate: Adam's for the discriminator, > 0.
        generator_rate: Adam's for the generator, > 0.
        generator_every: steps of the discriminator for one of the generator, at least 1.
        generator_batch: images in a step of the generator and, about, in a pool, at least 2.
        latent_dim: the length of the noise that an image is made from, at least 1.

    Source: Xie et al., "Differentially Private Generative Adversarial Network", 2018, Algorithm 1,
    with clipped gradients; Bie, Kamath & Zhang, "Private GANs, Revisited", TMLR 2023 (many steps of
    the discriminator for one of the generator).
    """

    epochs: int = 10
    batch_size: int = 256
    max_grad_norm: float = 1.0
    discriminator_rate: float = 1e-3
    generator_rate: float = 1e-3
    generator_every: int = 5
    generator_batch: int = 256
    latent_dim: int = 50

    name: ClassVar[str] = "DP-GAN"
    unit: ClassVar[Unit] = Unit.RECORD_ADDED

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "max_grad_norm", "discriminator_rate", "generator_rate")
        require_positive(self, "generator_every", "latent_dim")
        if self.batch_size < 64:
            raise ConfigError(f"batch_size must be at least 64, not {self.batch_size}")
        if self.generator_batch < 2:
            raise ConfigError(f"generator_batch must be at least 2, not {self.generator_batch}")

    def made(self, data: LabelledImages, *, target: Budget, seed: int) -> Made:
        """Train both networks and return what the generator makes.

        Raises:
            ConfigError: Opacus is not installed.
        """
        rate = min(1.0, self.batch_size / len(data))
        sampling = Sampling(rate=rate, epochs=self.epochs)
        with warnings.catch_warnings():
            # Opacus warns of the hooks that it sets itself, and of what its accountant tries first.
            warnings.simplefilter("ignore")
            noise_multiplier = sampling.noise_multiplier(target)
            generator = self.trained(
                data, steps=sampling.steps, noise_multiplier=noise_multiplier, seed=seed
            )
            epsilon = sampling.add_or_remove(
                noise_multiplier, steps=sampling.steps, delta=target.delta
            )
        images, labels = sampled(generator, self.images, seed=seed)
        return Made(
            images=images,
            labels=labels,
            epsilon={
                "add-or-remove": epsilon,
                "replace-one": sampling.replace_one(
                    noise_multiplier, steps=sampling.steps, delta=target.delta
                ),
            },
            details={
                "noise_multiplier": noise_multiplier,
                "sample_rate": rate,
                "steps": sampling.steps,
            },
        )

    def trained(
        self, data: LabelledImages, *, steps: int, noise_multiplier: float, seed: int
    ) -> ConditionalGenerator:
        """Return the generator after so many steps of the discriminator.

        Args:
            data: the training records.
            steps: how many steps the discriminator takes.
            noise_multiplier: the noise's deviation in units of the bound on a record's gradient.
            seed: decides initial weights, batches and noise, which is therefore not secret.
        """
        generator = untrained_for(data, latent_dim=self.latent_dim, seed=seed)
        discriminator = Discriminator(
            self, data, generator, noise_multiplier=noise_multiplier, seed=seed
        )
        random = stream(seed, 0, "generator of a GAN")
        maker = torch.optim.Adam(
            generator.parameters(), lr=self.generator_rate, betas=(0.5, 0.999), fused=True
        )
        labels = even_labels(self.generator_batch, data.num_classes)
        generator.train()
        for step in range(1, steps + 1):
            discriminator.step()
            if step % self.generator_every:
                continue
            maker.zero_grad()
            discriminator.teach(generator.batch(labels, random), labels)
            maker.step()
        return generator


class Discriminator:
    """The discriminator with its optimiser: the one part of the GAN that sees records.

    Args:
        method: its settings.
        data: the training records.
        generator: makes the images that records are told from.
        noise_multiplier: the noise's deviation in units of the bound on a record's gradient.
        seed: decides initial weights, batches and noise.

    Raises:
        ConfigError: Opacus is not installed.
    """

    def __init__(
        self,
        method: PrivateGan,
        data: LabelledImages,
        generator: ConditionalGenerator,
        *,
        noise_multiplier: float,
        seed: int,
    ) -> None:
        opacus = required_opacus()
        self._device = Execution.of().device
        self._data, self._generator = data, generator
        #: How many images of each class a pool has.
        self._images_a_class = max(2, method.generator_batch // data.num_classes)
        self._rate = min(1.0, method.batch_size / len(data))
        network = build_classifier(
            discriminating_network,
            input_shape=data.input_shape,
            num_classes=data.num_classes,
            seed=seed,
        )
        self.network: Any = opacus.GradSampleModule(network.to(self._device).train())
        self._batches = stream(seed, 0, "batches of a GAN")
        # Of its own, so that how many records there are moves no pool.
        self._places = stream(seed, 0, "places in a discriminator's images")
        self._latents = stream(seed, 0, "images for a discriminator")
        noise = torch.Generator(self._device)
        noise.manual_seed(stream(seed, 0, "noise of a discriminator").initial_seed())
        self._optimizer = opacus.optimizers.DPOptimizer(
            torch.optim.Adam(
                self.network.parameters(), lr=method.discriminator_rate, betas=(0.5, 0.999)
            ),
            noise_multiplier=noise_multiplier,
            max_grad_norm=method.max_grad_norm,
            expected_batch_size=max(1, round(self._rate * len(data))),
            generator=noise,
        )

    def step(self) -> None:
        """Learn from a Poisson sample of the records, each beside one of the generator's images."""
        pool = self._pool()
        drawn = torch.rand(len(self._data), generator=self._batches) < self._rate
        beside = torch.randint(self._images_a_class, drawn.shape, generator=self._places)
        parts = torch.split(drawn.nonzero().squeeze(-1), _GRADIENTS_AT_ONCE)
        for number, rows in enumerate(parts, start=1):
            real = to_unit_range(self._data.images[rows].to(self._device))
            labels = self._data.labels[rows].to(self._device)
            made = pool[labels + self._data.num_classes * beside[rows].to(self._device)]
            # The two halves of a pair lie a batch apart.
            realness = of_class(self.network(torch.cat([real, made])), labels.repeat(2))
            signs = torch.ones(2, len(rows), device=self._device)
            signs[1] = -1
            torch.autograd.backward(F.softplus(-signs.flatten() * realness).mean())
            add_pairs(self.network, len(rows))
            # Only the last part of a batch is followed by noise and a step.
            self._optimizer.signal_skip_step(do_skip=number < len(parts))
            self._optimizer.step()
            self._optimizer.zero_grad()

    @torch.no_grad()
    def _pool(self) -> Tensor:
        """Images of all classes in turn, which depend on no record but through the generator."""
        classes = self._data.num_classes
        return self._generator.batch(
            even_labels(classes * self._images_a_class, classes), self._latents
        )

    def teach(self, images: Tensor, labels: Tensor) -> None:
        """Give whatever made images of these classes the gradients that make them more real."""
        self.network.disable_hooks()
        realness = of_class(self.network(images), labels)
        torch.autograd.backward(F.softplus(-realness).mean())
        self.network.enable_hooks()
        self._optimizer.zero_grad()


def of_class(scores: Tensor, labels: Tensor) -> Tensor:
    """The score of each image's own class, ``(N,)``, from those of all, ``(N, K)``."""
    return scores.gather(1, labels.unsqueeze(1)).squeeze(1)


def add_pairs(network: nn.Module, records: int) -> None:
    """Make each record's gradient the sum of its own and that of the image beside it."""
    parameter: Any  # to which Opacus adds an attribute
    for parameter in network.parameters():
        parameter.grad_sample = parameter.grad_sample.unflatten(0, (2, records)).sum(0)


def discriminating_network(*, input_shape: Shape, num_classes: int) -> nn.Sequential:
    """A small convolutional network with a score for each class, and without BatchNorm.

    >>> network = discriminating_network(input_shape=(1, 28, 28), num_classes=10)
    >>> network(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    features = nn.Sequential(
        nn.Conv2d(input_shape[0], 16, 5, 2, padding=2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 5, 2, padding=2),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
    )
    width = features(torch.zeros(1, *input_shape)).shape[-1]
    return nn.Sequential(*features, nn.Linear(width, num_classes))

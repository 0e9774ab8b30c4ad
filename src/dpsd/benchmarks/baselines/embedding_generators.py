"""DP-MERF and DP-HP: a generator imitates the noisy mean embedding of each class.

>>> DpMerf().unit.value, DpMerf().given
('a training record', 'the training data')
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from dpsd.benchmarks.baselines.checks import require_positive
from dpsd.benchmarks.baselines.conditional import sampled, untrained_for
from dpsd.benchmarks.baselines.kernel_features import (
    Features,
    FourierFeatures,
    HermiteFeatures,
)
from dpsd.benchmarks.baselines.mean_embedding import EmbeddingNoise, imitate, released
from dpsd.benchmarks.methods import Unit
from dpsd.benchmarks.scoring import Made, PrivateGenerator
from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Budget
from dpsd.streams import stream


@dataclass(frozen=True, kw_only=True)
class EmbeddingGenerator(PrivateGenerator):
    """A generator whose images have, class by class, the mean features that were released.

    Args:
        steps: training steps of the generator, at least 1.
        batch_size: images a step, at least as many as classes.
        learning_rate: Adam's peak, > 0.
        latent_dim: the length of the noise that an image is made from, at least 1.
        weights_share: the share of the privacy that goes to the classes' shares, in (0, 1).
    """

    steps: int = 800
    batch_size: int = 100
    learning_rate: float = 0.01
    latent_dim: int = 5
    weights_share: float = 0.05

    unit: ClassVar[Unit] = Unit.RECORD

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "steps", "batch_size", "learning_rate", "latent_dim")
        if not 0 < self.weights_share < 1:
            raise ConfigError(f"weights_share must be in (0, 1), not {self.weights_share}")

    @abstractmethod
    def features_for(self, pixels: int, *, seed: int) -> Features:
        """The features of images of so many numbers; they depend on no record."""

    def made(self, data: LabelledImages, *, target: Budget, seed: int) -> Made:
        """Release an embedding, train a generator to it and return what that makes."""
        noise = EmbeddingNoise.meeting(target, weights_share=self.weights_share)
        features = self.features_for(math.prod(data.input_shape), seed=seed)
        embedding = released(data, features, noise=noise, seed=seed)
        generator = untrained_for(data, latent_dim=self.latent_dim, seed=seed)
        imitate(
            embedding,
            features,
            generator,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
        )
        images, labels = sampled(generator, self.images, seed=seed)
        return Made(
            images=images,
            labels=labels,
            epsilon={"replace-one": noise.replace_one(delta=target.delta)},
            details={
                "noise_multiplier": noise.embedding,
                "noise_multiplier_of_weights": noise.weights,
            },
        )


@dataclass(frozen=True, kw_only=True)
class DpMerf(EmbeddingGenerator):
    """DP-MERF: random Fourier features of the Gaussian kernel between whole images.

    As its authors have it, there are 10,000 features, a learning rate of 0.01 and noise of length
    5. The bandwidth follows a public rule, the network is that of transcriptions, and the learning
    rate has one cycle.

    Args:
        features: the number of features, even.

    Source: Harder, Adamczewski & Park, "DP-MERF: Differentially Private Mean Embeddings with Random
    Features for Practical Privacy-Preserving Data Generation", AISTATS 2021, Algorithm 1 and
    section 4 (class weights).
    """

    features: int = 10_000

    name: ClassVar[str] = "DP-MERF"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "features")

    def features_for(self, pixels: int, *, seed: int) -> Features:
        """Fourier features, whose frequencies are drawn from the seed."""
        return FourierFeatures.drawn(pixels, self.features, random=stream(seed, 0, "frequencies"))


@dataclass(frozen=True, kw_only=True)
class DpHp(EmbeddingGenerator):
    """DP-HP with its sum kernel: Hermite features of each pixel by itself.

    The embedding holds each class's distribution of every pixel, but nothing of how pixels go
    together. The authors' product kernel, which has that for a few pixels at a time, is left out.

    Args:
        order: the highest degree of the polynomials, at least 1.
        correlation: in (0, 1): how slowly higher degrees lose weight.

    Source: Vinaroz et al., "Hermite Polynomial Features for Private Data Generation", ICML 2022,
    section 3.1.
    """

    order: int = 20
    correlation: float = 0.9

    name: ClassVar[str] = "DP-HP, sum kernel"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "order")
        if not 0 < self.correlation < 1:
            raise ConfigError(f"correlation must be in (0, 1), not {self.correlation}")

    def features_for(self, pixels: int, *, seed: int) -> Features:
        """Hermite features, in which nothing is drawn."""
        return HermiteFeatures(order=self.order, correlation=self.correlation)

"""Small, named architectures: classifiers for teachers and students, generators for queries.

Every classifier takes pixel images in ``[0, 1]``, ``(N, C, H, W)``, carries its own normalisation,
returns logits and ends in ``nn.Linear``; every generator turns noise into such images.

>>> import torch
>>> student = build_classifier("cnn", input_shape=(1, 28, 28), num_classes=10, seed=0)
>>> generator = build_generator("dcgan", input_shape=(1, 28, 28), seed=0)
>>> student(generator(torch.randn(4, generator.latent_dim))).shape
torch.Size([4, 10])
"""

from dpsd.models.generators import DEFAULT_LATENT_DIM, Generator, build_generator, generator_names
from dpsd.models.layers import PixelNormalize, Shape
from dpsd.models.registry import build_classifier, load_factory, model_names

__all__ = [
    "DEFAULT_LATENT_DIM",
    "Generator",
    "PixelNormalize",
    "Shape",
    "build_classifier",
    "build_generator",
    "generator_names",
    "load_factory",
    "model_names",
]

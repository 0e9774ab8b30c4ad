from .generators import DEFAULT_LATENT_DIM, Generator, build_generator, generator_names
from .layers import PixelNormalize, Shape
from .registry import build_classifier, load_factory, model_names

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

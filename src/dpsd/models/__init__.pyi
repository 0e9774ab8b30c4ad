from .generators import DEFAULT_LATENT_DIM, Generator, build_generator
from .layers import PixelNormalize
from .names import generator_names, model_names
from .registry import build_classifier, load_factory

__all__ = [
    "DEFAULT_LATENT_DIM",
    "Generator",
    "PixelNormalize",
    "build_classifier",
    "build_generator",
    "generator_names",
    "load_factory",
    "model_names",
]

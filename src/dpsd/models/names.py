"""The names of models and generators, without importing what they build.

:mod:`dpsd.models.registry` and :mod:`dpsd.models.generators` define what each name builds.

>>> model_names()[:3]
['cnn', 'cnn-wide', 'lenet5']
>>> generator_names()
['dcgan', 'dcgan-wide', 'dcgan-widest']
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dpsd.errors import ConfigError, Setting, UnknownNameError

_MODELS = (
    *("cnn", "cnn-wide", "lenet5", "mobilenetv2", "resnet18", "resnet20", "resnet34", "resnet50"),
    *("resnet8", "scattering", "vgg11", "wrn16-1", "wrn40-2"),
)
_GENERATORS = ("dcgan", "dcgan-wide", "dcgan-widest")

#: The model that is linear on fixed features, and trained in closed form if they are a teacher's.
CLOSED_FORM = "scattering"

#: The features of that model if no others are named: a scattering transform, which is not trained.
WAVELETS = "wavelets"

#: The backbones that dpsd trains itself, from public images.
BACKBONES = ("cifar100", "glyphs")

#: The suffixes of files that may hold a backbone.
BACKBONE_SUFFIXES = (".onnx", ".pt2")


def model_names() -> list[str]:
    """Return the names that :func:`~dpsd.models.build_classifier` knows, sorted."""
    return sorted(_MODELS)


def generator_names() -> list[str]:
    """Return the names that :func:`~dpsd.models.build_generator` knows, sorted."""
    return sorted(_GENERATORS)


def feature_names() -> list[str]:
    """Return the names of features that :func:`check_features` knows, sorted."""
    return sorted((*BACKBONES, WAVELETS))


def check_features(features: str, *, model: str) -> None:
    """Refuse features of a model that has its own, or that are none.

    Args:
        features: the name of features, the path of a ``.pt2`` or ``.onnx`` file, or
            ``package.module:factory``.
        model: the name of the model on top of them.

    Raises:
        ConfigError: the model is another than ``scattering``, or there is no such file.
        UnknownNameError: there are no features of that name.

    >>> check_features("glyphs", model="scattering")
    >>> check_features("glyphs", model="cnn")
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: features 'glyphs' are for the model 'scattering', which is linear ...
    """
    if model != CLOSED_FORM:
        raise ConfigError(
            Setting("features"),
            f" {features!r} are for the model {CLOSED_FORM!r}, which is linear on fixed features, "
            f"and {model!r} learns its own",
        )
    if features.endswith(BACKBONE_SUFFIXES):
        if not Path(features).is_file():
            raise ConfigError(Setting("features"), f": there is no file {features}: check the path")
        return
    check_name("features", features, (*BACKBONES, WAVELETS))


def check_model(name: str) -> None:
    """Refuse a name that is neither a model's nor of the form ``package.module:factory``.

    Raises:
        UnknownNameError: there is no model of that name.

    >>> check_model("own.models:network")
    >>> check_model("cn")
    Traceback (most recent call last):
        ...
    dpsd.errors.UnknownNameError: unknown model 'cn': did you mean 'cnn'? Known: cnn, ...
    """
    check_name("model", name, _MODELS)


def check_generator(name: str) -> None:
    """Refuse a name that is neither a generator's nor of the form ``package.module:factory``.

    Raises:
        UnknownNameError: there is no generator of that name.
    """
    check_name("generator", name, _GENERATORS)


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is neither ``known`` nor an import path."""
    if name not in known and ":" not in name:
        raise UnknownNameError(kind, name, known)

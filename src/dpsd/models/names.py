"""The names of models and generators, without importing what they build.

:mod:`dpsd.models.registry` and :mod:`dpsd.models.generators` define what each name builds.

>>> model_names()[:3]
['cnn', 'cnn-wide', 'lenet5']
>>> generator_names()
['dcgan', 'dcgan-wide', 'dcgan-widest']
"""

from __future__ import annotations

from collections.abc import Iterable

from dpsd.errors import UnknownNameError

_MODELS = (
    *("cnn", "cnn-wide", "lenet5", "mobilenetv2", "resnet18", "resnet20", "resnet34", "resnet50"),
    *("resnet8", "scattering", "vgg11", "wrn16-1", "wrn40-2"),
)
_GENERATORS = ("dcgan", "dcgan-wide", "dcgan-widest")

#: The model that is trained in closed form, for teachers with few records each.
CLOSED_FORM = "scattering"


def model_names() -> list[str]:
    """Return the names that :func:`~dpsd.models.build_classifier` knows, sorted."""
    return sorted(_MODELS)


def generator_names() -> list[str]:
    """Return the names that :func:`~dpsd.models.build_generator` knows, sorted."""
    return sorted(_GENERATORS)


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

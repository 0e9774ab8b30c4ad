"""The names of models and generators, for whoever needs no more than those.

:mod:`dpsd.models.registry` and :mod:`dpsd.models.generators` say what each name builds.

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

#: The model that has a closed form, for teachers of few records each.
CLOSED_FORM = "scattering"


def model_names() -> list[str]:
    """The names that :func:`~dpsd.models.build_classifier` knows, in order."""
    return sorted(_MODELS)


def generator_names() -> list[str]:
    """The names that :func:`~dpsd.models.build_generator` knows, in order."""
    return sorted(_GENERATORS)


def check_model(name: str) -> None:
    """Refuse what is neither the name of a model nor ``package.module:factory``.

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
    """The same for generators.

    Raises:
        UnknownNameError: there is no generator of that name.
    """
    check_name("generator", name, _GENERATORS)


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is not ``known`` and no import path, whose module may be anywhere."""
    if name not in known and ":" not in name:
        raise UnknownNameError(kind, name, known)

"""Building classifiers from names, import paths or modules, and checking them once.

>>> model = build_classifier("cnn", input_shape=(1, 28, 28), num_classes=10, seed=0)
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import operator
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpsd.devices.layout import hand_its_type, is_kept_contiguous, keep_contiguous
from dpsd.errors import ConfigError, Setting
from dpsd.images.names import Shape
from dpsd.models.convolutional import cnn, lenet5, vgg11
from dpsd.models.mobile import mobilenetv2
from dpsd.models.names import CLOSED_FORM, check_name
from dpsd.models.residual import resnet8, resnet18, resnet20, resnet34, resnet50, wide_resnet
from dpsd.models.scattering import scattering

SMALLEST_SIDE = 8
"""The smallest height or width, in pixels, that the named classifiers take."""

_CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "cnn-wide": partial(cnn, width=32),
    "lenet5": lenet5,
    "mobilenetv2": mobilenetv2,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet8": resnet8,
    "scattering": scattering,
    "vgg11": vgg11,
    "wrn16-1": partial(wide_resnet, depth=16, width=1),
    "wrn40-2": partial(wide_resnet, depth=40, width=2),
}


def build_classifier(
    model: str | nn.Module | Callable[..., object],
    *,
    input_shape: Shape,
    num_classes: int,
    seed: int | None = None,
    features: nn.Module | None = None,
) -> nn.Module:
    """Build a classifier of images in ``[0, 1]`` and check its output.

    Args:
        model: a name (:func:`~dpsd.models.model_names`), ``"package.module:factory"``, a factory,
            or a module, which is returned unchanged. A factory is called with ``input_shape`` and
            ``num_classes`` as far as its signature takes them.
        input_shape: the channels, height and width of an image.
        num_classes: the number of logits that it must return for each image.
        seed: the seed of the initialisation. Torch's global generator is not changed.
        features: a frozen backbone, from images to features, on which ``scattering`` is linear
            instead of on wavelets; see :func:`dpsd.models.frozen.linear_on`.

    Returns:
        A module that maps ``(N, C, H, W)`` to logits ``(N, num_classes)``.

    Raises:
        UnknownNameError: there is no model of that name.
        ConfigError: the factory failed, two images do not give two rows of logits, or ``features``
            are given for another model.

    >>> build_classifier("vgg1", input_shape=(1, 28, 28), num_classes=10)
    Traceback (most recent call last):
        ...
    dpsd.errors.UnknownNameError: unknown model 'vgg1': did you mean 'vgg11'? Known: cnn, ...
    """
    require_shape(input_shape)
    if num_classes < 2:
        raise ConfigError(
            Setting("num_classes"), f" is {num_classes}; a classifier needs at least 2"
        )
    if isinstance(model, str) and model in _CLASSIFIERS and min(input_shape[1:]) < SMALLEST_SIDE:
        raise ConfigError(
            f"model {model!r} takes images of at least {SMALLEST_SIDE}x{SMALLEST_SIDE} pixels, "
            f"not {input_shape[1]}x{input_shape[2]}"
        )
    options: dict[str, object] = {"input_shape": input_shape, "num_classes": num_classes}
    if features is not None:
        if model != CLOSED_FORM:
            raise ConfigError(
                Setting("features"), f" are for the model {CLOSED_FORM!r}, not {model!r}"
            )
        options["features"] = features
    built, label = build_module("model", model, _CLASSIFIERS, seed, **options)
    images = torch.full((2, *input_shape), 0.5)
    is_own = not isinstance(model, str) or model not in _CLASSIFIERS
    if is_own:
        hand_its_type(built)
    output = probe(built, images, label=label)
    if is_own or features is not None:
        settle_layout(built, images, label=label)
    if features is not None and is_kept_contiguous(built):
        # Those who share the features of many models take them out of one.
        keep_contiguous(built.get_submodule("features"))
    if output.shape != (2, num_classes):
        raise ConfigError(
            f"{label} answers two images of shape {input_shape} with {tuple(output.shape)}; "
            f"logits of shape (2, {num_classes}) are needed"
        )
    return built


def load_factory(path: str) -> Callable[..., object]:
    """Import ``"package.module:attribute"``, also from the current directory.

    The current directory is added to ``sys.path`` permanently, as under ``python -m``, since an
    imported module may import its neighbours later.

    Raises:
        ConfigError: the path has another form, the module cannot be imported, or it has no callable
            of that name.

    >>> load_factory("fractions:Fraction").__name__
    'Fraction'
    >>> load_factory("fractions:Fractoin")
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: module 'fractions' has no attribute 'Fractoin'
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{path!r} is not of the form 'package.module:factory'")
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an import runs the user's code: it raises anything
        absent = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(
            f"{error.name}."
        )
        reason = "not found" if absent else f"failed to import: {_described(error)}"
        if absent and module_name.endswith(".py"):
            named = module_name.removesuffix(".py").replace("/", ".")
            reason += f"; a module is named without .py, as in {named}:{attribute}"
        elif absent:
            reason += ": put its folder on PYTHONPATH, unless it is the current one"
        raise ConfigError(f"module {module_name!r} of {path!r} {reason}") from None
    try:
        factory = operator.attrgetter(attribute)(module)
    except AttributeError:
        raise ConfigError(f"module {module_name!r} has no attribute {attribute!r}") from None
    if not callable(factory):
        raise ConfigError(f"{path!r} is a {type(factory).__name__}, not something to call")
    found: Callable[..., object] = factory
    return found


def require_shape(shape: Shape) -> None:
    """Refuse anything but three positive integers.

    >>> require_shape((28, 28))
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: input_shape is (28, 28); it must be (channels, height, width), ...
    """
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ConfigError(
            Setting("input_shape"),
            f" is {shape}; it must be (channels, height, width), all positive integers",
        )


def build_module(
    kind: str,
    what: str | nn.Module | Callable[..., object],
    known: dict[str, Callable[..., nn.Module]],
    seed: int | None,
    **options: object,
) -> tuple[nn.Module, str]:
    """Build ``what`` with the ``options`` that it takes, and return it with a name for errors.

    Raises:
        UnknownNameError: a plain name is not ``known``.
        ConfigError: the factory cannot be loaded, raises an error, or does not return a module.

    >>> build_module("model", nn.Linear, {}, None, in_features=2, out_features=1, depth=3)
    (Linear(in_features=2, out_features=1, bias=True), "factory 'Linear'")
    """
    if isinstance(what, nn.Module):
        return what, f"{kind} {type(what).__name__}"
    if isinstance(what, str):
        label = f"{kind} {what!r}"
        check_name(kind, what, known)
        factory = known[what] if what in known else load_factory(what)
    else:
        label = f"factory {getattr(what, '__name__', repr(what))!r}"
        factory = what
    with _seeded(seed):
        try:
            built = factory(**_accepted(factory, options))
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a factory is the user's code: it raises anything
            raise ConfigError(f"{label} failed: {_described(error)}") from None
    if not isinstance(built, nn.Module):
        raise ConfigError(f"{label} returned a {type(built).__name__}, not a torch.nn.Module")
    return built, label


def probe(module: nn.Module, inputs: Tensor, *, label: str, seed: int = 0) -> Tensor:
    """Return a module's output in eval mode, without changing its mode or torch's generator.

    Args:
        module: the module.
        inputs: what it is asked, on any device.
        label: what messages call it.
        seed: the seed of torch's generator while the module runs.

    Raises:
        ConfigError: the module raises an error, or its output is not a tensor.

    >>> probe(nn.Dropout(0.9), torch.ones(2), label="model")
    tensor([1., 1.])
    """
    modes = {part: part.training for part in module.modules()}
    weight = next(module.parameters(), torch.empty(0))
    try:
        module.eval()
        with torch.no_grad(), _seeded(seed):
            output = module(inputs.to(weight.device, weight.dtype))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the module may be the user's: it raises anything
        raise ConfigError(
            f"{label} fails on inputs of shape {tuple(inputs.shape)}: {_described(error)}"
        ) from None
    finally:
        # module.train() is not used, as the caller may have frozen some parts in eval mode.
        for part, training in modes.items():
            part.training = training
    if not isinstance(output, Tensor):
        raise ConfigError(
            f"{label} answers with a {type(output).__name__}, not a tensor: let its forward return "
            "the one tensor that is wanted"
        )
    return output


def settle_layout(module: nn.Module, inputs: Tensor, *, label: str) -> None:
    """Let a module stay contiguous if it works on ``inputs``, but not with channels last."""
    if is_kept_contiguous(module):
        return
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    is_image = inputs.ndim == 4
    try:
        probe(
            module,
            inputs.contiguous(memory_format=torch.channels_last) if is_image else inputs,
            label=label,
        )
    except ConfigError:
        keep_contiguous(module)
    else:
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed every accelerator too, and nothing would restore those.
        torch.default_generator.manual_seed(seed)
        yield


def _accepted(factory: Callable[..., Any], options: dict[str, object]) -> dict[str, object]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some builtins and C extensions have no signature
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return options
    names = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return {name: value for name, value in options.items() if name in names}


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"

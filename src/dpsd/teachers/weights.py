"""Reading weights from a file and loading them into a module, without unpickling objects.

>>> import tempfile, torch
>>> from safetensors.torch import save_file
>>> layer = torch.nn.Linear(2, 1)
>>> with tempfile.TemporaryDirectory() as folder:
...     save_file(layer.state_dict(), f"{folder}/layer.safetensors")
...     fill_module(layer, read_weights(Path(folder) / "layer.safetensors"), where="layer")
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dpsd.errors import TeacherError, reason
from dpsd.storage.files import load_tensors
from dpsd.storage.reading import check_readable
from dpsd.teachers.archive import UnsafeContentError, is_torchscript, refuse_inflation
from dpsd.teachers.kinds import WEIGHT_SUFFIXES

_NAMES_SHOWN = 5


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the named tensors in a ``.safetensors``, ``.pt`` or ``.pth`` file, on the CPU.

    Raises:
        TeacherError: the file is missing, damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise TeacherError(f"there is no weights file {path}: check the path")
    try:
        if path.suffix == ".safetensors":
            return load_tensors(path)
        if path.suffix in WEIGHT_SUFFIXES:
            check_readable(path)  # torch says of a file that it cannot open that it is damaged
            return _read_state_dict(path)
    except SafetensorError as error:
        raise TeacherError(
            f"{path} is damaged or cut off ({_one_line(error)}): copy it again"
        ) from None
    except OSError as error:
        raise TeacherError(f"{path} cannot be read: {reason(error)}") from None
    raise TeacherError(
        f"{path} is not a weights file: its name must end in {', '.join(WEIGHT_SUFFIXES)}"
    )


def fill_module(module: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Load a state dict that must fit the module exactly, but for a prefix of all its names.

    DataParallel, torch.compile and others put such a prefix before the names.

    Args:
        module: the module, which is changed in place.
        state: the module's parameters and buffers by name.
        where: the origin of the weights, for the message.

    Raises:
        TeacherError: names are missing or unexpected, or shapes differ; the message lists them all.
    """
    wanted = module.state_dict()
    state = _without_prefix(state, wanted)
    missing = sorted(wanted.keys() - state.keys())
    unexpected = sorted(state.keys() - wanted.keys())
    shapes = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & state.keys())
        if state[name].shape != wanted[name].shape
    ]
    problems = [
        f"{title} {_shortened(names)}"
        for title, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("other shapes:", shapes),
        )
        if names
    ]
    if problems:
        raise TeacherError(
            f"{where} does not fit {type(module).__name__}: {'; '.join(problems)}. "
            "Does it belong to another architecture?"
        )
    module.load_state_dict(state)


def _without_prefix(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Return a state dict without a prefix of all its names, if it then has the wanted names.

    >>> weight = torch.zeros(1)
    >>> list(_without_prefix({"module.net.weight": weight}, {"net.weight": weight}))
    ['net.weight']
    """
    shorter = state
    while shorter and shorter.keys() != wanted.keys():
        prefix, dot, _ = next(iter(shorter)).partition(".")
        if not dot or not all(name.startswith(f"{prefix}.") for name in shorter):
            return state
        shorter = {name.removeprefix(f"{prefix}."): tensor for name, tensor in shorter.items()}
    return shorter


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    content: Any
    try:
        if zipfile.is_zipfile(path):
            packed = path.read_bytes()
            if is_torchscript(packed):
                raise _torchscript(path)
            refuse_inflation(packed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except TeacherError:
        raise
    except UnsafeContentError as error:
        raise TeacherError(f"{path} will not be loaded: it holds {error}") from None
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a damaged file
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise TeacherError(
                f"{path} holds more than tensors, and unpickling it could run any code, so it will "
                "not be unpickled. Convert it where you trust it: "
                "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
            ) from None
        raise TeacherError(
            f"{path} is damaged, cut off or not a torch file ({type(error).__name__}): copy it "
            "again"
        ) from None
    # Checkpoints commonly keep the state dict one level down.
    if isinstance(content, Mapping):
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise TeacherError(f"{path} is not a state dict (a mapping of names to tensors)")
    return dict(content)


def _torchscript(path: Path) -> TeacherError:
    return TeacherError(
        f"{path} is a TorchScript program, which may call any operator of torch's, so it is not "
        "loaded by its name. If you trust it, load it in a factory of yours and give that as the "
        f"teacher, 'package.module:teacher': def teacher(): return torch.jit.load({path.name!r}). "
        "Or export the model anew with torch.export.save"
    )


def _shortened(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

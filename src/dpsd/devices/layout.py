"""Modules that compute in one memory layout or precision alone.

Convolutions are fastest when images lie in memory channels last. But a module that flattens with
``x.view(len(x), -1)`` fails on tensors that do, and a module in double or half precision fails on
float32 images. Such a module gets hooks that hand it what it can compute with.

>>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).double()
>>> hand_its_type(module)
>>> module(torch.zeros(3, 1, 2, 2)).dtype
torch.float64
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def hand_its_type(module: nn.Module) -> None:
    """Let a module be called with float32 inputs, whatever the type of its parameters."""
    dtype = type_of(module)
    if dtype is not torch.float32 and not _has(module, _converted):
        module.register_forward_pre_hook(_converted)


def answer_in_float32(module: nn.Module) -> None:
    """Let a module return float32, whatever the type of its parameters."""
    if type_of(module) is not torch.float32:
        module.register_forward_hook(_in_float32)


def keep_contiguous(module: nn.Module) -> None:
    """Let a module be handed contiguous tensors alone, and its parameters stay contiguous too."""
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if not is_kept_contiguous(module):
        module.register_forward_pre_hook(_contiguous)


def is_kept_contiguous(module: nn.Module) -> bool:
    """Return whether :func:`keep_contiguous` was called for the module, or for one it copies."""
    return _has(module, _contiguous)


def type_of(module: nn.Module) -> torch.dtype:
    """Return the type of a module's first parameter of floating point, or float32 without one.

    >>> type_of(torch.nn.Linear(2, 2).half())
    torch.float16
    """
    return next(
        (weight.dtype for weight in module.parameters() if weight.is_floating_point()),
        torch.float32,
    )


def _has(module: nn.Module, hook: object) -> bool:
    return any(known is hook for known in module._forward_pre_hooks.values())


def _in_float32(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    return output.float() if isinstance(output, Tensor) else output


def _contiguous(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part.contiguous() if isinstance(part, Tensor) else part for part in inputs)


def _converted(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    dtype = type_of(module)
    return tuple(
        part.to(dtype) if isinstance(part, Tensor) and part.is_floating_point() else part
        for part in inputs
    )

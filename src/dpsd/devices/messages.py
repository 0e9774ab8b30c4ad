"""What processes tell each other: tensors as bytes, and errors without the answers they may quote.

>>> [tensor.tolist() for tensor in unpacked(packed([torch.tensor([1, 2]), torch.tensor(3.5)]))]
[[1, 2], 3.5]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import safetensors.torch
import torch
from torch import Tensor

from dpsd import errors
from dpsd.errors import RunError

#: Errors that keep their kind, and so their exit code, on the way: those made of a message alone.
_KINDS: dict[str, type[errors.DpsdError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if getattr(kind, "__init__", None) is errors.DpsdError.__init__
}


def described(error: BaseException, *, rank: int) -> dict[str, str]:
    """An error, for process 0: messages of ours quote no answer, and of others none is quoted.

    >>> described(ValueError(0.731), rank=1)["message"]
    'process 1 stopped with ValueError (its message is withheld: it may quote answers)'
    """
    kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS), None)
    if kind is not None:
        return {"kind": kind, "message": f"{error} (in process {rank})"}
    if isinstance(error, MemoryError):
        return {"kind": "MemoryError", "message": ""}
    name = type(error).__name__
    return {
        "kind": "RunError",
        "message": f"process {rank} stopped with {name} (its message is withheld: it may quote "
        "answers)",
    }


def recalled(note: Mapping[str, str]) -> Exception:
    """The error that :func:`described` described.

    >>> recalled(described(errors.TeacherError("it is deaf"), rank=1))
    TeacherError('it is deaf (in process 1)')
    """
    if note["kind"] == "MemoryError":
        return MemoryError(note["message"])
    return _KINDS.get(note["kind"], RunError)(note["message"])


def packed(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as bytes; safetensors, so that reading them runs nothing."""
    if not tensors:
        return torch.empty(0, dtype=torch.uint8)
    # Clones, as the format does not allow two views of the same memory.
    named = {str(number): tensor.clone().contiguous() for number, tensor in enumerate(tensors)}
    return torch.frombuffer(bytearray(safetensors.torch.save(named)), dtype=torch.uint8)


def unpacked(data: Tensor) -> list[Tensor]:
    """The tensors that :func:`packed` packed."""
    if not len(data):
        return []
    named = safetensors.torch.load(data.numpy().tobytes())
    return [named[str(number)] for number in range(len(named))]

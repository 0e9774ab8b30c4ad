"""Fingerprints: content hashes under which teachers' privacy budgets are kept.

A fingerprint depends on what a teacher *is*, never on its file's name or date.

>>> import torch
>>> fingerprint_module(torch.nn.Linear(2, 2)).startswith("sha256:")
True
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

_CHUNK_BYTES = 1 << 20


def fingerprint_module(module: nn.Module) -> str:
    """Hash a module's parameters, its buffers and the tree of its layers' classes.

    Settings of layers that leave no trace in the weights (a stride, say) are not covered, except in
    TorchScript, whose code is hashed.
    """
    digest = hashlib.sha256()
    for name, child in module.named_modules():
        _feed(digest, f"{name}={type(child).__qualname__}".encode())
        if isinstance(child, torch.jit.ScriptModule) and hasattr(child, "forward"):
            _feed(digest, child.code.encode())
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    _feed_tensors(digest, tensors)
    # Quantized layers keep their weights in neither, but in what they store.
    named = (module.named_parameters, module.named_buffers)
    usual = {name for names in named for name, _ in names(remove_duplicate=False)}
    for name, stored in sorted(module.state_dict().items()):
        if name not in usual:
            _feed_stored(digest, name, stored)
    return f"sha256:{digest.hexdigest()}"


def fingerprint_names(names: Iterable[str]) -> str:
    """Hash names in the given order."""
    digest = hashlib.sha256()
    for name in names:
        _feed(digest, name.encode())
    return f"sha256:{digest.hexdigest()}"


def fingerprint_tensors(tensors: Mapping[str, Tensor], *, key: bytes = b"") -> str:
    """Hash named tensors under a key, without which nobody can compare hashes of candidates."""
    digest = hmac.new(key, digestmod=hashlib.sha256)
    _feed_tensors(digest, tensors)
    return f"{'hmac-' if key else ''}sha256:{digest.hexdigest()}"


def fingerprint_records(records: Mapping[str, bytes]) -> str:
    """Hash named pieces of content in the order of their names."""
    digest = hashlib.sha256()
    for name, content in sorted(records.items()):
        _feed(digest, name.encode())
        _feed(digest, content)
    return f"sha256:{digest.hexdigest()}"


def fingerprint_content(content: bytes) -> str:
    """Hash the content of a file like :func:`fingerprint_files`, once it is read."""
    digest = hashlib.sha256()
    _feed(digest, content)
    return f"sha256:{digest.hexdigest()}"


def fingerprint_files(paths: Iterable[Path]) -> str:
    """Hash the contents of files in the given order, without their names and dates."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.stat().st_size.to_bytes(8, "big"))
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _feed_tensors(digest: hashlib._Hash | hmac.HMAC, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in sorted(tensors.items()):
        _feed(digest, f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        _feed(digest, _tensor_bytes(tensor))


def _feed_stored(digest: hashlib._Hash, name: str, stored: object) -> None:
    if isinstance(stored, tuple | list):
        for index, part in enumerate(stored):
            _feed_stored(digest, f"{name}.{index}", part)
    elif isinstance(stored, Tensor):
        _feed_tensors(digest, {name: stored.dequantize() if stored.is_quantized else stored})
    else:
        _feed(digest, f"{name}={stored!r}".encode())


def _feed(digest: hashlib._Hash | hmac.HMAC, content: bytes) -> None:
    # The length comes first, so that moving a byte from one piece to the next changes the hash.
    digest.update(len(content).to_bytes(8, "big"))
    digest.update(content)


def _tensor_bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()

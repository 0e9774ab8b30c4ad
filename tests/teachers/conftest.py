"""A tiny classifier, and files that hold it, for every kind of teacher."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

SHAPE = (1, 8, 8)
CLASSES = 3


def tiny_module(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )
    return module.eval()


@pytest.fixture
def make_module() -> Callable[..., nn.Module]:
    return tiny_module


@pytest.fixture
def module() -> nn.Module:
    return tiny_module()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def expected(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        scores: Tensor = module(images)
        return scores.softmax(1)


@pytest.fixture
def export_pt2() -> Callable[..., Path]:
    return _export_pt2


@pytest.fixture
def rewrite_zip() -> Callable[..., None]:
    return _rewrite_zip


def _export_pt2(
    module: nn.Module, path: Path, *, batch: int | None = None, most: int | None = None
) -> Path:
    """Export with a batch of any size, of exactly ``batch`` or of ``most`` images."""
    dynamic = None if batch else ({0: torch.export.Dim("batch", max=most)},)
    program = torch.export.export(module, (torch.rand(batch or 2, *SHAPE),), dynamic_shapes=dynamic)
    torch.export.save(program, path)
    return path


def _rewrite_zip(path: Path, change: Callable[[str, bytes], bytes | None], **added: bytes) -> None:
    """Change, drop (``None``) or add records; ``__`` in an added name stands for a slash."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(records)).split("/")[0]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records.items():
            changed = change(name, content)
            if changed is not None:
                archive.writestr(name, changed)
        for name, content in added.items():
            archive.writestr(f"{folder}/{name.replace('__', '/')}", content)
    path.write_bytes(buffer.getvalue())

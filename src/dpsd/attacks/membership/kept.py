"""Confidences on disk, under a hash of all that they depend on.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     kept = Kept(Path(folder), "shadow", {"seed": 0})
...     kept.save({"teachers": torch.zeros(2, dtype=torch.float64)})
...     kept.exists(), Kept(Path(folder), "shadow", {"seed": 1}).exists(), list(kept.load())
(True, False, ['teachers'])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from dpsd.errors import RunError, reason
from dpsd.storage.files import load_tensors, open_tensors, save_tensors


@dataclass(frozen=True, eq=False)
class Kept:
    """Confidences that are computed once.

    Args:
        folder: the folder of the file, which exists.
        name: the first part of the file's name.
        key: all that the confidences depend on, in JSON types.
    """

    folder: Path
    name: str
    key: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The path of the file, which the key determines."""
        digest = hashlib.sha256(self._text.encode()).hexdigest()
        return self.folder / f"{self.name}-{digest[:16]}.safetensors"

    def exists(self) -> bool:
        """Whether the confidences are there."""
        return self.path.is_file()

    def save(self, confidences: Mapping[str, Tensor]) -> None:
        """Write the confidences with their key.

        Raises:
            WriteError: the disk is full, or the folder cannot be written to.
        """
        save_tensors(self.path, confidences, metadata={"key": self._text})

    def load(self) -> dict[str, Tensor]:
        """Return the confidences, after checking whose they are.

        Raises:
            RunError: the file is missing or damaged, or holds those of another key.
        """
        try:
            with open_tensors(self.path) as file:
                stated = (file.metadata() or {}).get("key")
            found = load_tensors(self.path)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"{self.path} cannot be read ({reason(error)}): remove it, and attack again"
            ) from None
        if stated != self._text:
            raise RunError(
                f"{self.path} holds the confidences of models with another recipe, split or seed: "
                "remove it, and attack again"
            )
        return found

    @property
    def _text(self) -> str:
        made_by = {"dpsd": version("dpsd"), "torch": torch.__version__}
        return json.dumps({**self.key, "made by": made_by}, sort_keys=True)

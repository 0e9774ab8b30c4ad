"""Intermediate results of an attack on disk, found again by a hash of all that they depend on.

A result is made once. Whatever it depends on is in its facts: the model, the records, the settings
and the seed. So a result that is stale is not found, and an attack that was interrupted goes on
with what it has.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     shelf = Shelf(Path(folder))
...     made = shelf.kept("mean", {"seed": 0}, lambda: {"value": torch.ones(1)})
...     again = shelf.kept("mean", {"seed": 0}, lambda: {"value": torch.zeros(1)})
>>> again["value"]
tensor([1.])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from dpsd.errors import RunError, reason
from dpsd.storage.files import load_tensors, save_tensors

#: The version of what is kept; results of other versions are made again.
_VERSION = 1


@dataclass(frozen=True)
class Shelf:
    """A folder of intermediate results.

    Args:
        folder: the folder, which is created when the first result is kept.
    """

    folder: Path

    def kept(
        self, what: str, facts: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return tensors that were kept earlier, or make and keep them.

        Args:
            what: the kind of result, a part of the file's name.
            facts: everything that the result depends on, in JSON types.
            make: makes the result.

        Raises:
            RunError: a file is damaged, or the folder cannot be written to.
        """
        stated = json.dumps(
            {"version": _VERSION, "what": what, "dpsd": version("dpsd"), **facts}
            | {"torch": torch.__version__},
            sort_keys=True,
        )
        digest = hashlib.sha256(stated.encode()).hexdigest()[:24]
        path = self.folder / f"inversion-{what}-{digest}.safetensors"
        if not path.exists():
            made = make()
            self.folder.mkdir(parents=True, exist_ok=True)
            save_tensors(path, made, metadata={"facts": stated})
        try:
            return load_tensors(path)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"{path} cannot be read ({reason(error)}): delete it, and it is made again"
            ) from None

"""Writing files whole or not at all.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     write_text(Path(folder) / "note.txt", "kept")
...     (Path(folder) / "note.txt").read_text()
'kept'
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from dpsd.errors import WriteError


def write_text(path: Path, text: str) -> None:
    """Replace a text file durably; a crash leaves the old one or the new one.

    Raises:
        WriteError: the disk is full, or the place cannot be written to.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Replace a safetensors file durably.

    Raises:
        WriteError: the disk is full, or the place cannot be written to.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata=dict(metadata or {}))
        # safetensors writes for the owner alone; a run's files are as readable as its others.
        temporary.chmod(0o666 & ~_umask())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place once written and flushed to disk."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.unlink(missing_ok=True)  # what a crash left, or a link to somewhere else
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except Exception as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise WriteError(
                f"{path} could not be written ({error}); free some space or mend the permissions. "
                "What was written before is intact"
            ) from None
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

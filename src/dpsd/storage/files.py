"""Writing files completely or not at all.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     write_text(Path(folder) / "note.txt", "kept")
...     (Path(folder) / "note.txt").read_text()
'kept'
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpsd.errors import RunError, reason, unwritable
from dpsd.storage.reading import check_readable

#: The names of numeric types in safetensors.
_TYPE_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}

#: The longest header that the format allows, in bytes.
_LONGEST_HEADER = 100_000_000

#: The suffix of a file's name until the file is complete.
UNFINISHED = ".part"


def write_text(path: Path, text: str) -> None:
    """Replace a text file durably; a crash leaves either the old file or the new one.

    Raises:
        WriteError: the disk is full, or the folder cannot be written to.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, on the CPU.

    Raises:
        OSError: the file cannot be opened; its reason is the system's own.
        SafetensorError: the file is damaged.
    """
    check_readable(path)
    return dict(load_file(path))


def open_tensors(path: Path) -> Any:
    """Open a safetensors file, as a context manager that reads tensors and metadata one by one.

    Raises:
        OSError: the file cannot be opened; its reason is the system's own.
        SafetensorError: the file is damaged.
    """
    check_readable(path)
    return safe_open(path, framework="pt")


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Replace a safetensors file durably.

    Raises:
        WriteError: the disk is full, or the folder cannot be written to.
    """
    contiguous: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        # The format stores each tensor once, and tied weights are one tensor of several names.
        memory = own.untyped_storage().data_ptr()
        contiguous[name] = own.clone() if memory in seen else own
        seen.add(memory)
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata=dict(metadata or {}))
        # safetensors makes files readable by their owner alone; they should be as readable as the
        # other files of a run.
        temporary.chmod(0o666 & ~_umask())


@dataclass(frozen=True)
class Column:
    """A tensor that is written a block of rows at a time, so that it never has to be in memory.

    Args:
        dtype: the type of its numbers.
        shape: the shape of the whole tensor.
        blocks: the blocks of its rows, in order.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    blocks: Iterable[Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> Column:
        """Return a column of a tensor that is in memory.

        >>> Column.of(torch.zeros(3, 2)).shape
        (3, 2)
        """
        return cls(tensor.dtype, tuple(tensor.shape), [tensor])


def stream_tensors(
    path: Path, columns: Mapping[str, Column], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Replace a safetensors file durably, with one block of one column in memory at a time.

    The same columns give the same bytes, whatever their blocks.

    Args:
        path: the path of the file.
        columns: the columns by name, at least one.
        metadata: text that is stored with them.

    Raises:
        WriteError: the disk is full, or the folder cannot be written to.
        ValueError: the blocks do not add up to what their column states.

    >>> import tempfile
    >>> from safetensors.torch import load_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "counts.safetensors"
    ...     blocks = (torch.arange(start, start + 2) for start in (0, 2))
    ...     stream_tensors(path, {"counts": Column(torch.int64, (4,), blocks)})
    ...     load_file(path)["counts"].tolist()
    [0, 1, 2, 3]
    """
    # The writer of safetensors takes whole tensors. They could be mapped from a file, but what is
    # read through a mapping counts as this process's memory, and older versions also copy it. The
    # format is a length, a header and the numbers; wide types come first, so that all are aligned.
    names = sorted(columns, key=lambda name: (-columns[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        column, start = columns[name], end
        end += column.dtype.itemsize * torch.Size(column.shape).numel()
        header[name] = {
            "dtype": _TYPE_NAMES[column.dtype],
            "shape": column.shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for block in columns[name].blocks:
                write_block(file, block.to(columns[name].dtype))
        if file.tell() != 8 + len(text) + end:
            raise ValueError(f"{path}: {file.tell()} bytes were given, not {8 + len(text) + end}")


def write_block(file: BinaryIO, block: Tensor) -> None:
    """Write a tensor's numbers, without a copy if they are contiguous."""
    file.write(block.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def read_rows(file: BinaryIO, rows: Tensor, *, shape: Sequence[int], offset: int = 0) -> Tensor:
    """Read some rows of bytes from a file that holds rows one after the other.

    Args:
        file: a file that is open for reading in binary.
        rows: the numbers of the rows, int64 ``(n,)`` from 0, in any order.
        shape: the shape of a row.
        offset: the position in the file, in bytes, at which the first row begins.

    Returns:
        The rows, uint8 ``(n, *shape)``.

    Raises:
        OSError: the file cannot be read, or ends before a row does.

    >>> import io
    >>> read_rows(io.BytesIO(bytes(range(8))), torch.tensor([2, 0]), shape=(2,)).tolist()
    [[4, 5], [0, 1]]
    """
    found = torch.empty((len(rows), *shape), dtype=torch.uint8)
    if len(rows) == 0:
        return found
    size = torch.Size(shape).numel()
    target = found.flatten().numpy().data
    # Neighbouring rows are read at once; while a round is asked, all of them are neighbours.
    starts = [0, *((rows.diff() != 1).nonzero().flatten() + 1).tolist()]
    ends = [*starts[1:], len(rows)]
    for row, start, end in zip(rows[starts].tolist(), starts, ends, strict=True):
        file.seek(offset + row * size)
        part = target[start * size : end * size]
        # A single read may stop early, at a signal or at two gigabytes.
        while part:
            read = file.readinto(part)  # type: ignore[attr-defined]
            if not read:
                raise OSError("it was cut off")
            part = part[read:]
    return found


def column_offset(path: Path, name: str) -> int:
    """Return the position in a safetensors file, in bytes, at which a tensor's numbers begin.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a safetensors file.
        KeyError: it holds no tensor of that name.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError("its header is too long")
        header = json.loads(file.read(length))
    return 8 + length + int(header[name]["data_offsets"][0])


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def unfinished(path: Path) -> Path:
    """Return where a file is written before it gets its name, and what a crash may leave of it.

    >>> unfinished(Path("run/config.toml")).name
    '.config.toml.part'
    """
    return path.with_name(f".{path.name}{UNFINISHED}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` once it is written and flushed to disk."""
    temporary = unfinished(path)
    with writing(path):
        try:
            temporary.unlink(missing_ok=True)  # a crash may have left it, or it may be a link
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:  # otherwise an interrupted round would leave gigabytes
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the errors of writing to ``path`` into one clear error.

    Raises:
        DiskFullError: the disk is full.
        WriteError: the path cannot be written to for another reason.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise unwritable(
                error,
                f"{path} could not be written",
                mend="fix the permissions or the disk",
                after=". What was written before is intact",
            ) from None
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_hash(path: Path) -> str:
    """Return ``sha256:`` and the hash of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        RunError: the file is missing or damaged, or does not hold an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} does not hold a JSON object")
    return content

"""Reading files from compressed archives, directly from the stream and up to a size limit.

Nothing is ever extracted to disk, so a member's name cannot reach outside the archive; names that a
reader does not recognise are skipped.

>>> import io, tarfile, tempfile
>>> path = Path(tempfile.mkdtemp()) / "tiny.tar.gz"
>>> with tarfile.open(path, "w:gz") as archive:
...     member = tarfile.TarInfo("folder/a.bin")
...     member.size = 3
...     archive.addfile(member, io.BytesIO(b"abc"))
>>> list(tar_files(path, wanted=lambda name: name.endswith(".bin"), most=10**6))
[('folder/a.bin', b'abc')]
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from dpsd.errors import DataError, reason

DAMAGED = (EOFError, OSError, lzma.LZMAError, tarfile.TarError, zlib.error)
"""The errors of the standard library for compressed data that is cut short or mislabelled."""


class _Bounded:
    """A stream that refuses to return more than ``most`` bytes in all.

    Compressed headers can request any amount of memory, and the tar reader itself believes them.
    """

    def __init__(self, stream: io.BufferedIOBase, most: int, path: Path) -> None:
        self._stream, self._left, self._most, self._path = stream, most, most, path

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise DataError(f"{self._path} unpacks to more than {self._most:,} bytes; refused")
        chunk = self._stream.read(size)
        self._left -= len(chunk)
        return chunk


def open_compressed(path: Path) -> io.BufferedIOBase:
    """Open a file, unpacking ``.gz`` and ``.xz`` files."""
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix == ".xz":
        return lzma.open(path)
    return path.open("rb")


def tar_files(
    path: Path, *, wanted: Callable[[str], bool], most: int
) -> Iterator[tuple[str, bytes]]:
    """Yield the regular files of a ``.tar.gz`` or ``.tar.xz`` whose names are wanted, in order.

    Args:
        path: the path of the archive.
        wanted: a function that decides from a member's full name whether to read it.
        most: the most bytes that the archive may unpack to.

    Raises:
        DataError: the archive is damaged, or larger than ``most``.
    """
    try:
        with (
            open_compressed(path) as stream,
            # The stream mode "r|" needs only read(size) from the file object.
            tarfile.open(fileobj=_Bounded(stream, most, path), mode="r|") as archive,  # type: ignore[call-overload]
        ):
            for member in archive:
                if member.isfile() and wanted(member.name):
                    content = archive.extractfile(member).read()
                    yield member.name, content
    except DAMAGED as error:
        raise DataError(f"{path} is damaged or truncated: {reason(error)}") from None

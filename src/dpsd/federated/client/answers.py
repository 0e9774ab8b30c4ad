"""The images that a client was asked about, with what it released about each.

An image that is asked again gets the release that it got before, which costs nothing. Images are
known by the SHA-256 of their pixels: the server chooses them, and could make two of them collide
under a weaker digest. An image is recorded before the teacher is asked about it, and is never asked
about again, even if a crash loses the answer. So nothing that the server sends makes the client
answer twice about one image.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     answers = AnswerTable(Path(folder) / "answers.sqlite")
...     answers.begin(1, [b"an image", b"another"], [b"", b""])
...     answers.store([b"an image", b"another"], [b"5", b"0"])
...     answers.known([b"another", b"a third"])
{b'another': Known(candidates=b'', release=b'0')}
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from dpsd.errors import RunError

#: What makes the table, as SQLite keeps it, so that files can be compared with it.
SCHEMA = """CREATE TABLE answers (
    digest BLOB PRIMARY KEY,
    round INTEGER NOT NULL,
    candidates BLOB NOT NULL,
    release BLOB
) WITHOUT ROWID
"""


#: How long a client waits for somebody who reads the file, such as `dpsd certify`, in seconds, as
#: answers that cannot be stored would be lost.
_PATIENCE = 60.0


def sha256_of(images: Tensor) -> list[bytes]:
    """Return the SHA-256 of each image's pixels, for images uint8 ``(N, C, H, W)`` on the CPU."""
    # hashlib takes one message at a time, so this cannot be vectorised.
    return [hashlib.sha256(image.data).digest() for image in images.contiguous().numpy()]


def packed(candidates: Tensor) -> list[bytes]:
    """Return each row of candidates, bool ``(N, K)``, as bytes of one bit a class."""
    return [row.tobytes() for row in np.packbits(candidates.numpy(), axis=-1)]


def content(row: Sequence[bytes | None]) -> bytes:
    """Return what a row says of an image, as the hash of its round covers it."""
    return b"".join(part or b"" for part in row)


@dataclass(frozen=True)
class Known:
    """What is known of an image that was asked about before.

    Args:
        candidates: the candidates that it was asked with, packed.
        release: the release, as bytes; ``None`` if the answer was lost.
    """

    candidates: bytes
    release: bytes | None


@dataclass(frozen=True)
class RoundRows:
    """The number of images that a round asked about.

    Args:
        asked: the number of images in all.
        released: the number of those with a release: all, or none if the answers were lost.
    """

    asked: int
    released: int


class AnswerTable:
    """A table in an SQLite file, in which every change is on disk when its method returns.

    Args:
        path: the path of the file, which is created when it is first used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def known(self, digests: Sequence[bytes]) -> dict[bytes, Known]:
        """Return what is known of those images, by digest, that were asked about before."""
        with self._opened() as table:
            table.execute("CREATE TEMP TABLE wanted (digest BLOB)")
            table.executemany("INSERT INTO wanted VALUES (?)", ((digest,) for digest in digests))
            found = table.execute(
                "SELECT digest, candidates, release FROM answers JOIN wanted USING (digest)"
            )
            return {digest: Known(candidates, release) for digest, candidates, release in found}

    def begin(
        self, round_index: int, digests: Sequence[bytes], candidates: Sequence[bytes]
    ) -> None:
        """Record the images of a round, none of which was asked about before.

        Args:
            round_index: the number of the round in the client's ledger.
            digests: the SHA-256 of each image.
            candidates: the candidates of each image, packed.

        Raises:
            RunError: the file cannot be written to, or an image is in it.
        """
        rows = zip(digests, candidates, strict=True)
        with self._opened() as table:
            table.executemany(
                "INSERT INTO answers VALUES (?, ?, ?, NULL)",
                ((digest, round_index, chosen) for digest, chosen in rows),
            )

    def forget(self, round_index: int) -> None:
        """Remove the images of a round of which the teacher was asked nothing."""
        with self._opened() as table:
            table.execute("DELETE FROM answers WHERE round = ?", (round_index,))

    def store(self, digests: Sequence[bytes], releases: Sequence[bytes]) -> None:
        """Record what was released about each of a round's images."""
        with self._opened() as table:
            table.executemany(
                "UPDATE answers SET release = ? WHERE digest = ?",
                zip(releases, digests, strict=True),
            )

    def rounds(self) -> dict[int, RoundRows]:
        """Return the number of images of each round, by the round's number."""
        with self._opened() as table:
            found = table.execute("SELECT round, COUNT(*), COUNT(release) FROM answers GROUP BY 1")
            return {index: RoundRows(*counts) for index, *counts in found}

    def sha256(self, round_index: int) -> str:
        """Return ``sha256:`` and the hash of all that the table says of a round."""
        whole = hashlib.sha256()
        with self._opened() as table:
            for row in table.execute(
                "SELECT digest, candidates, release FROM answers WHERE round = ? ORDER BY digest",
                (round_index,),
            ):
                whole.update(content(row))
        return f"sha256:{whole.hexdigest()}"

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction, which is committed durably, or rolled back."""
        try:
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as connection:
                # Syncs the folder too, so that even a power cut takes back no transaction.
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute(SCHEMA.replace("TABLE", "TABLE IF NOT EXISTS", 1))
                with connection:
                    yield connection
        except sqlite3.Error as error:
            raise RunError(
                f"{self.path} cannot be used: {error}; make it readable and writable, with space "
                "on its disk"
            ) from None

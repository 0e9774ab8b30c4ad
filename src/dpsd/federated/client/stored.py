"""Reading a client's table of answers without trusting who made it, or changing anything.

``dpsd certify`` reads folders that others sent. A table is whatever SQLite finds in the file: a
view that never ends, or values of other types. So the file must hold exactly the table that a
client makes, and nothing is created, repaired or followed elsewhere.

>>> import tempfile
>>> from dpsd.federated.client.answers import AnswerTable
>>> with tempfile.TemporaryDirectory() as folder:
...     table = AnswerTable(Path(folder) / "answers.sqlite")
...     table.begin(1, [b"an image", b"another"], [b"", b""])
...     read_rounds(table.path)[1].sha256 == table.sha256(1)
True
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dpsd.errors import RunError, reason
from dpsd.federated.client.answers import SCHEMA, RoundRows, content

#: Finds a row with a value that no client writes, which SQLite would let stand in any column.
_STRANGE = """
SELECT 1 FROM answers WHERE (typeof(digest), typeof(round), typeof(candidates))
    != ('blob', 'integer', 'blob') OR typeof(release) NOT IN ('blob', 'null') LIMIT 1
"""
#: How a file of SQLite begins, and the bytes that say that it has no log beside it.
_MAGIC, _WITHOUT_LOG = b"SQLite format 3\0", b"\1\1"


@dataclass(frozen=True)
class StoredRound(RoundRows):
    """What a table says of a round.

    Args:
        sha256: ``sha256:`` and the hash of all that it says, as :meth:`AnswerTable.sha256` has it.
    """

    sha256: str


def check_plain(path: Path) -> None:
    """Refuse what is there but is no file of its own: a link, a folder, or a pipe without end.

    Raises:
        RunError: it is one of these.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise RunError(f"{path} must be a file, and no link to one: put back what was there")


def read_rounds(path: Path) -> dict[int, StoredRound]:
    """Return what a table says of each round, by the round's number, all at one moment.

    Raises:
        RunError: there is no such file, or it is not exactly what a client makes.
    """
    hashes: defaultdict[int, hashlib._Hash] = defaultdict(hashlib.sha256)
    with _read_only(path) as table:
        for index, *row in table.execute(
            "SELECT round, digest, candidates, release FROM answers ORDER BY digest"
        ):
            hashes[index].update(content(row))
        counts = table.execute("SELECT round, COUNT(*), COUNT(release) FROM answers GROUP BY 1")
        return {
            index: StoredRound(asked, released, f"sha256:{hashes[index].hexdigest()}")
            for index, asked, released in counts
        }


@contextmanager
def _read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for reading, in one transaction, if it is what a client makes."""
    check_plain(path)
    try:
        with path.open("rb") as file:
            header = file.read(20)
        if not (header.startswith(_MAGIC) and header.endswith(_WITHOUT_LOG)):
            raise sqlite3.DatabaseError("it is no table of answers")
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            made = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
            if made != [("table", "answers", SCHEMA)]:
                raise sqlite3.DatabaseError("it holds something else than a table of answers")
            if connection.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
                raise sqlite3.DatabaseError("its pages do not fit together")
            if connection.execute(_STRANGE).fetchall():
                raise sqlite3.DatabaseError("it holds values that no client writes")
            yield connection
    except (OSError, sqlite3.Error) as error:
        raise RunError(
            f"{path} cannot be read: {reason(error)}. Put back what was there; what a crash left "
            "unfinished is repaired when the client is started again"
        ) from None

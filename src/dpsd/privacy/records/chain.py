"""Append-only files in which every line vouches for the one before.

Each line is a JSON object that is appended, flushed and synced to disk before anything relies on
it. Every line contains the hash of its predecessor, so changing or removing any line but the last
breaks the chain. The chain does not stop anybody from cutting off the last lines, or from rewriting
all lines together. A line without its newline was cut off by a crash, and counts as never written.

>>> import tempfile
>>> class Notes(Chain):
...     name, kinds = "notes", {"note": {"text": str}}
>>> with tempfile.TemporaryDirectory() as folder:
...     notes = Notes(Path(folder) / "notes.jsonl")
...     notes._append({"entry": "note", "text": "kept"})
...     [entry["text"] for entry in notes.entries()]
['kept']
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from dpsd.errors import RunError, reason, unwritable
from dpsd.storage.files import sync_folder

#: What the first line gives as the hash of its predecessor.
_FIRST = "0" * 64


class Chain:
    """A chained, append-only file.

    Args:
        path: the path of the file, which is created with the first entry.
    """

    #: The name of such a file in messages, and the kinds of entries with their required fields.
    name: ClassVar[str]
    kinds: ClassVar[Mapping[str, Mapping[str, type]]]

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[dict[str, Any]]:
        """All entries in order, each checked against the one before; callers must not change them.

        Raises:
            RunError: the file is missing, a line is not an entry, or lines were changed.
        """
        whole = b"".join(line + b"\n" for line in self._lines())
        return list(_known(type(self), self.path).read(whole))  # type: ignore[arg-type]  # a class is hashable

    @property
    def head(self) -> str:
        """The hash of the last line, which stands for all lines."""
        return _head(self._lines() if self.path.exists() else [])

    def hashes(self) -> list[str]:
        """The hash of each line, in order; the last is the :attr:`head`."""
        lines = self._lines() if self.path.exists() else []
        return [hashlib.sha256(line).hexdigest() for line in lines]

    def line(self, number: int) -> str:
        """The name of a line in messages; lines count from 1."""
        return _place(self.name, self.path, number)

    def _lines(self) -> list[bytes]:
        """The complete lines, without one that a crash cut off."""
        try:
            return self.path.read_bytes().split(b"\n")[:-1]
        except OSError as error:
            raise RunError(f"{self.name} {self.path} cannot be read: {reason(error)}") from None

    def _append(self, entry: dict[str, Any]) -> None:
        time = datetime.now(UTC).isoformat(timespec="seconds")
        lines = self._lines() if self.path.exists() else []
        stamped = {"time": time, **entry, "previous": _head(lines)}
        try:
            with self.path.open("ab") as file:
                file.truncate(sum(len(line) + 1 for line in lines))
                file.write(json.dumps(stamped).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self.path.parent)
        except OSError as error:
            raise unwritable(
                error,
                f"{self.name} {self.path} could not be written",
                mend="make it writable",
                after=". Until it can be written, the teacher is not asked",
            ) from None


class _Known:
    """The entries of a file as it was read last: only lines that were added since are checked.

    Args:
        kind: the kind of file.
        path: the path of the file.
    """

    def __init__(self, kind: type[Chain], path: Path) -> None:
        self._kind, self._path = kind, path
        # Replaced together, so that threads see what belongs together.
        self._state: tuple[bytes, tuple[dict[str, Any], ...], str] = (b"", (), _FIRST)

    def read(self, content: bytes) -> tuple[dict[str, Any], ...]:
        """Return the entries of complete lines, after checking those that are new or changed.

        Raises:
            RunError: a line is not an entry, or does not follow the one before.
        """
        before, entries, previous = self._state
        if not content.startswith(before):
            before, entries, previous = b"", (), _FIRST
        added = []
        lines = content[len(before) :].split(b"\n")[:-1]
        for number, line in enumerate(lines, start=len(entries) + 1):
            added.append(_entry(self._kind, self._path, number, line, previous))
            previous = hashlib.sha256(line).hexdigest()
        entries += tuple(added)
        self._state = (content, entries, previous)
        return entries


@lru_cache(maxsize=8)
def _known(kind: type[Chain], path: Path) -> _Known:
    """What is known of a file, kept, as a budget may be read for hundreds of teachers."""
    return _Known(kind, path)


def _entry(
    kind: type[Chain], path: Path, number: int, line: bytes, previous: str
) -> dict[str, Any]:
    """Return the entry of a line, given the hash of the line before.

    Raises:
        RunError: the line is not an entry, or does not follow the one before.
    """
    place = _place(kind.name, path, number)
    try:
        entry: dict[str, Any] = json.loads(line)
        for field, wanted in kind.kinds[entry["entry"]].items():
            # Compared exactly, as isinstance would accept a boolean as a whole number.
            if type(entry[field]) is not wanted:
                raise TypeError(f"{field} is not of type {wanted.__name__}")
        if entry.get("answers", 1) < 1:
            raise ValueError("answers is below 1")
        follows = entry["previous"] == previous
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{place}: no {kind.name} entry ({error})") from None
    if not follows:
        raise RunError(
            f"{place}: does not follow line {number - 1}, so a line before it was changed, "
            "added or removed"
        )
    return entry


def _place(name: str, path: Path, number: int) -> str:
    return f"{name} {path}, line {number}"


def _head(lines: list[bytes]) -> str:
    return hashlib.sha256(lines[-1]).hexdigest() if lines else _FIRST

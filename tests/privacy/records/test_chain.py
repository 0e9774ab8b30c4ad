"""A chained file that is read as it grows is checked like one that is read at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd import RunError
from dpsd.privacy.records.chain import Chain, _Known


class Notes(Chain):
    name: ClassVar[str] = "notes"
    kinds: ClassVar[Mapping[str, Mapping[str, type]]] = {"note": {"text": str}}


def found(read: Callable[[], Sequence[dict[str, Any]]]) -> Any:
    """The entries, or the error that they cannot be read."""
    try:
        return list(read())
    except RunError as error:
        return str(error)


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What happens to a file: mostly lines that are added."""
    kinds = st.sampled_from(["add"] * 4 + ["cut", "flip", "halve", "remove", "repeat"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 1 << 16)), min_size=1, max_size=12))


@given(changes())
@settings(max_examples=60, deadline=None)
def test_a_file_read_after_every_change_is_read_like_one_read_once(
    made: list[tuple[str, int]],
) -> None:
    with TemporaryDirectory() as folder:
        notes = Notes(Path(folder) / "notes.jsonl")
        for number, (kind, place) in enumerate(made):
            lines = notes.path.read_bytes().splitlines(keepends=True) if number else []
            content, at = b"".join(lines), place % max(1, len(lines))
            if kind == "add" or not content:
                notes._append({"entry": "note", "text": str(number)})
            elif kind == "flip":
                byte = place % len(content)
                changed = bytes([content[byte] ^ 1])
                notes.path.write_bytes(content[:byte] + changed + content[byte + 1 :])
            elif kind == "halve":
                notes.path.write_bytes(content[: len(content) // 2])
            else:
                kept = {"cut": lines[:at], "remove": lines[:at] + lines[at + 1 :]}
                repeated = [*lines, lines[at]]
                notes.path.write_bytes(b"".join(kept.get(kind, repeated)))
            content = notes.path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            anew = partial(_Known(Notes, notes.path).read, whole)
            assert found(notes.entries) == found(anew)

"""A journal says of its clients the same, whether it is read as it grows or all at once."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd import RunError
from dpsd.runs.journal import Journal, Refusal

KEYS = st.sampled_from(["a", "b", "c"])
SPENT = st.dictionaries(st.sampled_from(["response", "round"]), st.floats(0, 9), max_size=2)
EVENTS = st.one_of(
    st.tuples(st.just("meet"), KEYS, SPENT),
    st.tuples(st.just("refuse"), KEYS, st.sampled_from(["late", "silent"])),
    st.tuples(st.just("note"), st.integers(1, 4), st.dictionaries(KEYS, st.integers(0, 9))),
)


def happen(journal: Journal, event: tuple[Any, ...]) -> None:
    """Record an event, of clients that the journal knows."""
    kind, what, said = event
    if kind == "meet":
        journal.meet(what, name=f"hospital-{what}", mechanism={}, spent=said, ledger="")
    elif kind == "refuse":
        journal.refuse(what, name=f"hospital-{what}", code=said)
    else:
        known = {client.key for client in journal.clients()}
        journal.note(
            what,
            {
                key: {"code": "answered", "answers": answers, "spent": {}, "ledger": "d1ce"}
                for key, answers in said.items()
                if key in known
            },
        )


@given(st.lists(EVENTS, max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_journal_read_as_it_grows_says_what_it_says_read_at_once(events: list[Any]) -> None:
    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        answers: dict[tuple[str, int], int] = {}
        for event in events:
            happen(journal, event)
            whole = Journal(journal.path)
            assert journal.clients() == whole.clients()
            assert journal.refusals() == whole.refusals()
            if event[0] == "note":
                known = {client.key for client in journal.clients()}
                answers |= {(key, event[1]): n for key, n in event[2].items() if key in known}
        for client in journal.clients():
            noted = [many for (key, _), many in answers.items() if key == client.key]
            assert client.answers == sum(noted), "a second note about a round replaces the first"


def test_a_refusal_is_recorded_once_and_ends_with_a_greeting(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for _ in range(2):
        journal.refuse("a", name="hospital-a", code="late")
        assert len(journal.entries()) == 1
    assert journal.refusals() == {"a": Refusal(name="hospital-a", code="late")}
    assert not journal.clients(), "it has no column"
    happen(journal, ("meet", "a", {}))
    assert not journal.refusals()
    journal.refuse("a", name="hospital-a", code="silent")
    happen(journal, ("meet", "a", {}))
    assert not journal.refusals()


def test_a_line_that_is_changed_while_the_journal_is_open_is_found(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for key in "abc":
        happen(journal, ("meet", key, {}))
    assert len(journal.clients()) == 3
    content = journal.path.read_bytes()
    journal.path.write_bytes(content.replace(b"hospital-a", b"hospital-z"))
    with pytest.raises(RunError, match="line 2: does not follow line 1"):
        journal.clients()
    journal.path.write_bytes(content.splitlines(keepends=True)[0])
    assert [client.name for client in journal.clients()] == ["hospital-a"]
    journal.path.write_bytes(content)
    assert len(journal.clients()) == 3


def test_a_reply_of_a_client_that_never_appeared_is_refused_each_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    happen(journal, ("meet", "a", {}))
    journal.note(1, {"b": {"code": "late", "answers": 0, "spent": {}, "ledger": ""}})
    for _ in range(2):
        with pytest.raises(RunError, match="line 2: no journal entry"):
            journal.clients()

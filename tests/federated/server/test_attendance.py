"""Every client that was invited is listed once, with a reason if it does not answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dpsd.federated.exchange import Member
from dpsd.federated.server.attendance import attendance
from dpsd.runs.journal import Client, Refusal


def client(key: str, code: str = "answered") -> Client:
    stated = {"mechanism": {}, "spent": {}, "ledger": ""}
    return Client(key=key, name=f"hospital-{key}", code=code, round=3, answers=9, **stated)  # type: ignore[arg-type]


def member(key: str) -> Member:
    return Member(key, f"hospital-{key}")


KEYS = st.lists(st.sampled_from("abcdef"), unique=True)


@given(KEYS, KEYS, st.dictionaries(st.sampled_from("abcdef"), st.booleans()), st.booleans())
def test_everybody_is_listed_once(
    took_part: list[str], refused: list[str], online: dict[str, bool], runs: bool
) -> None:
    found = attendance(
        [client(key) for key in took_part],
        {key: Refusal(name=f"hospital-{key}", code="late") for key in refused},
        online={member(key): there for key, there in online.items()} if runs else None,
    )
    assert [one.key for one in found][: len(took_part)] == took_part
    keys = {*took_part, *refused, *(online if runs else ())}
    assert sorted(one.key for one in found) == sorted(keys)
    assert all(one.name == f"hospital-{one.key}" for one in found)
    assert all((one.state == "-") is not runs for one in found)


def test_each_has_a_reason() -> None:
    found = attendance(
        [client("a"), client("b", "silent"), client("c", ""), client("g")],
        {"d": Refusal(name="hospital-d", code="malformed")},
        online={member(key): key in "acdf" for key in "abcdef"},
    )
    assert [(one.key, one.said, one.state) for one in found] == [
        ("a", "answered (round 3)", "connected"),
        ("b", "silent (round 3)", "not connected"),
        ("c", "takes part, and has answered no round yet", "connected"),
        ("g", "answered (round 3)", "shut out, as its key was removed"),
        ("d", "malformed (when it was greeted)", "connected, and does not take part yet"),
        ("e", "-", "has not connected yet"),
        ("f", "-", "connected, and does not take part yet"),
    ]

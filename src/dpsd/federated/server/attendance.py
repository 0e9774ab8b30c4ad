"""Who was invited to a federation, who takes part, and why the others do not.

>>> asked = Client(key="a", name="hospital-1", mechanism={}, spent={}, ledger="", answers=9,
...                code="answered", round=1)
>>> late = Member("b", "hospital-2")
>>> found = attendance([asked], {}, online={Member("a", "hospital-1"): True, late: False})
>>> [(one.name, one.answers, one.state) for one in found]
[('hospital-1', 9, 'connected'), ('hospital-2', 0, 'has not connected yet')]
>>> found[0].said, found[1].said
('answered (round 1)', '-')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpsd.federated.exchange import Member
from dpsd.reporting.federations import last_said
from dpsd.runs.journal import Client, Refusal


@dataclass(frozen=True, kw_only=True)
class Attendant:
    """A client that was invited to a federation.

    Args:
        key: the hash of its public key.
        name: the name that it was registered under.
        answers: the number of images that it answered.
        said: the last code of its replies with the round, or of its greeting if it does not take
            part; ``-`` if it has said nothing yet.
        state: whether it is connected, or why it is not there; ``-`` if the server, which knows, is
            not running.
    """

    key: str
    name: str
    answers: int
    said: str
    state: str


def attendance(
    clients: Sequence[Client],
    refusals: Mapping[str, Refusal],
    *,
    online: Mapping[Member, bool] | None,
) -> list[Attendant]:
    """Return all invited clients: first those that took part, in the order of their columns.

    Args:
        clients: the clients that took part.
        refusals: why others do not, by their keys.
        online: the clients that may connect, and whether each is connected now; ``None`` if the
            server is not running.
    """
    known = {client.key: client for client in clients}
    names = {client.key: client.name for client in clients}
    names |= {key: refusal.name for key, refusal in refusals.items() if key not in names}
    connected: dict[str, bool] = {}
    for member, is_online in (online or {}).items():
        connected[member.key] = is_online
        names.setdefault(member.key, member.name)
    return [
        Attendant(
            key=key,
            name=name,
            answers=known[key].answers if key in known else 0,
            said=_said(known.get(key), refusals.get(key)),
            state="-" if online is None else _state(connected.get(key), is_known=key in known),
        )
        for key, name in names.items()
    ]


def _said(client: Client | None, refusal: Refusal | None) -> str:
    """What a client said last, as far as the journal says."""
    if refusal is not None:
        return f"{refusal.code} (when it was greeted)"
    if client is None or client.code:
        return "-" if client is None else last_said(client)
    return "takes part, and has answered no round yet"


def _state(is_online: bool | None, *, is_known: bool) -> str:
    if is_online is None:
        return "shut out, as its key was removed"
    if is_known:
        return "connected" if is_online else "not connected"
    return "connected, and does not take part yet" if is_online else "has not connected yet"

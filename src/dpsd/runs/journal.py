"""The journal of a federation's server: who took part, what they said, and which files are whole.

It is a chain of lines like a ledger (see :mod:`dpsd.privacy.records.chain`), but it records no
privacy: the server asks no teacher, and what was spent is in each client's own ledger. Whatever a
line says of a client's ε is what the client said of itself.

>>> import tempfile
>>> from pathlib import Path
>>> with tempfile.TemporaryDirectory() as folder:
...     journal = Journal(Path(folder) / "journal.jsonl")
...     stated = {"name": "hospital-1", "mechanism": {}, "spent": {}, "ledger": ""}
...     journal.meet("c0ffee", **stated)
...     journal.meet("c0ffee", **stated)
...     said = {"code": "answered", "answers": 9, "spent": {"response": 1.0}, "ledger": "d1ce"}
...     journal.note(1, {"c0ffee": said})
...     journal.clients()
[Client(key='c0ffee', name='hospital-1', mechanism={}, spent={'response': 1.0}, ledger='d1ce', ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from dpsd.errors import RunError
from dpsd.privacy.records.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client as the server's journal knows it.

    Args:
        key: the hash of its public key.
        name: the name that it was registered under.
        mechanism: the parameters of its mechanism.
        spent: its ε by adjacency, with ``delta``, as it stated it last.
        ledger: the hash of the last line of its ledger, as it stated it last.
        answers: the number of images that it answered.
        code: the last code that it replied with; empty before its first reply.
        round: the number of the round of that code; 0 before its first reply.
    """

    key: str
    name: str
    mechanism: Mapping[str, Any]
    spent: Mapping[str, float]
    ledger: str
    answers: int = 0
    code: str = ""
    round: int = 0


class Journal(Ledger):
    """An append-only record of a federation's rounds, kept by its server.

    Args:
        path: the path of the file, which is created with the first entry.
    """

    name: ClassVar[str] = "journal"
    kinds: ClassVar[Mapping[str, Mapping[str, type]]] = {
        "open": {"version": int, "rounds": int, "settings": dict, "sources": list},
        "client": {"key": str, "name": str, "mechanism": dict, "spent": dict, "ledger": str},
        "replies": {"round": int, "replies": dict},
        "commit": {"round": int, "sha256": str},
        "finish": {"student": str, "generator": str},
    }

    def meet(
        self,
        key: str,
        *,
        name: str,
        mechanism: Mapping[str, Any],
        spent: Mapping[str, float],
        ledger: str,
    ) -> None:
        """Record a client's greeting, unless it is what the journal says already.

        The first greeting gives the client its column in all later releases.
        """
        stated = {"name": name, "mechanism": dict(mechanism), "spent": dict(spent)}
        stated["ledger"] = ledger
        known = {client.key: client for client in self.clients()}.get(key)
        if known is None or any(getattr(known, part) != value for part, value in stated.items()):
            self._append({"entry": "client", "key": key, **stated})

    def note(self, round_index: int, replies: Mapping[str, Mapping[str, Any]]) -> None:
        """Record what clients replied in a round; a second note about a round replaces the first.

        Args:
            round_index: the number of the round, from 1.
            replies: ``code``, ``answers``, ``spent`` and ``ledger`` of each, by the client's key.
        """
        self._append({"entry": "replies", "round": round_index, "replies": dict(replies)})

    def replies(self, round_index: int) -> dict[str, Any]:
        """What was noted last about a round, by the clients' keys."""
        noted = (
            entry["replies"]
            for entry in reversed(self.entries())
            if entry["entry"] == "replies" and entry["round"] == round_index
        )
        return next(noted, {})

    def clients(self) -> list[Client]:
        """All clients in the order in which they appeared, which is that of their columns.

        Raises:
            RunError: a line is not of a journal.
        """
        found: dict[str, Client] = {}
        answers: dict[tuple[str, int], int] = {}
        for number, entry in enumerate(self.entries() if self.is_begun() else [], start=1):
            try:
                if entry["entry"] == "client":
                    stated = {name: entry[name] for name in _STATED}
                    known = found.get(entry["key"]) or Client(key=entry["key"], **stated)
                    found[known.key] = replace(known, **stated)
                elif entry["entry"] == "replies":
                    for key, said in entry["replies"].items():
                        answers[key, entry["round"]] = int(said["answers"])
                        found[key] = _said(found[key], said, entry["round"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise RunError(f"{self.line(number)}: no {self.name} entry ({error!r})") from None
        return [
            replace(client, answers=sum(many for (of, _), many in answers.items() if of == key))
            for key, client in found.items()
        ]


#: What a client states of itself when it is greeted.
_STATED = ("name", "mechanism", "spent", "ledger")


def _said(client: Client, said: Mapping[str, Any], round_index: int) -> Client:
    """The client after a reply; one that says nothing of its ε has spent what it had before."""
    stated = {name: said[name] for name in ("spent", "ledger") if said[name]}
    return replace(client, code=said["code"], round=round_index, **stated)

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
...     journal.refuse("beef", name="hospital-2", code="malformed")
...     print(journal.latest_answers())
...     journal.clients()
['c0ffee']
[Client(key='c0ffee', name='hospital-1', mechanism={}, spent={'response': 1.0}, ledger='d1ce', ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
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


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a client that was greeted does not take part.

    Args:
        name: the name that it was registered under.
        code: what its greeting said, or what the server notes of it.
    """

    name: str
    code: str


class Journal(Ledger):
    """An append-only record of a federation's rounds, kept by its server.

    Args:
        path: the path of the file, which is created with the first entry.
    """

    name: ClassVar[str] = "journal"
    kinds: ClassVar[Mapping[str, Mapping[str, type]]] = {
        "open": {"version": int, "rounds": int, "settings": dict, "sources": list},
        "client": {"key": str, "name": str, "mechanism": dict, "spent": dict, "ledger": str},
        "refusal": {"key": str, "name": str, "code": str},
        "replies": {"round": int, "replies": dict},
        "commit": {"round": int, "sha256": str},
        "finish": {"student": str, "generator": str},
    }

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._register = _Register()

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
        register = self._read()
        known = register.clients.get(key)
        is_same = known and all(getattr(known, part) == value for part, value in stated.items())
        if not is_same or key in register.refusals:
            self._append({"entry": "client", "key": key, **stated})

    def refuse(self, key: str, *, name: str, code: str) -> None:
        """Record why a client does not take part now, unless the journal says that already."""
        if self._read().refusals.get(key) != Refusal(name=name, code=code):
            self._append({"entry": "refusal", "key": key, "name": name, "code": code})

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

    def latest_answers(self) -> list[str]:
        """The keys of the clients that answered the latest round about which anything was noted."""
        entries = self.entries() if self.path.exists() else []
        noted = next((one for one in reversed(entries) if one["entry"] == "replies"), None)
        replies = {} if noted is None else noted["replies"]
        return [key for key, said in replies.items() if said["answers"]]

    def clients(self) -> list[Client]:
        """All clients in the order in which they appeared, which is that of their columns.

        Raises:
            RunError: a line is not of a journal.
        """
        return list(self._read().clients.values())

    def refusals(self) -> dict[str, Refusal]:
        """Why clients did not take part when they were greeted last, by their keys.

        Raises:
            RunError: a line is not of a journal.
        """
        return dict(self._read().refusals)

    def _read(self) -> _Register:
        """What all entries say, of which only those that were added since are read."""
        entries = self.entries() if self.path.exists() else []
        register = self._register
        if register.entries != entries[: len(register.entries)]:
            register = _Register()
        self._register = _Register()  # unless all can be taken
        for entry in entries[len(register.entries) :]:
            try:
                register.take(entry)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                place = self.line(len(register.entries) + 1)
                raise RunError(f"{place}: no {self.name} entry ({error!r})") from None
        self._register = register
        return register


class _Register:
    """What the entries of a journal say of clients, taken one by one.

    Args:
        entries: the entries that were taken.
        clients: the clients by their keys, in the order in which they appeared.
        refusals: why clients that were greeted do not take part, by their keys.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.clients: dict[str, Client] = {}
        self.refusals: dict[str, Refusal] = {}
        self._answers: dict[tuple[str, int], int] = {}

    def take(self, entry: dict[str, Any]) -> None:
        """Take the next entry."""
        if entry["entry"] == "client":
            stated = {name: entry[name] for name in _STATED}
            known = self.clients.get(entry["key"]) or Client(key=entry["key"], **stated)
            self.clients[known.key] = replace(known, **stated)
            self.refusals.pop(known.key, None)
        elif entry["entry"] == "refusal":
            self.refusals[entry["key"]] = Refusal(name=entry["name"], code=entry["code"])
        elif entry["entry"] == "replies":
            for key, said in entry["replies"].items():
                self.clients[key] = self._after(self.clients[key], said, entry["round"])
        self.entries.append(entry)

    def _after(self, client: Client, said: Mapping[str, Any], round_index: int) -> Client:
        """The client after a reply; one that says nothing of its ε has spent what it had before."""
        stated = {name: said[name] for name in ("spent", "ledger") if said[name]}
        # A second note about a round replaces the first.
        before = self._answers.get((client.key, round_index), 0)
        self._answers[client.key, round_index] = int(said["answers"])
        answers = client.answers + int(said["answers"]) - before
        return replace(client, code=said["code"], round=round_index, answers=answers, **stated)


#: What a client states of itself when it is greeted.
_STATED = ("name", "mechanism", "spent", "ledger")

"""The clients of a federation as its server knows them: who takes part, and by which channel.

A client is greeted when it appears, and again whenever it failed to answer, as it may have been
started anew since. Its first greeting gives it a column in all later releases.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dpsd.errors import ConfigError
from dpsd.federated.exchange import Exchange, Member
from dpsd.federated.mechanisms import rebuilt
from dpsd.federated.requests import Code, Greeting, Hello
from dpsd.federated.server.pooling import Pool
from dpsd.federated.server.reading import GarbageError, check_stated
from dpsd.privacy.mechanisms import Mechanism, SharedNoiseVotes
from dpsd.runs.federation import FederationDirectory
from dpsd.runs.observing import Observer

#: Why a client does not take part that shares noise with others.
_NO_SUMS = (
    "it counts on a server that is trusted to add up, and this one was started without "
    "trusted_aggregator"
)


@dataclass(kw_only=True)
class Roster:
    """Who takes part in a federation.

    Args:
        directory: the directory of the server, whose journal records who appeared.
        exchange: carries greetings.
        hello: what the federation is about.
        observer: is notified of clients that do not take part.
        deadline: the seconds that a client has to greet back.
        pool: adds up what clients release, where they trust the server to.
    """

    directory: FederationDirectory
    exchange: Exchange
    hello: Hello
    observer: Observer
    deadline: float
    pool: Pool | None = None
    _mechanisms: dict[str, Mechanism] = field(default_factory=dict)
    _left: dict[str, int] = field(default_factory=dict)
    #: Why clients do not take part, as the observer was told since this server was started.
    _told: dict[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """The keys of all clients that ever appeared, in the order of their columns."""
        return [client.key for client in self.directory.clients()]

    def names(self, keys: Iterable[str]) -> str:
        """The names of clients, for people."""
        known = {client.key: client.name for client in self.directory.clients()}
        return ", ".join(known.get(key, key) for key in keys)

    def mechanism(self, key: str) -> Mechanism:
        """The mechanism of a client, as it stated it last."""
        if key not in self._mechanisms:
            (client,) = (one for one in self.directory.clients() if one.key == key)
            self._mechanisms[key] = self._rebuilt(client.mechanism)
        return self._mechanisms[key]

    def answers_left(self, key: str) -> int:
        """The number of images that a client that was greeted still answers."""
        return self._left[key]

    def present(self) -> list[str]:
        """Greet connected clients that were not greeted yet; returns the keys of those taking part.

        The order is that of their columns.
        """
        connected = list(self.exchange.members())
        # Who comes back is greeted again, as it may take part otherwise now.
        self.doubt(self._left.keys() - {member.key for member in connected})
        unknown = [member for member in connected if member.key not in self._left]
        if unknown:
            deadline = time.time() + self.deadline
            greetings = self.exchange.greet(self.hello, unknown, deadline=deadline)
            there = {member.key for member in connected}
            # In the order of their keys, so that columns do not depend on who was quickest.
            for member in sorted(unknown, key=lambda one: (len(one.key), one.key)):
                greeting = greetings.get(member.key, Greeting(code=Code.SILENT))
                self._meet(member, greeting, there)
        there = {member.key for member in connected if member.key in self._left}
        return [key for key in self.keys if key in there]

    def doubt(self, keys: Iterable[str]) -> None:
        """Greet these clients again before they are asked again."""
        for key in keys:
            self._left.pop(key, None)

    def _meet(self, member: Member, greeting: Greeting, there: Collection[str]) -> None:
        problem, why = str(greeting.code), ""
        if greeting.code is Code.ANSWERED:
            try:
                check_stated(greeting)
                mechanism = self._rebuilt(greeting.mechanism)
            except (GarbageError, ConfigError) as error:
                problem, why = str(Code.GARBAGE), f" ({error})"
            else:
                if not (unlike := self._unlike(member.key, mechanism, there)):
                    self._admit(member, greeting, mechanism)
                    return
                problem, why = str(Code.UNLIKE), f" ({unlike})"
        self.directory.journal.refuse(member.key, name=member.name, code=problem)
        # Said once, as it is greeted again and again.
        if self._told.get(member.key) != problem:
            self._told[member.key] = problem
            self.observer.notice(f"client {member.name} does not take part now: {problem}{why}")

    def _admit(self, member: Member, greeting: Greeting, mechanism: Mechanism) -> None:
        self._mechanisms[member.key] = mechanism
        self.directory.journal.meet(
            member.key,
            name=member.name,
            mechanism=greeting.mechanism,
            spent=greeting.spent,
            ledger=greeting.ledger,
        )
        self._left[member.key] = greeting.answers_left
        self._told.pop(member.key, None)

    def _rebuilt(self, stated: Mapping[str, Any]) -> Mechanism:
        return rebuilt(stated, num_classes=self.hello.num_classes)

    def _unlike(self, key: str, mechanism: Mechanism, there: Collection[str]) -> str:
        """Why a client's releases cannot be used in the way that all promises count on, or nothing.

        Sums count on the clients that have answered, and on those that are there to answer.
        """
        if self.pool is None:
            return _NO_SUMS if isinstance(mechanism, SharedNoiseVotes) else ""
        others = [
            self.mechanism(client.key)
            for client in self.directory.clients()
            if client.key != key and (client.answers or client.key in self._left.keys() & there)
        ]
        return self.pool.unlike(mechanism, others)

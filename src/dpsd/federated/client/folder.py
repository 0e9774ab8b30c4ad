"""The directory of a client, which is enough to continue after a restart, and to certify.

    client.toml        what the client takes part with: its teacher, its target, its noise
    ledger.jsonl       what its teacher was asked, recorded before it answered
    answers.sqlite     the images that it was asked about, and what was released
    certificate.json   the privacy that was spent

Nothing in it depends on a raw answer except through a release.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from dpsd.config.base import Settings, read_toml, to_toml
from dpsd.errors import DiskFullError, RunError, unwritable
from dpsd.federated.client.answers import AnswerTable
from dpsd.federated.client.plan import AnswerPlan
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.records.certificate import Certificate, certify
from dpsd.privacy.records.ledger import Ledger
from dpsd.privacy.records.teacher_budget import lacking
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.runs.budgets import files_that_record
from dpsd.runs.reconciliation import Reconciliation, compared
from dpsd.storage.files import file_hash, read_json, write_text
from dpsd.storage.locks import Hold, exclusively
from dpsd.teachers import Teacher

CLIENT_FILE = "client.toml"

#: The source of queries that the ledger and the certificate of a client name.
SERVER_CHOSEN = "images that the server chose"


class ClientSettings(Settings):
    """What a client takes part with; final from its first answer on."""

    run: str = Field(description="The client's identity in its ledger and its teacher's budget.")
    teacher: str = Field(description="The teacher's location, or its description.")
    fingerprint: str = Field(description="The teacher's content hash.")
    members: int = Field(ge=1, description="Number of teachers that answer together.")
    rounds: int = Field(ge=1, description="The most requests that are answered anew.")
    queries: int = Field(ge=1, description="The most images in a request, on average.")
    epsilon: float = Field(description="Privacy target ε, under the adjacency and at delta.")
    delta: float = Field(description="Privacy target δ.")
    adjacency: Adjacency = Field(description="What ε protects.")
    mechanism: dict[str, Any] = Field(description="Parameters of the calibrated mechanism.")

    def target(self) -> Budget:
        """The privacy target."""
        return Budget(epsilon=self.epsilon, delta=self.delta, adjacency=self.adjacency)


class ClientFolder:
    """The files of a client.

    Args:
        path: the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = Ledger(path / "ledger.jsonl")
        self.answers = AnswerTable(path / "answers.sqlite")

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the directory of a client that has answered or may answer.

        Raises:
            RunError: there is none, or its settings were changed since it took part.
        """
        folder = cls(Path(path))
        if not folder.exists():
            raise RunError(f"{path} is not the directory of a client: it has no {CLIENT_FILE}")
        folder.require_unchanged()
        return folder

    def require_unchanged(self) -> None:
        """Refuse settings that were changed since the client took part.

        Raises:
            RunError: they were.
        """
        if self.ledger.is_begun():
            recorded = self.ledger.opening()["settings"]
            if file_hash(self.path / CLIENT_FILE) != recorded.get(CLIENT_FILE):
                raise RunError(
                    f"{self.path / CLIENT_FILE} was changed since the client took part; put back "
                    "what it was"
                )

    def exists(self) -> bool:
        """Whether this is the directory of a client."""
        return (self.path / CLIENT_FILE).is_file()

    def create(self, settings: ClientSettings) -> None:
        """Begin a client in an empty or new directory.

        Raises:
            RunError: the directory is not empty, or cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            is_empty = not any(self.path.iterdir())
        except OSError as error:
            raise unwritable(
                error, f"{self.path} cannot be created", mend="give another --out", kind=RunError
            ) from None
        if not is_empty:
            raise RunError(f"{self.path} is not empty, and holds no client. Give another --out")
        write_text(self.path / CLIENT_FILE, to_toml(settings))

    def settings(self) -> ClientSettings:
        """What the client takes part with."""
        return ClientSettings(**read_toml(self.path / CLIENT_FILE))

    @property
    def federation(self) -> str | None:
        """The identity of the federation that the client takes part in; ``None`` before it does."""
        return str(self.ledger.opening()["federation"]) if self.ledger.is_begun() else None

    def join(self, federation: str, teacher: Teacher, *, earlier: Mapping[str, Any] | None) -> None:
        """Record durably which federation the client takes part in, from now on.

        Args:
            federation: the identity of the federation.
            teacher: the client's teacher.
            earlier: what the teacher had spent before; ``None`` if that is not on record.
        """
        settings = self.settings()
        self.ledger.open(
            {
                "run": settings.run,
                "federation": federation,
                "target": settings.target().to_dict(),
                "rounds": settings.rounds,
                "queries": settings.queries,
                "sources": [SERVER_CHOSEN],
                "teacher": settings.fingerprint,
                "members": settings.members,
                "disjoint_data": teacher.is_disjoint,
                "dealt_by": teacher.dealt_by,
                "distinct_images": True,
                **({"class_names": list(names)} if (names := teacher.class_names) else {}),
                "settings": {CLIENT_FILE: file_hash(self.path / CLIENT_FILE)},
                "software": {name: version(name) for name in ("dpsd", "torch", "dp-accounting")},
                "earlier": earlier,
            }
        )

    @contextmanager
    def held(self, account: Accounts | None, *, patience: float = 0.0) -> Iterator[Sequence[Hold]]:
        """Lock the client, and the accounts that it is charged to, for this process.

        Args:
            account: the accounts.
            patience: how long to wait in all for other processes that have locked one of them, in
                seconds; by default, not at all.

        Raises:
            RunError: another process has locked one of them.
        """
        # In order, so that no two clients wait for each other's accounts.
        accounts = {path: path for path in sorted(account.paths if account else [])}
        names = {self.ledger.path: self.path.resolve()} | accounts
        end = time.monotonic() + patience
        with ExitStack() as stack:
            yield [
                stack.enter_context(exclusively(path, name=name, patience=end - time.monotonic()))
                for path, name in names.items()
            ]

    def reservations(self) -> list[dict[str, Any]]:
        """What the teacher was asked, as the ledger records it."""
        return self.ledger.reservations() if self.ledger.is_begun() else []

    def committed(self) -> set[int]:
        """The numbers of the rounds whose releases are recorded as stored."""
        entries = self.ledger.entries() if self.ledger.is_begun() else []
        return {entry["round"] for entry in entries if entry["entry"] == "commit"}

    def lost(self) -> int:
        """The number of rounds that were reserved and whose releases are not recorded as stored."""
        return len(self.reservations()) - len(self.committed())

    def recover(self, account: Accounts | None) -> None:
        """Complete the records after a crash; only who holds the client may call this.

        Images that were recorded without a reservation are forgotten, as the teacher was asked
        nothing. A round whose releases are stored is committed. Whatever else was reserved stays
        reserved, and is recorded in every budget and in the certificate.

        Raises:
            RunError: the records contradict each other, so that an image might be asked twice.
        """
        own, rounds = self.reservations(), self.answers.rounds()
        reserved = {entry["round"]: entry["answers"] for entry in own}
        for index, rows in rounds.items():
            if index not in reserved:
                self._require(not rows.released, index)
                self.answers.forget(index)
            elif rows.released and index not in self.committed():
                self.ledger.commit(round_index=index, sha256=self.answers.sha256(index))
        for index, answers in reserved.items():
            self._require(index in rounds and rounds[index].asked == answers, index)
        if account is not None and self.ledger.is_begun():
            run = self.settings().run
            entries = [{**entry, "run": run} for entry in own]
            if extra := lacking(entries, account.asked(run)):
                raise RunError(
                    f"the teacher's budget records {extra[0]['answers']} answers of this client in "
                    f"round {extra[0]['round']}, but ledger {self.ledger.path} does not: lines "
                    "were cut off it, or a copy of the directory answered. Put the directory back "
                    "as it was"
                )
            account.catch_up(entries, run=run, directory=str(self.path.absolute()))
        if own and not self.is_certified():
            self.save_certificate()

    def certify(self) -> Certificate:
        """Compute the certificate from the ledger, after checking that the answers belong to it.

        Raises:
            RunError: nothing was asked yet, or the ledger and the answers contradict each other.
        """
        if not self.reservations():
            raise RunError(f"{self.path}: nothing was asked yet, so there is nothing to certify")
        rounds = self.answers.rounds()
        for entry in self.ledger.entries():
            if entry["entry"] == "reserve":
                rows = rounds.pop(entry["round"], None)
                self._require(rows is not None and rows.asked == entry["answers"], entry["round"])
            elif entry["entry"] == "commit":
                is_same = self.answers.sha256(entry["round"]) == entry["sha256"]
                self._require(is_same, entry["round"])
        for index, rows in rounds.items():
            self._require(not rows.released, index)
        return certify(self.ledger, student="")

    def reconcile(self) -> Reconciliation:
        """Compare the ledger with the teacher's budgets that are reachable from here.

        Raises:
            RunError: a budget is damaged, or records a round that the ledger does not.
        """
        settings = self.settings()
        files = files_that_record(settings.run, teacher=settings.teacher, named=None)
        return compared(self.ledger, run=settings.run, teacher=settings.fingerprint, files=files)

    def asked(self) -> list[tuple[int, int]]:
        """The number of each round that was reserved, with the number of its images."""
        return [(entry["round"], entry["answers"]) for entry in self.reservations()]

    def require_space(self, needed: int) -> None:
        """Make sure that this many bytes are free, as answers that do not fit would be lost.

        Raises:
            DiskFullError: fewer bytes are free.
        """
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise DiskFullError(
                f"{self.path}: only {free / 1e6:.1f} MB are free; make space before the teacher is "
                "asked"
            )

    def require_same(self, settings: ClientSettings) -> None:
        """Refuse settings other than those that the client takes part with.

        Raises:
            RunError: one of them differs.
        """
        own = self.settings()
        for name in ("fingerprint", "members", "rounds", "queries", *own.target().to_dict()):
            if (given := getattr(settings, name)) != (there := getattr(own, name)):
                raise RunError(
                    f"{self.path} takes part with {name} {there}, not {given}: give what it began "
                    "with, or another --out for another federation"
                )

    def save_certificate(self) -> None:
        """Write the certificate, as the ledger is now.

        Raises:
            WriteError: the directory cannot be written to.
        """
        certify(self.ledger, student="").save(self.certificate)

    def is_certified(self) -> bool:
        """Whether the stored certificate is about the ledger as it is now."""
        path = self.certificate
        return path.exists() and read_json(path).get("ledger") == self.ledger.head

    @property
    def certificate(self) -> Path:
        """The file of the certificate."""
        return self.path / "certificate.json"

    def restored(self, mechanism: Mechanism) -> Mechanism:
        """Return a mechanism with the noise level that the client took part with.

        Raises:
            RunError: the mechanism is another than it took part with.
        """
        recorded = self.settings().mechanism
        try:
            found = mechanism.with_level(recorded)
            is_same = stated(found) == recorded
        except (KeyError, ValueError):
            is_same = False
        if not is_same:
            raise RunError(
                f"{self.path} takes part with the mechanism {recorded}, which what was given does "
                "not produce: give the same settings, or another --out for another federation"
            )
        return found

    def _require(self, holds: bool, round_index: int) -> None:
        if not holds:
            raise RunError(
                f"{self.answers.path} and {self.ledger.path} say different things of round "
                f"{round_index}: one of them was changed, lost or replaced by an older copy. Put "
                "the directory back as it was; until then, nothing is answered"
            )


def new_settings(
    teacher: Teacher, *, mechanism: Mechanism, target: Budget, plan: AnswerPlan
) -> ClientSettings:
    """Return the settings of a client that is about to take part, with an identity of its own."""
    return ClientSettings(
        # Drawn here, as a server that named two federations alike would mix them up in the budget.
        run=secrets.token_hex(8),
        teacher=teacher.location or teacher.description,
        fingerprint=teacher.fingerprint,
        members=teacher.members,
        rounds=plan.rounds,
        queries=plan.queries,
        **target.to_dict(),
        mechanism=stated(mechanism),
    )


def stated(mechanism: Mechanism) -> dict[str, Any]:
    """Return a mechanism's parameters without those that are unset, which TOML cannot express."""
    return {name: value for name, value in mechanism.parameters().items() if value is not None}

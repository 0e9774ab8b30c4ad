"""The directory of a client, which is enough to continue after a restart, and to certify.

    client.toml        what the client takes part with: its teacher, its target, its noise
    ledger.jsonl       what its teacher was asked, recorded before it answered
    answers.sqlite     the images that it was asked about, and what was released
    certificate.json   the privacy that was spent

Nothing in it depends on a raw answer except through a release.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from dpsd.config.base import read_toml, to_toml
from dpsd.errors import DiskFullError, DpsdError, RunError, reason, unwritable
from dpsd.federated.client.answers import AnswerTable
from dpsd.federated.client.settings import ClientSettings, stated
from dpsd.federated.client.stored import check_plain, read_rounds
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.records.certificate import Certificate, certify
from dpsd.privacy.records.ledger import Ledger
from dpsd.privacy.records.teacher_budget import lacking
from dpsd.runs.budgets import files_that_record
from dpsd.runs.reconciliation import Reconciliation, compared
from dpsd.storage.files import file_hash, unfinished, write_text
from dpsd.storage.locks import Hold, exclusively
from dpsd.teachers import Teacher

CLIENT_FILE = "client.toml"

#: The source of queries that the ledger and the certificate of a client name.
SERVER_CHOSEN = "images that the server chose"

#: How often to look at the records of a client that answers meanwhile.
_LOOKS = 3


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
        for one in (folder.path / CLIENT_FILE, folder.ledger.path, folder.certificate):
            check_plain(one)
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
        """Begin a client in an empty or new directory, or where one was cut off as it began.

        Raises:
            RunError: the directory is not empty, or cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            is_empty = set(self.path.iterdir()) <= {unfinished(self.path / CLIENT_FILE)}
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
                **({"features": {"teachers": own.stated()}} if (own := teacher.features) else {}),
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
            DpsdError: the stored certificate does not match the ledger.
        """
        self.stored()  # before it is written anew, as it shows whether lines were cut off
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

        Nothing is written, and a client that is running may go on answering.

        Raises:
            RunError: nothing was asked yet, the ledger and the answers contradict each other, or
                the client answers too quickly to compare them.
        """
        for _ in range(_LOOKS):
            head = self.ledger.head
            try:
                certificate = self._certified()
            except RunError:
                if self.ledger.head == head:
                    raise
            else:
                if self.ledger.head == head:
                    return certificate
        raise RunError(
            f"{self.path}: the client answers meanwhile, so that its records change while they are "
            "compared: try again, or stop it first"
        )

    def _certified(self) -> Certificate:
        if not self.reservations():
            raise RunError(f"{self.path}: nothing was asked yet, so there is nothing to certify")
        rounds, reserved = read_rounds(self.answers.path), set[int]()
        for entry in self.ledger.entries():
            if entry["entry"] in ("reserve", "commit"):
                index = entry["round"]
                self._require(index in rounds, index)
                if entry["entry"] == "commit":
                    self._require(rounds[index].sha256 == entry["sha256"], index)
                else:
                    is_new = index not in reserved
                    self._require(is_new and rounds[index].asked == entry["answers"], index)
                    reserved.add(index)
        for index, rows in rounds.items():
            self._require(index in reserved or not rows.released, index)
        return certify(self.ledger, student="")

    def reconcile(self) -> Reconciliation:
        """Compare the ledger with the teacher's budgets that are reachable from here.

        Raises:
            RunError: a budget is damaged, or records a round that the ledger does not.
        """
        settings = self.settings()
        files = files_that_record(
            settings.run, teacher=settings.teacher, named=settings.budget_file
        )
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

    def stored(self) -> tuple[str, str]:
        """Return the stored certificate's text, and the hash of the line that it is about.

        A crash can leave a certificate about an earlier line of the ledger than the last. It is
        written before the next round is reserved, so there is none, and both are empty, while at
        most one round is.

        Raises:
            DpsdError: lines were removed from the ledger, or the certificate was changed or lost.
            RunError: it cannot be read.
        """
        path, text, head = self.certificate, "", ""
        if path.exists():
            try:
                text = path.read_text(encoding="utf-8")
                head = str(json.loads(text)["ledger"])
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                raise RunError(f"{path} is no certificate ({reason(error)}): put it back") from None
        elif len(self.reservations()) <= 1:
            return text, head
        if head not in self.ledger.hashes():
            problem = f"is about no line of {self.ledger.path}" if text else "is lost"
            raise DpsdError(
                f"{path} {problem}, which no crash brings about: lines were cut off the ledger, or "
                "the certificate was changed. Put the directory back as it was"
            )
        return text, head

    def is_certified(self) -> bool:
        """Whether the stored certificate is about the ledger as it is now.

        Raises:
            DpsdError: no crash can have left it as it is.
        """
        return bool(self.reservations()) and self.stored()[1] == self.ledger.head

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

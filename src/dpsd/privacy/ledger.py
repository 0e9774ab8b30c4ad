"""The ledger: privacy is spent when a teacher answers, so it is written down before it answers.

One JSON line an entry, appended, flushed and synced to disk. A reservation says what a round is
about to ask and what that costs; a commitment says that its releases are safely stored, and the
last entry which student came of it. A reservation without a commitment (a crash, a bad answer)
counts as spent all the same. Every line holds the hash of the one before, so a line that is changed
or taken out breaks the chain, and the certificate names the last, so the chain cannot be cut short;
who rewrites all of them together is not stopped. A line without its newline was cut off by a crash:
the teacher was not asked.

>>> import tempfile
>>> from dpsd.privacy.mechanisms import RandomizedResponse
>>> with tempfile.TemporaryDirectory() as folder:
...     ledger = Ledger(Path(folder) / "ledger.jsonl")
...     ledger.reserve(round_index=1, answers=100, mechanism=RandomizedResponse(epsilon=1.0),
...                    teacher="sha256:00")
...     ledger.exposure()
Exposure(response=1, round=1, teacher=100)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dp_accounting

from dpsd.errors import RunError
from dpsd.files import sync_folder
from dpsd.privacy.accounting import Exposure
from dpsd.privacy.mechanisms import Mechanism

#: What the first line names as the hash of the one before.
_FIRST = "0" * 64


class Ledger:
    """An append-only account of what was asked.

    Args:
        path: of the file; made with the first entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def reserve(
        self, *, round_index: int, answers: int, mechanism: Mechanism, teacher: str
    ) -> None:
        """Record, durably, that a round is about to be asked."""
        self._append(
            {
                "entry": "reserve",
                "round": round_index,
                "answers": answers,
                "teacher": teacher,
                "mechanism": mechanism.parameters(),
                "event": _described(mechanism.event()),
                "mean_event": _described(mechanism.mean_event()),
                "noise": mechanism.noise.description,
            }
        )

    def commit(self, *, round_index: int, sha256: str) -> None:
        """Record that a round's releases are stored, with the hash of their file."""
        self._append({"entry": "commit", "round": round_index, "sha256": sha256})

    def is_committed(self, round_index: int) -> bool:
        """Whether a round's releases are recorded as stored."""
        return any(
            entry["entry"] == "commit" and entry["round"] == round_index for entry in self.entries()
        )

    def finish(self, *, student: str, generator: str) -> None:
        """Record which models came of it, by their files' hashes; saying so again adds nothing."""
        entry = {"entry": "finish", "student": student, "generator": generator}
        last = self.entries()[-1]
        if any(last.get(name) != value for name, value in entry.items()):
            self._append(entry)

    def entries(self) -> list[dict[str, Any]]:
        """All entries, in order, each checked against the one before.

        Raises:
            RunError: the ledger is missing, a line of it is no entry, or lines were changed.
        """
        entries, previous = [], _FIRST
        for number, line in enumerate(self._lines(), start=1):
            try:
                entry = json.loads(line)
                if entry["entry"] not in ("reserve", "commit", "finish"):
                    raise KeyError(entry["entry"])
                follows = entry["previous"] == previous
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(
                    f"ledger {self.path}, line {number}: no ledger entry ({error})"
                ) from None
            if not follows:
                raise RunError(
                    f"ledger {self.path}, line {number}: does not follow line {number - 1}, so one "
                    "before it was changed, added or taken out"
                )
            entries.append(entry)
            previous = hashlib.sha256(line).hexdigest()
        return entries

    @property
    def head(self) -> str:
        """The hash of the last line, which stands for them all."""
        return _head(self._lines() if self.path.exists() else [])

    def reservations(self) -> list[dict[str, Any]]:
        """The entries that spend."""
        return [entry for entry in self.entries() if entry["entry"] == "reserve"]

    def exposure(self) -> Exposure:
        """What has been spent so far; a round that was asked twice counts twice."""
        attempts = Counter(entry["round"] for entry in self.reservations())
        return Exposure(
            response=max(attempts.values(), default=0),
            round=sum(attempts.values()),
            teacher=sum(entry["answers"] for entry in self.reservations()),
        )

    def event(self) -> dp_accounting.DpEvent:
        """What one answer cost: the same for every answer of a run.

        Raises:
            RunError: nothing was asked, or entries disagree.
        """
        return self._only("event")

    def mean_event(self) -> dp_accounting.DpEvent:
        """What one answer cost on average, where all may differ.

        Raises:
            RunError: nothing was asked, or entries disagree.
        """
        return self._only("mean_event")

    def _only(self, kind: str) -> dp_accounting.DpEvent:
        events = {json.dumps(entry[kind], sort_keys=True) for entry in self.reservations()}
        if len(events) != 1:
            raise RunError(
                f"ledger {self.path}: {len(events)} different events where a run has one"
            )
        return _restored(json.loads(events.pop()))

    def _lines(self) -> list[bytes]:
        """The whole lines, without what a crash cut off."""
        try:
            return self.path.read_bytes().split(b"\n")[:-1]
        except OSError as error:
            raise RunError(f"ledger {self.path} cannot be read: {error}") from None

    def _append(self, entry: dict[str, Any]) -> None:
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
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
            raise RunError(
                f"ledger {self.path} could not be written ({error}); before it is, the teacher is "
                "not asked"
            ) from None


def _head(lines: list[bytes]) -> str:
    return hashlib.sha256(lines[-1]).hexdigest() if lines else _FIRST


def _described(event: dp_accounting.DpEvent) -> dict[str, object]:
    if isinstance(event, dp_accounting.RandomizedResponseDpEvent):
        return {
            "name": "randomized-response",
            "noise_parameter": event.noise_parameter,
            "num_buckets": event.num_buckets,
        }
    if isinstance(event, dp_accounting.GaussianDpEvent):
        return {"name": "gaussian", "noise_multiplier": event.noise_multiplier}
    raise TypeError(f"the ledger knows no entry for {event}")


def _restored(entry: dict[str, Any]) -> dp_accounting.DpEvent:
    if entry["name"] == "gaussian":
        return dp_accounting.GaussianDpEvent(entry["noise_multiplier"])
    return dp_accounting.RandomizedResponseDpEvent(entry["noise_parameter"], entry["num_buckets"])

"""The ledger: privacy is spent when a teacher answers, so it is written down before it answers.

One JSON line an entry, appended, flushed and synced to disk. A reservation says what a round is
about to ask and what that costs; a commitment says that its releases are safely stored. A
reservation without a commitment (a crash, a bad answer) counts as spent all the same.

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

import json
import os
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dp_accounting

from dpsd.errors import RunError
from dpsd.privacy.accounting import Exposure
from dpsd.privacy.mechanisms import Mechanism


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

    def entries(self) -> list[dict[str, Any]]:
        """All entries, in order.

        Raises:
            RunError: the ledger is missing or a line of it is no entry.
        """
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"ledger {self.path} cannot be read: {error}") from None
        entries = []
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                if entry["entry"] not in ("reserve", "commit"):
                    raise KeyError(entry["entry"])
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise RunError(
                    f"ledger {self.path}, line {number}: no ledger entry ({error})"
                ) from None
            entries.append(entry)
        return entries

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

    def _append(self, entry: dict[str, Any]) -> None:
        stamped = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), **entry}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(stamped) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"ledger {self.path} could not be written ({error}), so the teacher is not asked"
            ) from None


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

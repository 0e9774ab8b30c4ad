"""The ledger: privacy is spent when a teacher answers, so it is recorded before it answers.

The first entry says what the run is and what it was calibrated to. A reservation says what a round
is about to ask and what that costs. A commit says that the round's releases are safely stored. The
last entry says which student the run produced. A reservation without a commit (after a crash or a
bad answer) counts as spent all the same. The certificate names the hash of the last line (see
:mod:`dpsd.privacy.records.chain`), so the ledger cannot be cut short either.

>>> import tempfile
>>> from pathlib import Path
>>> from dpsd.privacy.mechanisms import RandomizedResponse
>>> with tempfile.TemporaryDirectory() as folder:
...     ledger = Ledger(Path(folder) / "ledger.jsonl")
...     ledger.reserve(reservation(round_index=1, answers=100, teacher="sha256:00",
...                                mechanism=RandomizedResponse(epsilon=1.0)))
...     ledger.exposure()
Exposure(response=1, round=1, teacher=100)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import dp_accounting

from dpsd.errors import RunError
from dpsd.privacy.accounting import Spending
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.chain import Chain
from dpsd.privacy.targets import Exposure

_VERSION = 1

#: The fields of every reservation, in the ledger and in a teacher's budget.
RESERVATION: dict[str, type] = {
    "teacher": str,
    "round": int,
    "answers": int,
    "mechanism": dict,
    "event": dict,
    "mean_event": dict,
    "private": bool,
}


class Ledger(Chain):
    """An append-only record of what a run asked.

    Args:
        path: the path of the file, which is created with the first entry.
    """

    name: ClassVar[str] = "ledger"
    kinds: ClassVar[Mapping[str, Mapping[str, type]]] = {
        "open": {"version": int, "rounds": int, "settings": dict, "target": dict, "sources": list},
        "reserve": {**RESERVATION, "noise": str},
        "commit": {"round": int, "sha256": str},
        "finish": {"student": str, "generator": str},
    }

    def open(self, facts: Mapping[str, Any]) -> None:
        """Record what the run is, before it asks anything; a second call adds nothing."""
        if not self.is_begun():
            self._append({"entry": "open", "format": "dpsd-ledger", "version": _VERSION, **facts})

    def is_begun(self) -> bool:
        """Whether anything was recorded; half a line, cut off by a crash, does not count."""
        return self.path.exists() and bool(self.entries())

    def opening(self) -> dict[str, Any]:
        """The first entry, which says what the run is.

        Raises:
            RunError: the ledger begins with another entry, or has another version.
        """
        entries = self.entries()
        if not entries or entries[0]["entry"] != "open":
            raise RunError(f"{self.line(1)}: does not say what run this is")
        if entries[0].get("version") != _VERSION:
            raise RunError(
                f"{self.line(1)}: of version {entries[0].get('version')}; this dpsd reads "
                f"{_VERSION}. Use the dpsd that wrote it, or a newer one"
            )
        return entries[0]

    def reserve(self, entry: Mapping[str, Any]) -> None:
        """Record durably that a round is about to be asked; see :func:`reservation`."""
        self._append({"entry": "reserve", **entry})

    def commit(self, *, round_index: int, sha256: str) -> None:
        """Record that a round's releases are stored, with the hash of their file."""
        self._append({"entry": "commit", "round": round_index, "sha256": sha256})

    def committed(self, round_index: int) -> str | None:
        """The hash of a round's releases, if they are recorded as stored."""
        hashes = (
            entry["sha256"]
            for entry in self.entries()
            if entry["entry"] == "commit" and entry["round"] == round_index
        )
        return next(hashes, None)

    def finish(self, *, student: str, generator: str, **facts: int) -> None:
        """Record the final models by their files' hashes; a second call adds nothing.

        ``facts`` are the round whose student is the final one, ``chosen_round``, if a probe decided
        that, and the number of ``rounds`` that were asked, if the run stopped before its last.
        """
        entry = {"entry": "finish", "student": student, "generator": generator, **facts}
        last = self.entries()[-1]
        if any(last.get(name) != value for name, value in entry.items()):
            self._append(entry)

    def ending(self) -> dict[str, Any]:
        """The last entry of a finished run, which names its models; empty while it is going on."""
        entries = self.entries() if self.is_begun() else []
        return entries[-1] if entries and entries[-1]["entry"] == "finish" else {}

    def reservations(self) -> list[dict[str, Any]]:
        """The entries that spend privacy."""
        return [entry for entry in self.entries() if entry["entry"] == "reserve"]

    def exposure(self) -> Exposure:
        """The exposure of all that was asked so far; a round that was asked twice counts twice."""
        return exposure_of(self.reservations())

    def spending(self) -> Spending:
        """What was asked, and what each answer cost, which is the same throughout a run.

        Raises:
            RunError: nothing was asked, or entries disagree.
        """
        reservations = self.reservations()
        for kind in ("event", "mean_event"):
            events = {json.dumps(entry[kind], sort_keys=True) for entry in reservations}
            if len(events) != 1:
                raise RunError(
                    f"ledger {self.path}: {len(events)} different events, but a run has only one"
                )
        return spending_of(reservations)


def reservation(
    *,
    round_index: int,
    answers: int,
    mechanism: Mechanism,
    teacher: str,
    asking: str | None = None,
) -> dict[str, object]:
    """Return the entry that the ledger and every budget record before a round is asked.

    ``asking`` is a random text that is the same in the ledger and all budgets, and distinguishes
    two copies of a run that ask the same round; lines of earlier versions have none.
    """
    return {
        **({} if asking is None else {"asking": asking}),
        "teacher": teacher,
        "round": round_index,
        "answers": answers,
        "mechanism": mechanism.parameters(),
        "event": described_event(mechanism.event()),
        "mean_event": described_event(mechanism.mean_event()),
        "private": mechanism.noise.is_private,
        "noise": mechanism.noise.description,
    }


def exposure_of(reservations: list[dict[str, Any]]) -> Exposure:
    """Return the exposure of the reservations of one run."""
    return Exposure.of_asked([(entry["round"], entry["answers"]) for entry in reservations])


def spending_of(reservations: list[dict[str, Any]]) -> Spending:
    """Return what the reservations of one run, at least one, have spent.

    Raises:
        RunError: a recorded event is meaningless.
    """
    return Spending(
        event=restored_event(reservations[0]["event"]),
        mean_event=restored_event(reservations[0]["mean_event"]),
        exposure=exposure_of(reservations),
    )


def described_event(event: dp_accounting.DpEvent) -> dict[str, object]:
    """Return an event in JSON types.

    >>> described_event(dp_accounting.GaussianDpEvent(2.0))
    {'name': 'gaussian', 'noise_multiplier': 2.0}
    """
    if isinstance(event, dp_accounting.RandomizedResponseDpEvent):
        return {
            "name": "randomized-response",
            "noise_parameter": event.noise_parameter,
            "num_buckets": event.num_buckets,
        }
    if isinstance(event, dp_accounting.GaussianDpEvent):
        return {"name": "gaussian", "noise_multiplier": event.noise_multiplier}
    raise TypeError(f"the ledger has no representation of {event}")


def restored_event(entry: dict[str, Any]) -> dp_accounting.DpEvent:
    """Return the event that :func:`described_event` described."""
    try:
        if entry["name"] == "gaussian":
            noise = float(entry["noise_multiplier"])
            if not 0 < noise < math.inf:
                raise ValueError("noise_multiplier")
            return dp_accounting.GaussianDpEvent(noise)
        lies, buckets = float(entry["noise_parameter"]), entry["num_buckets"]
        if entry["name"] != "randomized-response" or not (0 < lies <= 1 and 2 <= buckets < 2**31):
            raise ValueError("noise_parameter or num_buckets")
        return dp_accounting.RandomizedResponseDpEvent(lies, int(buckets))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"a recorded event is meaningless: {entry} ({error!r})") from None

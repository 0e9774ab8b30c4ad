"""The certificate: the privacy that a run spent, in numbers and in words.

It is computed from the ledger, not from what was intended, and ``dpsd certify`` computes it again.
Wherever it shows an ε, it shows what that ε is about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dpsd.errors import RunError
from dpsd.privacy.accounting import PrivacySpent, format_epsilon, spent_together
from dpsd.privacy.records import units
from dpsd.privacy.records.clients import (
    CLIENT_TRUST,
    against_others,
    client_limits,
    trusted_server,
)
from dpsd.privacy.records.ledger import Ledger
from dpsd.privacy.records.statement import Statement
from dpsd.privacy.targets import Adjacency
from dpsd.storage.files import write_text

ADJACENCY_MEANINGS = {
    Adjacency.RESPONSE: "the teacher's answer about one image, in the whole run",
    Adjacency.ROUND: "the teacher's answer about one image in every round",
    Adjacency.TEACHER: "the whole teacher: all of its answers",
}

#: The meanings for a run that may have asked an image more than once, as earlier versions did.
PLACE_MEANINGS = {
    Adjacency.RESPONSE: "one of the teacher's answers: at one place among all that were asked",
    Adjacency.ROUND: "one of the teacher's answers, at one place, in every round",
    Adjacency.TEACHER: ADJACENCY_MEANINGS[Adjacency.TEACHER],
}

ONE_TEACHER_LIMITS = (
    "This run asked one teacher. Its epsilon under `response` and `round` bounds what an observer "
    "learns about an answer of the teacher, not about a person in its training data. Asking more "
    "queries costs no epsilon under them, so neither bounds what the student as a whole reveals. "
    "One person's record can move every answer a little; only `teacher` covers that, and for one "
    "teacher its epsilon is either far too large to promise anything, or so small that the student "
    "cannot have learned much. The teacher's hash is published with the run and no epsilon covers "
    "it: whoever holds two candidates can tell which one was asked."
)

#: The addition to the limits of a run that may have asked an image more than once.
REPEATED_IMAGES = (
    "This run may have asked about one image several times, and released an answer with noise of "
    "its own each time. Epsilon under `response` and `round` is about one of these answers: it "
    "does not cover a teacher that would have answered otherwise every time."
)

ENSEMBLE_MEANINGS = {
    Adjacency.RESPONSE: "one teacher's answer about one image, in the whole run",
    Adjacency.ROUND: "one teacher's answer about one image in every round",
    Adjacency.TEACHER: "one whole teacher of the ensemble, so {unit}",
}

ENSEMBLE_PLACE_MEANINGS = {
    Adjacency.RESPONSE: "one answer of one teacher: at one place among all that were asked",
    Adjacency.ROUND: "one answer of one teacher, at one place, in every round",
    Adjacency.TEACHER: ENSEMBLE_MEANINGS[Adjacency.TEACHER],
}

#: The addition to the limits of a run that its own releases ended before its last round.
STOPPED_EARLY = (
    "This run stopped before its last round because of what it had released. Each epsilon is about "
    "the answers that were given. How many these are depends on them too, so the promise that was "
    "made beforehand, and holds in any case, is the target's."
)

TIMING_LIMIT = (
    "Nor does any epsilon cover time: how long the rounds took is published to the second, in the "
    "figures and by the times of the ledger's lines and of files."
)

NOT_PRIVATE = (
    "NOT PRIVATE: reproducible noise. Whoever knows the seed can subtract it. Every epsilon here "
    "is what the run would have cost with secret noise."
)


#: The trust model: who is trusted with what.
TRUST = (
    "Whoever runs dpsd is trusted with the teacher and sees its answers. Everyone else may see all "
    "that the run writes, and may know everything about it but the noise."
)

#: The most names of classes that are shown to people.
_NAMES_SHOWN = 100

#: The addition to the limits of a run whose teachers or student are linear on a backbone.
PUBLIC_FEATURES = (
    "No epsilon covers what the frozen features were trained on, which is taken to be public: if "
    "private records were among it, nothing here protects them."
)

FORMAT, VERSION = "dpsd-certificate", 3


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What a run spent, and what that means.

    Args:
        target: the ε, δ and adjacency that the run was calibrated to.
        spent: the ε under all three adjacencies, computed from the ledger.
        events: the number of events in which two neighbours can differ, under each adjacency.
        mechanism: the name and parameters of the mechanism.
        noise: the source of the mechanism's randomness.
        private: whether that source was secret.
        teacher: the teacher's content hash.
        student: the hash of the student's file; empty while the run is in progress.
        run: the run's identity, which its ledger and its teacher's budget name too.
        started: when the run began, in UTC, ISO 8601.
        latest: when the ledger's last line was written, which ends a finished run.
        ledger: the hash of the ledger's last line, which stands for the whole ledger.
        sources: the public sources of queries.
        software: the versions of the software that made the run.
        earlier: what the teacher had spent before this run, as far as is on record.
        members: the number of teachers that answered.
        is_disjoint: whether the teachers' shards are on record, with hashes that were checked to
            differ between shards.
        dealt_by: what decided which teacher a record trained: ``position``, ``name`` or ``person``;
            ``None`` if that is not on record.
        distinct_images: whether the run asked every image at most once, as far as it was stored; an
            image that was asked in an attempt that a crash ended may have been asked again, which
            ``events`` counts.
        relation: the neighbouring relation, always replace-one.
        class_names: the owner's public names for the classes, in the order of the labels; ``None``
            if the run has none. A certificate without names does not mention them.
        features: the frozen public backbones that the ``teachers`` and the ``student`` are linear
            on, each with its ``name``, its ``hash`` and what it was ``trained_on``; ``None`` if
            neither has one. A certificate without them does not mention them.
        stopped_early: whether the run's own releases ended it before its last round. A certificate
            of another run does not mention it.
        federation: the identity of the federation that a client answered; ``None`` for a run, whose
            certificate does not mention it. A client has no student.
        against_others: what was spent against everybody but the server, where that is trusted to
            keep sums over several clients alone; ``None`` otherwise, and the certificate does not
            mention it. ``spent`` is against the server, too.
    """

    target: dict[str, object]
    spent: PrivacySpent
    events: dict[str, int]
    mechanism: dict[str, object]
    noise: str
    private: bool
    teacher: str
    student: str
    run: str
    started: str
    latest: str
    ledger: str
    sources: Sequence[str]
    software: dict[str, str] = field(default_factory=dict)
    earlier: dict[str, Any] | None = None
    members: int = 1
    is_disjoint: bool = False
    dealt_by: str | None = None
    distinct_images: bool = False
    relation: str = "replace-one"
    class_names: tuple[str, ...] | None = None
    features: Mapping[str, Mapping[str, str]] | None = None
    stopped_early: bool = False
    federation: str | None = None
    against_others: PrivacySpent | None = None

    @property
    def unit(self) -> str:
        """The unit of protection: whom or what the headline's ε is about."""
        if self.members > 1:
            return units.unit(self.dealt_by)
        if self.distinct_images:
            return "the teacher's answer about one image"
        return "an answer of the teacher"

    @property
    def history(self) -> str:
        """A sentence on what the teacher had spent before."""
        if self.earlier is None:
            return "What other runs asked this teacher is not on record."
        runs, file = int(self.earlier["runs"]), self.earlier.get("file", "its budget")
        asked = "this teacher"
        if several := self.earlier.get("accounts", 0):
            file, asked = (
                "one for each teacher",
                f"the one of its {several} teachers that had spent most",
            )
        later = f"Costs add up with those of any other run: see `dpsd budget` ({file})."
        if not runs:
            asked = "any of its teachers" if several else asked
            return f"On record, no other run had asked {asked} before. {later}"
        epsilons = ", ".join(
            f"{format_epsilon(self.earlier[kind.value])} under `{kind.value}`" for kind in Adjacency
        )
        return (
            f"Before it, {runs} other run{'s' * (runs > 1)} had asked {asked} and spent, at "
            f"δ = {self.spent.delta:g}, ε = {epsilons}. {later}"
        )

    @property
    def meanings(self) -> dict[Adjacency, str]:
        """What two neighbouring worlds differ in, under each adjacency."""
        if self.members == 1:
            return ADJACENCY_MEANINGS if self.distinct_images else PLACE_MEANINGS
        meanings = ENSEMBLE_MEANINGS if self.distinct_images else ENSEMBLE_PLACE_MEANINGS
        return {kind: text.format(unit=self.unit) for kind, text in meanings.items()}

    @property
    def counting(self) -> Adjacency:
        """The adjacency of the one ε that counts: the target's, or ``teacher`` for an ensemble."""
        if self.members > 1:
            return Adjacency.TEACHER
        return Adjacency(str(self.target["adjacency"]))

    @property
    def condition(self) -> str:
        """The condition under which an ensemble's ε protects its unit."""
        if self.is_disjoint:
            return "for teachers trained on their own shards"
        return "if the teachers' data are disjoint"

    @property
    def warning(self) -> str:
        """The warning that the noise was not secret; empty if it was."""
        return "" if self.private else NOT_PRIVATE

    @property
    def trust(self) -> str:
        """A sentence on who is trusted with what."""
        return TRUST if self.federation is None else CLIENT_TRUST

    @property
    def pooling(self) -> str:
        """What was spent against all but the server, and who is trusted for it; or nothing."""
        if self.against_others is None:
            return ""
        costs = ", ".join(
            f"{format_epsilon(self.against_others.under(kind))} under `{kind.value}`"
            for kind in Adjacency
        )
        return trusted_server(costs, delta=self.spent.delta, clients=self.mechanism["clients"])

    @property
    def headline(self) -> str:
        """A sentence with the strongest meaningful claim."""
        adjacency = self.counting
        if self.members == 1:
            unit = f"adjacency `{adjacency.value}`: {self.meanings[adjacency]}"
        else:
            unit = f"adjacency `teacher`: {units.level(self.dealt_by)} {self.condition}"
        epsilon = format_epsilon(self.spent.under(adjacency))
        return f"ε = {epsilon} at δ = {self.spent.delta:g} ({unit})."

    @property
    def limits(self) -> str:
        """What the certificate does not promise."""
        limits = ONE_TEACHER_LIMITS
        if self.members > 1:
            limits = units.ensemble_limits(is_disjoint=self.is_disjoint, dealt_by=self.dealt_by)
        images = "" if self.distinct_images else f" {REPEATED_IMAGES}"
        early = f" {STOPPED_EARLY}" if self.stopped_early else ""
        features = f" {PUBLIC_FEATURES}" if self.features else ""
        stated = f"{limits}{images}{early}{features} {TIMING_LIMIT}"
        return stated if self.federation is None else client_limits(stated, members=self.members)

    def to_json(self) -> str:
        """Return the certificate as JSON."""
        stated = {
            "format": FORMAT,
            "version": VERSION,
            "headline": self.headline,
            **asdict(self),
            "unit": self.unit,
            "trust": self.trust,
            "history": self.history,
            "two_worlds_differ_in": {kind.value: text for kind, text in self.meanings.items()},
            "does_not_promise": self.limits,
        }
        if self.class_names is None:
            del stated["class_names"]
        if self.features is None:
            del stated["features"]
        if not self.stopped_early:
            del stated["stopped_early"]
        if self.federation is None:
            del stated["federation"]
        if self.against_others is None:
            del stated["against_others"]
        else:
            stated["trusted_server"] = self.pooling
        if self.warning:
            stated["warning"] = self.warning
        return json.dumps(stated, indent=2, default=str) + "\n"

    @property
    def classes(self) -> str:
        """The names of the classes with their labels, for people; empty if there are none.

        They are quoted, so that a name with a comma is one name.
        """
        names = [f"{label} “{name}”" for label, name in enumerate(self.class_names or ())]
        more = len(names) - _NAMES_SHOWN
        shown = ", ".join(names[:_NAMES_SHOWN])
        return f"{shown} and {more:,} more, which certificate.json lists" if more > 0 else shown

    def to_markdown(self, *, run: str = "", teacher: str = "") -> str:
        """Return the certificate as a page of plain language, in Markdown.

        Args:
            run: the name of the run's directory, which the page shows if it is given.
            teacher: the name of the teacher, which the page shows if it is given.
        """
        return Statement(certificate=self, run=run, teacher=teacher).to_markdown()

    def save(self, path: Path) -> None:
        """Write the certificate as JSON."""
        write_text(path, self.to_json())


def certify(ledger: Ledger, *, student: str) -> Certificate:
    """Compute the certificate of what a ledger records.

    Args:
        ledger: the ledger of the run.
        student: the hash of the student's file; empty if there is none yet.

    Raises:
        RunError: nothing was asked yet, or the ledger contradicts itself.
    """
    run = ledger.opening()
    reservations = ledger.reservations()
    if not reservations:
        raise RunError(f"ledger {ledger.path}: nothing was asked yet, so there is nothing to state")
    spending = ledger.spending()
    noises = {str(entry["noise"]) for entry in reservations}
    try:
        return Certificate(
            target=run["target"],
            spent=spent_together([spending], delta=float(run["target"]["delta"])),
            events=asdict(spending.exposure),
            mechanism=reservations[0]["mechanism"],
            noise=", ".join(sorted(noises)),
            private=all(entry["private"] for entry in reservations),
            teacher=str(reservations[0]["teacher"]),
            student=student,
            run=str(run["run"]),
            started=str(run["time"]),
            latest=str(ledger.entries()[-1]["time"]),
            ledger=ledger.head,
            sources=list(run["sources"]),
            software=run["software"],
            earlier=run["earlier"],
            members=int(run["members"]),
            is_disjoint=bool(run["disjoint_data"]),
            dealt_by=units.checked_deal(run.get("dealt_by")),
            distinct_images=run.get("distinct_images") is True,
            class_names=_class_names(run),
            features=_features(run),
            stopped_early="rounds" in ledger.ending(),
            federation=None if (known := run.get("federation")) is None else str(known),
            against_others=against_others(
                reservations[0]["mechanism"], spending, delta=float(run["target"]["delta"])
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{ledger.line(1)}: does not say what run this is ({error!r})") from None


def _class_names(run: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes in a ledger's opening, which runs of earlier versions lack."""
    names = run.get("class_names")
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names is not a list of names")
    return tuple(names)


def _features(run: Mapping[str, Any]) -> dict[str, dict[str, str]] | None:
    """The backbones in a ledger's opening, by who is linear on them; ``None`` without any."""
    features = run.get("features")
    if features is None:
        return None
    if not isinstance(features, Mapping):
        raise ValueError("features are not stated by who has them")
    return {
        user: {name: str(stated[name]) for name in ("name", "hash", "trained_on")}
        for user, stated in features.items()
        if user in ("teachers", "student")
    }

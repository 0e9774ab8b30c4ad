"""The certificate: what privacy a run bought, in numbers and in words.

It is computed from the ledger, not from what was intended, and ``dpsd certify`` computes it again.
Wherever it shows an ε it shows what the ε is about.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dpsd.errors import RunError
from dpsd.files import write_text
from dpsd.privacy.accounting import Adjacency, PrivacySpent, format_epsilon, spent_together
from dpsd.privacy.ledger import Ledger

ADJACENCY_MEANINGS = {
    Adjacency.RESPONSE: "one of the teacher's answers, in the whole run",
    Adjacency.ROUND: "one of the teacher's answers in every round",
    Adjacency.TEACHER: "the whole teacher: all of its answers",
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

ENSEMBLE_MEANINGS = {
    Adjacency.RESPONSE: "one answer of one teacher, in the whole run",
    Adjacency.ROUND: "one answer of one teacher in every round",
    Adjacency.TEACHER: "one whole teacher of the ensemble, so one training record",
}

ENSEMBLE_LIMITS = (
    "Epsilon under `teacher` is record-level differential privacy, as DP-SGD gives, if all of this "
    "holds: every record was in the data of one teacher only ({disjoint}); each teacher was "
    "trained on its own data alone, independently of the others; and the assignment of records to "
    "teachers, the architecture and all hyperparameters were chosen without looking at the data. "
    "Neighbouring data sets have as many records at the same positions, none of them twice, and "
    "differ in one: a person who has several records is covered for each, and for all g of them "
    "only at g epsilon and a delta (e^(g epsilon) - 1) / (e^epsilon - 1) times as large. It "
    "covers what the mechanism released and all that was made of "
    "it: the student, the generator, the pictures and figures. It does not cover the teachers, "
    "which stay as private as their data, nor the fact that a run stopped because one of them "
    "failed to answer."
)

TIMING_LIMIT = (
    "Nor does any epsilon cover time: how long the rounds took is published to the second, in the "
    "figures and by the times of the ledger's lines and of files."
)

NOT_PRIVATE = (
    "NOT PRIVATE: reproducible noise. Whoever knows the seed can subtract it. Every epsilon here "
    "is what the run would have cost with secret noise."
)


#: Who is trusted with what.
TRUST = (
    "Whoever runs dpsd is trusted with the teacher and sees its answers. Everyone else may see all "
    "that the run writes, and may know everything about it but the noise."
)

FORMAT, VERSION = "dpsd-certificate", 1


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What a run spent and what that means.

    Args:
        target: ε, δ and adjacency that the run was calibrated to.
        spent: ε under all three adjacencies, from the ledger.
        events: how many events two neighbours can differ in, under each.
        mechanism: name and parameters.
        noise: where its randomness came from.
        private: whether that was a secret source.
        teacher: the teacher's content hash.
        student: the student file's hash; empty while the run goes on.
        ledger: hash of the ledger's last line, which stands for all of it.
        sources: public sources of queries.
        software: versions that the run was made with.
        earlier: what the teacher had spent before this run, as far as is on record.
        members: how many teachers answered.
        is_disjoint: whether their data were checked to be disjoint.
        relation: always replace-one.
    """

    target: dict[str, object]
    spent: PrivacySpent
    events: dict[str, int]
    mechanism: dict[str, object]
    noise: str
    private: bool
    teacher: str
    student: str
    ledger: str
    sources: Sequence[str]
    software: dict[str, str] = field(default_factory=dict)
    earlier: dict[str, Any] | None = None
    members: int = 1
    is_disjoint: bool = False
    relation: str = "replace-one"

    @property
    def unit(self) -> str:
        """Whom or what the headline's ε is about."""
        return "a training record" if self.members > 1 else "an answer of the teacher"

    @property
    def history(self) -> str:
        """What the teacher had spent before, in a sentence."""
        if self.earlier is None:
            return "What other runs asked this teacher is not on record."
        runs, file = int(self.earlier["runs"]), self.earlier.get("file", "its budget")
        later = f"Costs add up with those of any other run: see `dpsd budget` ({file})."
        if not runs:
            return f"On record, no other run had asked this teacher before. {later}"
        epsilons = ", ".join(
            f"{format_epsilon(self.earlier[kind.value])} under `{kind.value}`" for kind in Adjacency
        )
        return (
            f"Before it, {runs} other run{'s' * (runs > 1)} had asked this teacher and spent, at "
            f"δ = {self.spent.delta:g}, ε = {epsilons}. {later}"
        )

    @property
    def meanings(self) -> dict[Adjacency, str]:
        """What two neighbouring worlds differ in, under each adjacency."""
        return ADJACENCY_MEANINGS if self.members == 1 else ENSEMBLE_MEANINGS

    @property
    def headline(self) -> str:
        """The strongest claim that means something, in a sentence."""
        if self.members == 1:
            adjacency = Adjacency(str(self.target["adjacency"]))
            unit = f"adjacency `{adjacency.value}`: {self.meanings[adjacency]}"
        else:
            adjacency = Adjacency.TEACHER
            unit = "adjacency `teacher`: record-level, as the teachers' data are disjoint"
            if not self.is_disjoint:
                unit = "adjacency `teacher`: record-level if the teachers' data are disjoint"
        epsilon = format_epsilon(self.spent.under(adjacency))
        return f"ε = {epsilon} at δ = {self.spent.delta:g} ({unit})."

    @property
    def limits(self) -> str:
        """What this does not promise."""
        checked = "checked from hashes of the records" if self.is_disjoint else "not checked"
        limits = ENSEMBLE_LIMITS.format(disjoint=checked)
        return f"{ONE_TEACHER_LIMITS if self.members == 1 else limits} {TIMING_LIMIT}"

    def to_json(self) -> str:
        """The certificate as JSON."""
        stated = {
            "format": FORMAT,
            "version": VERSION,
            "headline": self.headline,
            **asdict(self),
            "unit": self.unit,
            "trust": TRUST,
            "history": self.history,
            "two_worlds_differ_in": {kind.value: text for kind, text in self.meanings.items()},
            "does_not_promise": self.limits,
        }
        if not self.private:
            stated["warning"] = NOT_PRIVATE
        return json.dumps(stated, indent=2, default=str) + "\n"

    def difference(self, stored: str) -> str | None:
        """The first line at which a stored certificate says something else; ``None`` if none does.

        Numbers may differ in the last digits, as they do between machines. A certificate that an
        earlier version wrote does not speak of time.
        """
        text = self.to_json()
        own = (
            text if TIMING_LIMIT in stored else text.replace(f" {TIMING_LIMIT}", "")
        ).splitlines()
        theirs = stored.splitlines()
        for number, (line, other) in enumerate(zip_longest(own, theirs), start=1):
            if line is None or other is None or not _says_the_same(line, other):
                return (
                    f"line {number}: says {_shown(other)}, but the run's ledger says {_shown(line)}"
                )
        return None

    def to_markdown(self) -> str:
        """The certificate as a page of plain language."""
        lines = ["# Privacy certificate", ""]
        if not self.private:
            lines += [f"**{NOT_PRIVATE}**", ""]
        lines += [
            f"**{self.headline}**",
            "",
            f"Relation: {self.relation}. δ = {self.spent.delta:g}. "
            f"Accountant: {self.spent.accountant} (RDP as a cross-check).",
            "",
            "| adjacency | two worlds differ in | events | ε (PLD) | ε (RDP) |",
            "| --- | --- | ---: | ---: | ---: |",
        ]
        for adjacency, meaning in self.meanings.items():
            epsilon = format_epsilon(self.spent.under(adjacency))
            check = format_epsilon(self.spent.rdp[adjacency.value])
            events = self.events[adjacency.value]
            lines.append(f"| `{adjacency.value}` | {meaning} | {events:,} | {epsilon} | {check} |")
        parameters = ", ".join(f"{key} = {value}" for key, value in self.mechanism.items())
        lines += [
            "",
            f"Calibrated to ε = {self.target['epsilon']} at δ = {self.target['delta']}, "
            f"adjacency `{self.target['adjacency']}`.",
            f"Mechanism: {parameters}.",
            f"Randomness: {self.noise}.",
            f"Public sources of queries: {', '.join(self.sources)}, and a generator trained on "
            "the student alone.",
            f"Teacher: `{self.teacher}`. Student: `{self.student or 'not finished'}`.",
            f"Unit of protection: {self.unit}. {self.history}",
            TRUST,
            f"Made with {', '.join(f'{name} {is_at}' for name, is_at in self.software.items())}.",
            "",
            "## What this does not promise",
            "",
            self.limits,
        ]
        return "\n".join(lines) + "\n"

    def save(self, path: Path) -> None:
        """Write the JSON."""
        write_text(path, self.to_json())


def certify(ledger: Ledger, *, student: str) -> Certificate:
    """Compute the certificate of what a ledger records.

    Args:
        ledger: of the run.
        student: hash of the student's file; empty if there is none yet.

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
            ledger=ledger.head,
            sources=list(run["sources"]),
            software=run["software"],
            earlier=run["earlier"],
            members=int(run["members"]),
            is_disjoint=bool(run["disjoint_data"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{ledger.line(1)}: does not say what run this is ({error!r})") from None


def _says_the_same(line: str, other: str) -> bool:
    name, _, value = line.strip().rstrip(",").rpartition(": ")
    other_name, _, other_value = other.strip().rstrip(",").rpartition(": ")
    try:
        return name == other_name and math.isclose(float(value), float(other_value), rel_tol=1e-9)
    except ValueError:
        return line == other


def _shown(line: str | None) -> str:
    return "nothing" if line is None else line.strip().rstrip(",")[:200]

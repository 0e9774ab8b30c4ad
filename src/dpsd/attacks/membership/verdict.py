"""What the attack found, in sentences, tables and the words of its picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dpsd.attacks.membership.one_run import Bound
from dpsd.attacks.membership.rates import AT, FEWEST, Interval, Rates
from dpsd.attacks.membership.roc import NAME
from dpsd.attacks.membership.scores import SCORED, SCORES
from dpsd.attacks.membership.shadows import STUDENTS, TEACHERS, Shadows
from dpsd.privacy.accounting import format_epsilon
from dpsd.runs.findings import Cell, Picture, Table

#: The score that the verdict states.
_HEADLINE = SCORES[0].name
#: What tables call the student that is attacked, whose members are the teacher's training records.
OWN = "this run's student"


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A bound on a record's ε from one run, beside the ε that its certificate states.

    Args:
        bound: what the guesses prove.
        told: what they would prove of a student that was told which records are in.
        claimed: the certificate's ε under ``teacher``.
        delta: the δ of both.
    """

    bound: Bound
    told: Bound
    claimed: float
    delta: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that was measured.

    Args:
        rates: the rates by the kind of model and the name of the score.
        own: what a threshold finds on the run's own student.
        one_run: the audit with one run, for ensembles.
        shadows: the shadows.
        has_canaries: whether the records were mislabelled canaries.
    """

    rates: Mapping[str, Mapping[str, Rates]]
    own: Rates
    one_run: Audited | None
    shadows: Shadows
    has_canaries: bool

    def verdict(self) -> str:
        """Return what was found, on what, and what it cannot show, in paragraphs."""
        about = [self._measured_on()]
        if self.one_run is not None:
            about.append(audited(self.one_run))
        about.append("An attack that finds little proves no privacy: a stronger one may find more.")
        return "\n\n".join(
            " ".join(sentences)
            for sentences in (
                [self._compared(), self._own_student()],
                [self._largest(), *self._caught()],
                about,
            )
        )

    def tables(self) -> tuple[Table, ...]:
        """Return the tables of all scores and of what their rates rest on."""
        found = [
            Table(
                title="How well members are told from others; an AUC of 0.5 and as many true as "
                "false positives are guessing, and more is worse for privacy (95% intervals over "
                "models and records)",
                columns=(
                    *("models", "score", "AUC", "AUC from", "AUC to"),
                    *(
                        f"found at {rate} false positives{end}, %"
                        for rate in AT.values()
                        for end in ("", " from", " to")
                    ),
                ),
                rows=tuple(
                    (kind, name, *_numbers(rates))
                    for kind, of_kind in self._all().items()
                    for name, rates in of_kind.items()
                ),
                note=(
                    f"Models: shadow teachers and their students, and this run's student. {SCORED} "
                    f"A share is not shown (-) if it would rest on fewer than {FEWEST} false "
                    "positives."
                ),
            ),
            Table(
                title="What the rates rest on",
                columns=(
                    *("models", "number of models", "records", "members", "non-members"),
                    *(f"false positives, {rate}, count" for rate in AT.values()),
                ),
                rows=tuple(
                    (
                        *(kind, rates.models, rates.records, rates.members, rates.others),
                        *rates.false_positives.values(),
                    )
                    for kind, of_kind in self._all().items()
                    for rates in [next(iter(of_kind.values()))]
                ),
            ),
        ]
        if self.one_run is not None:
            bound = self.one_run.bound
            found.append(
                Table(
                    title="A record's ε (adjacency teacher, replace-one), bounded from one run; a "
                    "bound above the certificate's ε would refute it",
                    columns=("pairs", "guesses", "right", "ε at least", "certificate's ε", "δ"),
                    rows=(
                        (
                            *(bound.pairs, bound.guesses, bound.right, bound.epsilon),
                            *(self.one_run.claimed, self.one_run.delta),
                        ),
                    ),
                )
            )
        return tuple(found)

    def picture(self) -> Picture:
        """Return the words of the picture of ROC curves."""
        said = " and ".join(
            f"{of_kind[_HEADLINE].auc.value:.3f} on {kind}" for kind, of_kind in self.rates.items()
        )
        return Picture(
            name=NAME,
            caption=f"ROC curves of membership attacks ({self._records()}), logarithmic axes; on "
            "the diagonal, an attacker guesses.",
            finding=f"{_HEADLINE} has an area under the curve of {said}, where 0.5 is guessing.",
        )

    def details(self) -> dict[str, Any]:
        """Return the recipes and factors, in JSON types."""
        shadows = self.shadows
        return {
            "teachers": shadows.teachers.stated(),
            "students": shadows.students.stated(),
            "share_of_records": shadows.teachers.share,
            "share_of_queries": shadows.students.share,
            "one_run": None if self.one_run is None else asdict(self.one_run),
        }

    def _all(self) -> dict[str, Mapping[str, Rates]]:
        return {**self.rates, OWN: {"threshold": self.own}}

    def _records(self) -> str:
        count = f"{len(self.shadows.split.scored):,}"
        return f"{count} mislabelled canaries" if self.has_canaries else f"{count} records"

    def _compared(self) -> str:
        teachers, students = (self.rates[kind][_HEADLINE].auc for kind in (TEACHERS, STUDENTS))
        shadows, share = self.shadows, self.shadows.students.share
        fewer = f", but each with {_share(share)} of its queries" * (share < 1)
        return (
            f"{shadows.count} shadow teachers were transcribed by this run's recipe, with "
            f"{shadows.students.claim}{fewer}. On {self._records()}, {_HEADLINE} tells those that "
            f"a teacher was trained on from others with an AUC of {students} by its student's "
            f"confidence{_beside_guessing(students)}, and of {teachers} by the teacher's own (0.5 "
            "is guessing; 95% intervals)."
        )

    def _own_student(self) -> str:
        """Say what is found of the student that is attacked, and what else may have made it so."""
        auc = self.own.auc
        return (
            "By the confidence of this run's own student, a threshold tells the teacher's "
            f"{self.own.members:,} training records from {self.own.others:,} held-out ones with an "
            f"AUC of {auc}{_beside_guessing(auc)}; unless these were split at random, a difference "
            "between them counts like a leak."
        )

    def _largest(self) -> str:
        """Say what the best of all scores finds, as the stated one may not be the strongest."""
        of_kind = self.rates[STUDENTS]
        name = max(of_kind, key=lambda one: of_kind[one].auc.value)
        return (
            f"Of all {len(of_kind)} scores, the largest AUC by the students is "
            f"{of_kind[name].auc} ({name}; picked afterwards, so partly by luck)."
        )

    def _caught(self) -> Iterator[str]:
        """Yield how many members are found at rates of false positives, as far as it is known.

        All kinds of models have equally many non-members.
        """
        hidden = [rate for rate in AT if not self.rates[STUDENTS][_HEADLINE].shows(rate)]
        for rate in (rate for rate in AT if rate not in hidden):
            for kind, of_kind in self.rates.items():
                rates = of_kind[_HEADLINE]
                yield (
                    f"At {AT[rate]} false positives it finds {rates.caught[rate].percent()} of the "
                    f"members by the {kind}, which rests on {rates.rests_on(rate)}."
                )
        if hidden:
            rates = self.rates[STUDENTS][_HEADLINE]
            yield (
                f"{rates.others:,} non-members cannot show how many members are found at "
                f"{' or '.join(AT[rate] for rate in hidden)} false positives: that would rest on "
                f"{rates.rests_on(hidden[0])}."
            )

    def _measured_on(self) -> str:
        shadows, split = self.shadows, self.shadows.split
        always = (
            f"; the other {len(split.pool) - len(split.scored):,} records are always in"
            if self.has_canaries
            else ""
        )
        return (
            f"Each shadow teacher was trained on a random half of the {self._records()}{always}. "
            f"All of these are {_share(shadows.teachers.share)} of the teacher's training records."
        )


def _beside_guessing(auc: Interval) -> str:
    if auc.low > 0.5:
        return ", which is better than guessing"
    return ", which cannot be told from guessing" if auc.high >= 0.5 else ", worse than guessing"


def audited(found: Audited) -> str:
    """Return what the audit with one run proves, beside what the certificate states."""
    bound = found.bound
    said = (
        f"In one more run, {bound.right:,} of {bound.guesses:,} guesses about {bound.pairs:,} "
        f"pairs of canaries were right, which proves that a record's ε (adjacency teacher, "
        f"replace-one, δ = {found.delta:g}) is at least {bound.epsilon:.2f} with confidence "
        f"{100 * bound.confidence:g}%"
    )
    claimed = format_epsilon(found.claimed)
    if bound.epsilon > found.claimed:
        return f"{said}. THIS REFUTES the certificate's ε of {claimed}."
    return (
        f"{said}; the certificate states {claimed}. Of a student that was told which records are "
        f"in, as many pairs prove {found.told.epsilon:.2f}."
    )


def _numbers(rates: Rates) -> list[Cell]:
    shown = (one if rates.shows(rate) else None for rate, one in rates.caught.items())
    return [
        number
        for one in (rates.auc, *shown)
        for number in ((one.value, one.low, one.high) if one else (None, None, None))
    ]


def _share(share: float) -> str:
    return "all" if share == 1 else f"{100 * share:.2g}%"

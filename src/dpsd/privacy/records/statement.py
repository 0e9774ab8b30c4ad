"""A certificate as a page for people: one ε first, what it is about, and everything else below.

The page has the same parts in text, in Markdown and in HTML, so all three say the same.

>>> in_code("runs of `mnist`")
'`runs of mnist`'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpsd.privacy.accounting import format_epsilon
from dpsd.privacy.targets import Adjacency

if TYPE_CHECKING:
    from dpsd.privacy.records.certificate import Certificate

TITLE = "Privacy certificate"
LIMITS = "What this does not promise"
BASIS = "What the promise rests on"
OPINIONS = "Second opinions"
#: The sentence above the table of every other ε.
ABOUT_OPINIONS = (
    "The same run under every adjacency, by two accountants. Each ε here is about what its line "
    "says; none of them replaces the one at the top."
)


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """One adjacency in the table of second opinions.

    Args:
        adjacency: the adjacency.
        meaning: what two worlds differ in under it.
        events: the number of events in which they can differ.
        epsilon: the ε that is stated, rounded up for display.
        check: the ε by Rényi divergences, rounded up for display.
        counts: whether this is the ε at the top of the page.
    """

    adjacency: Adjacency
    meaning: str
    events: int
    epsilon: str
    check: str
    counts: bool


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A certificate in the words of its page.

    Args:
        certificate: the certificate.
        run: the name of the run's directory; empty if it is not known.
        teacher: the name of the teacher's file, directory or factory; empty if it is not known.
    """

    certificate: Certificate
    run: str = ""
    teacher: str = ""

    @property
    def claim(self) -> str:
        """The ε that counts, with its δ and adjacency."""
        stated, counting = self.certificate, self.certificate.counting
        epsilon = format_epsilon(stated.spent.under(counting))
        return f"ε = {epsilon} at δ = {stated.spent.delta:g}, adjacency `{counting.value}`"

    @property
    def about(self) -> str:
        """What that ε is about, and whether it protects a person, in plain sentences."""
        stated, counting = self.certificate, self.certificate.counting
        worlds = f"two worlds that must look alike differ in {stated.meanings[counting]}"
        if stated.members > 1:
            return f"This ε is about {stated.unit}, {stated.condition}: {worlds}."
        if counting is Adjacency.TEACHER:
            return (
                f"This ε is about the whole teacher: {worlds}. It is no promise to a person in the "
                "training data: for one teacher it is either far too large for that, or the "
                "student cannot have learned much."
            )
        return (
            f"This ε is about one answer: {worlds}. Nothing here protects a person in the training "
            "data."
        )

    @property
    def subjects(self) -> list[tuple[str, str]]:
        """When the run ended, and which run, teacher and student, or federation, it is about."""
        stated = self.certificate
        state = "the run ended" if stated.student else "the run is not finished; latest entry"
        result = ("Student", in_code(stated.student) if stated.student else "not finished")
        if stated.federation is not None:
            state = "latest entry"
            result = ("Federation", in_code(stated.federation))
        teachers = "teacher" if stated.members == 1 else f"{stated.members:,} teachers"
        return [
            ("Date", f"{stated.latest[:10]} ({state} {stated.latest}, begun {stated.started})"),
            ("Run", _named(self.run, stated.run)),
            (teachers.capitalize(), _named(self.teacher, stated.teacher)),
            result,
            *([("Classes, in the owner's words", stated.classes)] if stated.classes else []),
        ]

    @property
    def basis(self) -> list[tuple[str, str]]:
        """What the promise rests on, by name."""
        stated, target = self.certificate, self.certificate.target
        parameters = ", ".join(f"{name} = {value}" for name, value in stated.mechanism.items())
        public, features = ", ".join(stated.sources), stated.features or {}
        if stated.federation is None:
            public += (
                ", and a generator trained on the student alone; priors are the student's own "
                "predictions"
            )
        return [
            ("Unit of protection", f"{stated.unit}; relation: {stated.relation}"),
            (
                "Target",
                f"Calibrated to ε = {target['epsilon']} at δ = {target['delta']}, adjacency "
                f"`{target['adjacency']}`.",
            ),
            ("Mechanism", parameters),
            ("Randomness", stated.noise),
            ("Public data", public),
            *((f"Frozen features, {user}", _backbone(one)) for user, one in features.items()),
            ("Trust", stated.trust),
            *([("If the server is trusted", stated.pooling)] if stated.pooling else []),
            ("History", stated.history),
            ("Accountant", f"{stated.spent.accountant}; RDP as a cross-check"),
            ("Made with", ", ".join(f"{name} {at}" for name, at in stated.software.items())),
            ("Ledger", in_code(stated.ledger)),
        ]

    @property
    def opinions(self) -> list[Opinion]:
        """Every ε: under each adjacency, and by the second accountant."""
        stated = self.certificate
        return [
            Opinion(
                adjacency=adjacency,
                meaning=meaning,
                events=stated.events[adjacency.value],
                epsilon=format_epsilon(stated.spent.under(adjacency)),
                check=format_epsilon(stated.spent.rdp[adjacency.value]),
                counts=adjacency is stated.counting,
            )
            for adjacency, meaning in stated.meanings.items()
        ]

    def to_markdown(self) -> str:
        """Return the page in Markdown."""
        stated = self.certificate
        lines = [f"# {TITLE}", ""]
        if stated.warning:
            lines += [f"**{stated.warning}**", ""]
        lines += [f"**{self.claim}**", "", self.about, ""]
        lines += [f"- {name}: {text}" for name, text in self.subjects]
        lines += ["", f"## {LIMITS}", "", stated.limits, "", f"## {BASIS}", ""]
        lines += [f"- {name}: {text}" for name, text in self.basis]
        lines += ["", f"## {OPINIONS}", "", ABOUT_OPINIONS, ""]
        lines += [
            "| adjacency | two worlds differ in | events | ε (PLD) | ε (RDP) |",
            "| --- | --- | ---: | ---: | ---: |",
        ]
        lines += [
            f"| `{one.adjacency.value}` | {one.meaning} | {one.events:,} | {one.epsilon} | "
            f"{one.check} |"
            for one in self.opinions
        ]
        return "\n".join(lines) + "\n"


def in_code(name: str) -> str:
    """Return a name between backticks, which mark it as code and may not be part of it."""
    return f"`{name.replace('`', '')}`"


def _backbone(stated: Mapping[str, str]) -> str:
    """Describe a backbone: what it is called, its hash, and what it was trained on."""
    return f"{_named(stated['name'], stated['hash'])}, trained on: {stated['trained_on']}"


def _named(name: str, identity: str) -> str:
    return f"{in_code(name)}, {in_code(identity)}" if name else in_code(identity)

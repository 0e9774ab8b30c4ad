"""What a report says of all its runs together: their comparison, limits and settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpsd.config.transcription import TranscriptionConfig
from dpsd.privacy.accounting import format_epsilon
from dpsd.privacy.targets import Adjacency
from dpsd.reporting.agreement import WITHOUT_PROBE, shown
from dpsd.reporting.evaluations import where, with_interval
from dpsd.reporting.memory import MEMORY, peak
from dpsd.reporting.sections import Rows, Subject
from dpsd.synthesis.names import last_part, published_name

#: Settings that say where the owner keeps something, of which the last part of the name is shown.
_PLACES = {
    *("teacher", "teacher_weights", "public", "features", "probe", "budget_file", "ca_bundle"),
}


def comparison(subjects: Sequence[Subject]) -> tuple[list[str], Rows]:
    """Return the headings and the rows of a table with a column for each run."""
    places = list(dict.fromkeys(where(one) for each in subjects for one in each.evaluations))
    kinds = list(dict.fromkeys(one.kind for each in subjects for one in each.findings))
    names = [
        *("what was bought", *(f"ε under {kind.value}" for kind in Adjacency)),
        *("rounds", "queries", "agreement on the last queries", "on the probe"),
        "always the most frequent class, on the probe",
        *(f"student's accuracy, {place}" for place in places),
        *(f"attack: {kind}" for kind in kinds),
        *("seconds", MEMORY),
    ]
    columns = [_compared(one, places, kinds) for one in subjects]
    return ["fact", *(one.name for one in subjects)], list(zip(names, *columns, strict=True))


def _compared(one: Subject, places: Sequence[str], kinds: Sequence[str]) -> tuple[str, ...]:
    measured = {where(found): found for found in one.evaluations}
    valid = {found.kind: found.validity for found in one.findings}
    last = one.metrics[-1] if one.metrics else {}
    probe = last.get("final_probe", last.get("probe", {}))
    return (
        one.statement.claim.replace("`", ""),
        *(format_epsilon(one.certificate.spent.under(kind)) for kind in Adjacency),
        *(str(len(one.metrics)), f"{sum(line['queries'] for line in one.metrics):,}"),
        *(shown(last.get("agreement")), shown(probe.get("agreement"))),
        shown(probe.get("constant")),
        *(
            with_interval(measured[place]["student_accuracy"], measured[place]["images"])
            if place in measured
            else "-"
            for place in places
        ),
        *(valid.get(kind, "-") for kind in kinds),
        *(f"{one.seconds:,}", peak(one.metrics)),
    )


def compared(subjects: Sequence[Subject]) -> list[str]:
    """Return what runs have and have not in common, in sentences."""
    bought = [f"{one.name} bought {one.statement.claim}" for one in subjects]
    found = [f"{'; '.join(bought)}."]
    if len({one.certificate.counting for one in subjects}) > 1:
        found[0] += " An ε under one adjacency is not to be compared with one under another."
    for place in dict.fromkeys(where(one) for each in subjects for one in each.evaluations):
        shares = {
            each.name: one for each in subjects for one in each.evaluations if where(one) == place
        }
        if len(shares) < 2:
            continue
        said = (
            f"{with_interval(one['student_accuracy'], one['images'])} for {name}"
            for name, one in shares.items()
        )
        found.append(
            f"On {place}, the student's accuracy is {', '.join(said)} (with 95% intervals). All "
            "were measured on data of the same name and size. If the images are the same, "
            "overlapping intervals do not rule a difference out."
        )
    return found


def about_rounds(subjects: Sequence[Subject]) -> list[str]:
    """Return what the agreements of the rounds are about, in sentences, each of them once."""
    sentences = dict.fromkeys(text for subject in subjects for text in subject.about_rounds)
    # Its verdict says it of a run of which nothing is known, beside others of which something is.
    if any(subject.is_measured for subject in subjects):
        sentences.pop(f"{WITHOUT_PROBE}.", None)
    return list(sentences)


def limits(subjects: Sequence[Subject]) -> dict[str, list[str]]:
    """Return what certificates do not promise, with the names of the runs that this is about."""
    found = dict[str, list[str]]()
    for subject in subjects:
        found.setdefault(subject.certificate.limits, []).append(subject.name)
    return found


def settings(subjects: Sequence[Subject]) -> tuple[Rows, Rows]:
    """Return the settings of the runs: those unlike their defaults in some run, and the others.

    Each row has the name of the setting and its value in every run.
    """
    chosen, others = Rows(), Rows()
    configs = [subject.run.config().flat(mode="json") for subject in subjects]
    for name, field in TranscriptionConfig.fields().items():
        values = [config.get(name) for config in configs]
        default = field.get_default()
        default = (
            list(default) if isinstance(default, tuple) else getattr(default, "value", default)
        )
        row = (name, *(_value(name, value) for value in values))
        (others if all(value == default for value in values) else chosen).append(row)
    return chosen, others


def _value(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(published_name(str(one)) for one in value)
    if name in _PLACES:
        return last_part(str(value))
    return str(value)

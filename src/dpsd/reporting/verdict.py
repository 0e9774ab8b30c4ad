"""The verdict on a run in plain words: what was bought, what was not, and what was learned.

>>> attacked(())
[]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpsd.privacy.accounting import format_epsilon
from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.records.statement import Statement
from dpsd.privacy.targets import Adjacency
from dpsd.reporting.agreement import WITHOUT_PROBE, final_probe, shown
from dpsd.reporting.evaluations import chosen_on, where, with_interval
from dpsd.runs.directory import RunDirectory
from dpsd.runs.findings import Findings

#: A heading with full sentences, in which code is between backticks.
Point = tuple[str, str]


def verdict(
    run: RunDirectory,
    certificate: Certificate,
    *,
    evaluations: Sequence[Mapping[str, Any]] = (),
    findings: Sequence[Findings] = (),
) -> list[Point]:
    """Return the verdict on a run.

    Args:
        run: the run.
        certificate: its certificate.
        evaluations: what ``dpsd evaluate --json`` wrote about its student.
        findings: what attacks on it found.
    """
    statement = Statement(certificate=certificate)
    return [
        ("What was bought", f"{statement.claim}. {statement.about}"),
        (
            "What was not bought",
            _not_bought(certificate, is_private=bool(evaluations or findings)),
        ),
        (
            "What the student learned",
            _learned(run, is_measured=is_measured(evaluations, findings)),
        ),
        *measured(evaluations),
        *attacked(findings),
    ]


def measured(evaluations: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Return a point for each evaluation: how accurate student and teacher are, and on what."""
    return [
        ("How accurate it is", f"On {where(found)}, {_accuracies(found)}. {chosen_on(found)}")
        for found in evaluations
    ]


def attacked(findings: Sequence[Findings]) -> list[Point]:
    """Return a point for each attack: what it found in short, or that it is invalid."""
    return [(f"What {found.kind} found", found.sentence()) for found in findings]


def is_measured(
    evaluations: Sequence[Mapping[str, Any]], findings: Sequence[Findings] = ()
) -> bool:
    """Whether something says how the student does on real images.

    So do evaluations, and a valid search for copies, which classifies held-out records.
    """
    return bool(evaluations) or any(one.kind == "copies" and one.is_valid for one in findings)


def _not_bought(certificate: Certificate, *, is_private: bool) -> str:
    others = [
        f"ε = {format_epsilon(certificate.spent.under(kind))} under `{kind.value}`, for "
        f"{certificate.meanings[kind]}"
        for kind in Adjacency
        if kind is not certificate.counting
    ]
    text = (
        f"The same run spent {'; and '.join(others)}. These are promises about other pairs of "
        "worlds, and a large ε promises nothing."
    )
    if is_private:
        text += (
            " No ε covers accuracies, confusions and attacks that are measured on private data, "
            "which are on this page too."
        )
    return text


def _learned(run: RunDirectory, *, is_measured: bool) -> str:
    if (probe := final_probe(run)) is not None:
        return str(probe["sentence"])
    known = [line for line in run.metrics() if line["agreement"]]
    if known:
        last = known[-1]
        text = (
            f"On the {last['queries']:,} synthetic queries of round {last['round']}, before it "
            "learned from them, the student's agreement with the teacher was "
            f"{shown(last['agreement'])} (± one standard error, estimated from privatised answers)."
        )
    else:
        text = "The releases do not tell how often the student agrees with the teacher."
    return text if is_measured else f"{text} {WITHOUT_PROBE}."


def _accuracies(found: Mapping[str, Any]) -> str:
    images = found["images"]
    text = f"the student is right for {with_interval(found['student_accuracy'], images)}"
    if found.get("teacher_accuracy") is not None:
        text += f", and the teacher for {with_interval(found['teacher_accuracy'], images)}"
    if found.get("agreement") is not None:
        text += f"; both say the same for {with_interval(found['agreement'], images)}"
    return f"{text} (with 95% intervals)"

"""Shows what a run spent: every ε with its adjacency, and what one teacher cannot promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpsd.cli.console import grid, say, show, warn

if TYPE_CHECKING:
    from dpsd.privacy.records.certificate import Certificate

ONE_TEACHER = (
    "One teacher was asked: ε under `response` and `round` bounds what is learned about one of its "
    "answers, not about a person in its training data. Only `teacher` covers a person."
)


def show_privacy(certificate: Certificate) -> None:
    """Show ε under all three adjacencies, with their meanings and limits."""
    from dpsd.privacy.accounting import format_epsilon

    table = grid("adjacency", "two worlds differ in", "events", "ε", right=("events", "ε"))
    for adjacency, meaning in certificate.meanings.items():
        epsilon = format_epsilon(certificate.spent.under(adjacency))
        table.add_row(adjacency.value, meaning, f"{certificate.events[adjacency.value]:,}", epsilon)
    say(f"Privacy spent, at δ = {certificate.spent.delta:g} ({certificate.relation}):")
    show(table)
    say(ONE_TEACHER if certificate.members == 1 else certificate.headline)
    if certificate.pooling:
        say(certificate.pooling)
    _warn_of_excess(certificate)


def show_certificate(certificate: Certificate, *, run: str, teacher: str) -> None:
    """Show a certificate as a page of text: the ε that counts first, and all others last."""
    from dpsd.privacy.records.statement import (
        ABOUT_OPINIONS,
        BASIS,
        LIMITS,
        OPINIONS,
        TITLE,
        Statement,
    )

    statement = Statement(certificate=certificate, run=run, teacher=teacher)
    say(TITLE)
    if certificate.warning:
        say(f"\n{certificate.warning}", style="bold")
    say(f"\n{statement.claim}", style="bold")
    say(statement.about)
    say()
    _show_facts(statement.subjects)
    say(f"\n{LIMITS}", style="bold")
    say(certificate.limits)
    say(f"\n{BASIS}", style="bold")
    _show_facts(statement.basis)
    say(f"\n{OPINIONS}", style="bold")
    say(ABOUT_OPINIONS, style="dim")
    numbers = ("events", "ε (PLD)", "ε (RDP)")
    table = grid("adjacency", "two worlds differ in", *numbers, right=numbers)
    for one in statement.opinions:
        row = (one.adjacency.value, one.meaning, f"{one.events:,}", one.epsilon, one.check)
        table.add_row(*row, style=None if one.counts else "dim")
    show(table)
    _warn_of_excess(certificate)


def _show_facts(facts: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts) + 2
    for name, text in facts:
        say(f"{name:<{width}}{text}")


def _warn_of_excess(certificate: Certificate) -> None:
    """Warn if a run spent more than its target, or if its noise can be reproduced."""
    from dpsd.privacy.accounting import format_epsilon
    from dpsd.privacy.targets import Adjacency, Budget

    target = Adjacency(str(certificate.target["adjacency"]))
    wanted = float(str(certificate.target["epsilon"]))
    if Budget(epsilon=wanted).is_exceeded_by(certificate.spent.under(target)):
        warn(
            f"ε under `{target.value}` is {format_epsilon(certificate.spent.under(target))}, above "
            f"the target {wanted:g}: a round that was interrupted while the teacher answered was "
            "asked again, and both times count"
        )
    if certificate.warning:
        warn(certificate.warning)

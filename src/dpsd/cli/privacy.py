"""Shows what a run spent: every ε with its adjacency, and what one teacher cannot promise."""

from __future__ import annotations

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
    from dpsd.privacy.records.certificate import NOT_PRIVATE
    from dpsd.privacy.targets import Adjacency, Budget

    table = grid("adjacency", "two worlds differ in", "events", "ε", right=("events", "ε"))
    for adjacency, meaning in certificate.meanings.items():
        epsilon = format_epsilon(certificate.spent.under(adjacency))
        table.add_row(adjacency.value, meaning, f"{certificate.events[adjacency.value]:,}", epsilon)
    say(f"Privacy spent, at δ = {certificate.spent.delta:g} ({certificate.relation}):")
    show(table)
    say(ONE_TEACHER if certificate.members == 1 else certificate.headline)
    target = Adjacency(str(certificate.target["adjacency"]))
    wanted = float(str(certificate.target["epsilon"]))
    if Budget(epsilon=wanted).is_exceeded_by(certificate.spent.under(target)):
        warn(
            f"ε under `{target.value}` is {format_epsilon(certificate.spent.under(target))}, above "
            f"the target {wanted:g}: a round that was interrupted while the teacher answered was "
            "asked again, and both times count"
        )
    if not certificate.private:
        warn(NOT_PRIVATE)

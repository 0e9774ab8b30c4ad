"""``dpsd audit``: tests the privacy claim of every mechanism on this machine."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dpsd.cli.console import STATUS, grid, say, say_json, show
from dpsd.errors import DpsdError
from dpsd.storage.stated import as_json

if TYPE_CHECKING:
    from dpsd.attacks.audit import Audit
    from dpsd.attacks.games import Game
    from dpsd.attacks.tails import TailGame

#: The smallest share of a claim that its lower bound must reach to support the claim.
_TELLING = 0.3


def audit(
    draws: Annotated[
        int, typer.Option(min=1_000, help="Games per mechanism in each of the two worlds.")
    ] = 1_000_000,
    epsilon: Annotated[
        float, typer.Option(help="The ε that mechanisms claim, under each adjacency.")
    ] = 1.0,
    delta: Annotated[float, typer.Option(help="The δ at which they claim it.")] = 1e-5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test the privacy claim of every mechanism on this machine, against a worst-case attacker.

    Two worlds differ in what the adjacency says. The mechanism answers many times in both, and an
    attacker who knows the worst case guesses which world it was. The attacker's success proves a
    lower bound on ε, with confidence 1 - 1e-6. A bound above the claimed ε proves the claim false,
    and the command fails.

    Example: dpsd audit --json > audit.json

    The flags to know first are --json and --draws: the more games, the tighter the bounds. The
    default takes about two minutes.

    Two kinds of row are special. "null" is a mechanism that ignores the teacher: its ε is 0, and a
    bound above 0 would prove the auditor wrong. "tail" counts releases that are possible in one
    world and impossible in the other, at an answer that costs so much, whatever --epsilon, that
    noise may run out; no ε allows for more of these than δ, so the bound is 0 or ∞.
    """
    from rich.progress import Progress

    from dpsd.attacks.audit import audit as play
    from dpsd.attacks.games import standard_games
    from dpsd.attacks.tails import tail_games

    games: list[Game | TailGame] = [*standard_games(epsilon=epsilon, delta=delta)]
    games += tail_games(delta=delta)
    found = []
    with Progress(console=STATUS, transient=True) as progress:
        task = progress.add_task("auditing", total=len(games))
        for game in games:
            found.append(play(game, draws=draws))
            progress.advance(task)
    if as_json:
        say_json([_stated(one) for one in found])
    else:
        _show(found)
        say(
            f"\n{draws:,} games in each world, δ = {delta:g}, replace-one. A bound well below a "
            "claim does not make the claim false: either the bound is not tight, or there were too "
            "few games to tell (a million are enough)."
        )
    if false := [one for one in found if not one.holds]:
        raise DpsdError(
            f"{len(false)} of {len(found)} claims are false; the first is the claim of "
            f"{false[0].mechanism} under {false[0].adjacency.value!r}: do not use this version"
        )


def _stated(one: Audit) -> dict[str, object]:
    """An audit in JSON types, which have no infinity."""
    return {**as_json(asdict(one)), "holds": one.holds}


def _show(found: list[Audit]) -> None:
    numbers = ("claimed ε", "lower bound", "share")
    table = grid("mechanism", "adjacency", *numbers, "claim", right=numbers)
    for one in found:
        table.add_row(
            one.mechanism,
            one.adjacency.value,
            f"{one.claimed:.3f}",
            f"{one.lower_bound:.3f}" if math.isfinite(one.lower_bound) else "∞",
            f"{one.lower_bound / one.claimed:.0%}" if one.measures_claim else "",
            _verdict(one),
        )
    show(table)


def _verdict(one: Audit) -> str:
    if not one.holds:
        return "FALSE"
    is_telling = not one.measures_claim or one.lower_bound >= _TELLING * one.claimed
    return "holds" if is_telling else "too few games to tell"

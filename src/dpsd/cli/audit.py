"""``dpsd audit``: every mechanism's claim, tested on this machine."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dpsd.cli.console import STATUS, grid, say, show
from dpsd.errors import DpsdError

if TYPE_CHECKING:
    from dpsd.attacks.audit import Audit
    from dpsd.attacks.games import Game
    from dpsd.attacks.tails import TailGame

#: The least share of a claim that its lower bound must reach to say anything for it.
_TELLING = 0.3


def audit(
    draws: Annotated[
        int, typer.Option(min=1_000, help="Games played in each of two worlds, a mechanism.")
    ] = 1_000_000,
    epsilon: Annotated[float, typer.Option(help="ε that is claimed, under each adjacency.")] = 1.0,
    delta: Annotated[float, typer.Option(help="δ that it is claimed at.")] = 1e-5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test every mechanism's privacy claim on this machine, with an attacker who knows the worst.

    Two worlds differ in what the adjacency says. The mechanism answers in both, many times, and an
    attacker guesses which world it was; its success proves a lower bound on ε, with confidence
    1 - 1e-6. A bound above the claim would prove the claim false, and fails. Takes about two
    minutes.

    Two kinds of row stand apart. "null" is a mechanism that does not hear the teacher: its ε is 0,
    and a bound above that would prove the auditor wrong. "tail" counts what one world releases and
    the other never could, where one answer costs so much, whatever --epsilon, that noise may run
    out; no ε allows for more of that than δ, so the bound is 0 or ∞.
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
        say(json.dumps([_stated(one) for one in found], indent=2))
    else:
        _show(found)
        say(
            f"\n{draws:,} games in each world, δ = {delta:g}, replace-one. A bound well below its "
            "claim does not make it false: it is not tight, or the games were too few to tell (a "
            "million tell)."
        )
    if false := [one for one in found if not one.holds]:
        raise DpsdError(
            f"{len(false)} of {len(found)} claims are false, the first of them that of "
            f"{false[0].mechanism} under {false[0].adjacency.value!r}: do not use this version"
        )


def _stated(one: Audit) -> dict[str, object]:
    """An audit as JSON types, which know no infinity."""
    bound = one.lower_bound if math.isfinite(one.lower_bound) else "infinity"
    return {**asdict(one), "lower_bound": bound, "holds": one.holds}


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

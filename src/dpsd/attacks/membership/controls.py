"""Controls: students that were told who is a member, and a membership that nobody was told of.

If a score misses the first or finds something in the second, the whole attack is invalid. So it is
if the audit with one run does not refute a claim for a student that was told which canaries are in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from dpsd.attacks.membership.one_run import Bound, all_right
from dpsd.attacks.membership.rates import Rates, measured
from dpsd.attacks.membership.scores import SCORES, Flags, Numbers, left_out
from dpsd.runs.findings import Control

#: The share of told members that every score must find at 1% false positives.
_TOLD_FOUND = 0.5
#: Where nothing was told, the area may lie so many standard errors from a half, and so many members
#: may be found at 1% false positives.
_NULL_ERRORS, _NULL_FOUND = 4.0, 0.06
#: What is claimed for a student that was told which canaries are in, as a part of the ε that right
#: guesses alone would prove. The rest is room for some wrong guesses.
_TOLD_CLAIM = 1 / 3


def scored(confidences: Numbers, is_in: Flags) -> dict[str, Numbers]:
    """Return every score of every model and record, ``(M, N)``, by the score's name.

    Args:
        confidences: the confidences of M models in N records, ``(M, N)``.
        is_in: which records each model was trained on, ``(M, N)``.
    """
    return {score.name: left_out(confidences, is_in, score) for score in SCORES}


def rates_of(scores: Mapping[str, Numbers], is_in: Flags, *, draws: int) -> dict[str, Rates]:
    """Return the rates that each score achieves, by the score's name."""
    return {name: measured(found, is_in, draws=draws) for name, found in scores.items()}


def told_controls(told: Numbers, is_in: Flags, *, draws: int) -> Iterator[Control]:
    """Yield a control for each score, which must find that students were told of members.

    Args:
        told: the confidences of the told students, ``(M, N)``.
        is_in: which records each was told of, ``(M, N)``.
        draws: the number of bootstrap samples.
    """
    for name, found in rates_of(scored(told, is_in), is_in, draws=draws).items():
        caught = found.caught[0.01]
        yield Control(
            name=f"told students, {name}",
            found=caught.value >= _TOLD_FOUND,
            sentence=(
                f"{name} found {caught.percent()} of the members of whom students were told, at 1% "
                "false positives; it must find half."
            ),
        )


def null_control(confidences: Numbers, is_in: Flags, *, draws: int, seed: int) -> Control:
    """Return the control in which membership is drawn anew, so that nothing can be found.

    Args:
        confidences: the confidences of the students, ``(M, N)``.
        is_in: which records each teacher was trained on, ``(M, N)``.
        draws: the number of bootstrap samples.
        seed: the seed of the new membership.
    """
    flips = np.random.default_rng(seed).random((len(is_in) // 2, is_in.shape[1])) < 0.5
    shuffled = is_in ^ flips.repeat(2, axis=0)
    rates = rates_of(scored(confidences, shuffled), shuffled, draws=draws)
    is_null = all(
        abs(found.auc.value - 0.5) <= _NULL_ERRORS * found.deviation
        and found.caught[0.01].value <= _NULL_FOUND
        for found in rates.values()
    )
    said = "; ".join(
        f"{found.auc.value:.3f} and {100 * found.caught[0.01].value:.1f}% with {name}"
        for name, found in rates.items()
    )
    return Control(
        name="shuffled membership",
        found=is_null,
        sentence=(
            "Membership was drawn anew, independently of the students, so that no score may find "
            f"it; the AUC and the share of members found at 1% false positives were {said}."
        ),
    )


def told_bound_control(bound: Bound, *, delta: float) -> Control:
    """Return the control in which a student was told which record of each pair is in.

    No ε holds for it, so the audit must refute one that is well below what so many pairs can.

    Args:
        bound: what the audit proves of the told student.
        delta: the δ of the bound.
    """
    claim = _TOLD_CLAIM * all_right(bound.pairs, delta=delta)
    return Control(
        name="told student, one run",
        found=bound.epsilon > claim,
        sentence=(
            f"A student was told which record of each of {bound.pairs:,} pairs of canaries is in, "
            f"and a record's ε (adjacency teacher, replace-one, δ = {delta:g}) was claimed to be "
            f"{claim:.2f}, a third of what right guesses alone would prove; {bound.right:,} of "
            f"{bound.guesses:,} guesses were right, which proves at least {bound.epsilon:.2f} and "
            "must refute the claim."
        ),
    )

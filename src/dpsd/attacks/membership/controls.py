"""Controls: students that were told who is a member, and a membership that nobody was told of.

If a score misses the first or finds something in the second, the whole attack is invalid. So it is
if the audit with one run does not refute a claim for a student that was told which canaries are in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from dpsd.attacks.membership.one_run import Bound, all_right
from dpsd.attacks.membership.rates import Rates, measured
from dpsd.attacks.membership.scores import SCORES, Flags, Numbers, left_out
from dpsd.attacks.membership.shuffled import drawn_anew
from dpsd.runs.findings import Control, p_in_words

#: The share of told members that every score must find at 1% false positives.
_TOLD_FOUND = 0.5
#: The probability that chance alone fails the control in which there is nothing to find, by any of
#: the scores.
NULL_MISTAKE = 1e-4
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


def null_control(confidences: Numbers, is_in: Flags, *, seed: int) -> Control:
    """Return the control in which membership is drawn anew, so that nothing can be found.

    It fails only if what a score finds is too much for chance: a score that works fails it with a
    probability of :data:`NULL_MISTAKE` at most, however few records there are.

    Args:
        confidences: the confidences of the students, ``(M, N)``.
        is_in: which records each teacher was trained on, ``(M, N)``, whose shape alone is used.
        seed: the seed of the new membership.
    """
    models, records = is_in.shape
    found = {
        score.name: drawn_anew(
            partial(left_out, confidences, score=score), models=models, records=records, seed=seed
        )
        for score in SCORES
    }
    said = "; ".join(
        f"{name}, {one.higher:,} of {one.coins:,} and {one.found:,} of {one.members:,}, p "
        + p_in_words(one.p, least=1e-9)
        for name, one in found.items()
    )
    limit = NULL_MISTAKE / len(found)
    return Control(
        name="shuffled membership",
        found=min(one.p for one in found.values()) >= limit,
        sentence=(
            "Membership was drawn anew, independently of the students, so that no score may find "
            "it. How often, of two models of which one has a record, that one scored higher, and "
            f"how many members were found at 1% false positives: {said}. Below p = {limit:.2g}, "
            "chance does not explain it; so a score that works fails this control in one of "
            f"{1 / NULL_MISTAKE:,.0f} attacks at most."
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

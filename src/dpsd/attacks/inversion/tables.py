"""The tables and sentences of inversion's findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpsd.attacks.inversion.controls import percent
from dpsd.attacks.inversion.evaluators import Evaluator
from dpsd.attacks.inversion.judging import JUDGED, SPACES, Judgement
from dpsd.attacks.inversion.measures import Share
from dpsd.runs.findings import Cell, Table

Judgements = Mapping[tuple[str, str], Judgement]
"""Judgements by the names of the target and of the attack."""

#: The names of what is judged beside reconstructions.
FLOOR, CEILING = "the prior, unguided", "held-out records"


def tables(
    judged: Judgements, floor: Judgement, ceiling: Judgement, evaluators: Sequence[Evaluator]
) -> tuple[Table, ...]:
    """Return the tables of findings.

    Args:
        judged: the judgements of reconstructions.
        floor: that of unguided images of the prior.
        ceiling: that of real held-out records.
        evaluators: all evaluators, also those that are refused.
    """
    named = {f"{target}, {attack}": one for (target, attack), one in judged.items()}
    everything = {**named, FLOOR: floor, CEILING: ceiling}
    judging = [one.name for one in evaluators if not one.refused]
    return (
        Table(
            title=(
                "Reconstructions that show the intended class to evaluators, of all restarts and "
                "of those that the target picked. Higher is worse for privacy; a class is no record"
            ),
            columns=(
                *("images of", "reconstructions", "not begun"),
                *(f"{name} %" for name in judging),
                *("most %", "from %", "to %", "picked", "of picked, most %"),
                "chance of such a success",
            ),
            rows=tuple(
                (
                    *(name, one.success.count, one.not_begun),
                    *(one.by_evaluator[evaluator] for evaluator in judging),
                    *(one.success.share, one.success.low, one.success.high),
                    *((one.picked.count, one.picked.share) if one.picked else (None, None)),
                    one.chance,
                )
                for name, one in everything.items()
            ),
        ),
        Table(
            title=(
                "Reconstructions that are nearer to a training record than to one of equally many "
                "held-out records of their class. 50 % is no leak if records were split at random, "
                "and no more than the unguided prior if they were not; higher is worse for "
                f"privacy. The verdict rests on {JUDGED}, in which the control shows a leak. "
                "Intervals count reconstructions with the same nearest record once, and hold for "
                "all rows together with 95 % confidence"
            ),
            columns=(
                *("images of", "distance in", "nearer to training %", "from %", "to %"),
                *("reconstructions", "independent ones"),
            ),
            rows=tuple(
                (name, space, *_nearer(one.nearer[space]))
                for name, one in everything.items()
                if one.nearer is not None
                for space in SPACES
            ),
        ),
        Table(
            title=(
                "Distributions compared with held-out records, in the features of the best "
                "evaluator. A smaller distance and a higher precision and recall are worse for "
                "privacy"
            ),
            columns=("images of", "Fréchet distance", "precision %", "recall %"),
            rows=tuple(
                (name, one.frechet, one.precision, one.recall) for name, one in everything.items()
            ),
        ),
        Table(
            title="Evaluators, trained on training records and measured on held-out ones",
            columns=("evaluator", "balanced accuracy %", "weights", "judges"),
            rows=tuple(
                (one.name, one.accuracy, one.content, one.refused or "yes") for one in evaluators
            ),
        ),
    )


def _nearer(share: Share) -> tuple[Cell, ...]:
    return (share.share, share.low, share.high, share.count, round(share.effective, 1))


def verdict(
    judged: Judgements,
    floor: Judgement,
    ceiling: Judgement,
    *,
    prior: str,
    evaluators: int,
    compared: int,
) -> str:
    """Return what was found, in sentences.

    Args:
        judged: the judgements of reconstructions.
        floor: that of unguided images of the prior.
        ceiling: that of real held-out records.
        prior: what the prior was trained on.
        evaluators: the number of evaluators that judge.
        compared: the number of training records that reconstructions are compared with.
    """
    sentences = [
        f"The attacker's prior knows {prior}. Most of {evaluators} evaluators see the intended "
        f"class in {percent(floor.success.share)} of unguided images of the prior and in "
        f"{percent(ceiling.success.share)} of real held-out records."
    ]
    for target in dict.fromkeys(target for target, _ in judged):
        attack, best = max(
            ((name, one) for (of, name), one in judged.items() if of == target),
            key=lambda pair: pair[1].success.share,
        )
        sentences.append(
            f"Of the {target}, {attack} succeeds most (picked afterwards, so partly by luck), with "
            f"{percent(best.success.share)} of {best.success.count:,} reconstructions "
            f"(95 % interval {_interval(best.success)})."
        )
        sentences += _nearness(target, judged, floor)
    sentences.append(
        "Nearness was compared with "
        f"{compared:,} training and as many held-out records. Reconstructing what a class looks "
        "like is not leakage of a record: only nearness to training records would be."
    )
    return " ".join(sentences)


def leaking(judged: Judgements, floor: Judgement, target: str | None = None) -> list[str]:
    """Return the attacks whose reconstructions, of one target or any, are nearer to training.

    They are nearer than chance allows, and nearer than unguided images of the prior: where training
    and held-out records come from different people, any image may be nearer to one of them.
    """
    usual = floor.nearer[JUDGED].share if floor.nearer else 0.5
    return [
        attack
        for (of, attack), one in judged.items()
        if one.nearer and one.nearer[JUDGED].low > max(0.5, usual) and target in (None, of)
    ]


def _nearness(target: str, judged: Judgements, floor: Judgement) -> list[str]:
    nearest = leaking(judged, floor, target)
    if not nearest:
        return [
            "No attack on it made reconstructions that are nearer to training records than to "
            "held-out ones more often than chance, or the unguided prior, allows."
        ]
    found = []
    for attack in nearest:
        share = (judged[target, attack].nearer or {})[JUDGED]
        found.append(
            f"Its {attack} reconstructions are nearer to a training record than to a held-out one "
            f"in {percent(share.share)} of cases in {JUDGED} (interval {_interval(share)}, which "
            "holds with 95 % confidence for all attacks together; 50 % is no leak)."
        )
    return found


def _interval(share: Share) -> str:
    return f"{percent(share.low)} to {percent(share.high)}"

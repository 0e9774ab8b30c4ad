"""The tables and sentences of inversion's findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpsd.attacks.inversion.controls import percent
from dpsd.attacks.inversion.evaluators import Evaluator
from dpsd.attacks.inversion.judging import JUDGED, SPACES, Judgement
from dpsd.attacks.inversion.measures import LEAST_CHANCE, Share
from dpsd.attacks.names import STUDENT, TEACHER
from dpsd.runs.findings import AGAINST, NOT_TOLD, Cell, Table, against_chance

Judgements = Mapping[tuple[str, str], Judgement]
"""Judgements by the names of the target and of the attack."""

#: The names of what is judged beside reconstructions.
FLOOR, CEILING = "the prior, unguided", "held-out records"


def tables(
    judged: Judgements,
    floor: Judgement,
    ceiling: Judgement,
    evaluators: Sequence[Evaluator],
    *,
    prior: str,
) -> tuple[Table, ...]:
    """Return the tables of findings.

    Args:
        judged: the judgements of reconstructions.
        floor: that of unguided images of the prior.
        ceiling: that of real held-out records.
        evaluators: all evaluators, also those that are refused.
        prior: what the prior was trained on.
    """
    named = {f"{target}, {attack}": one for (target, attack), one in judged.items()}
    everything = {**named, FLOOR: floor, CEILING: ceiling}
    are_stuck = any(one.not_begun for one in everything.values())
    judging = [one.name for one in evaluators if not one.refused]
    return (
        Table(
            title=(
                "Reconstructions that show the intended class. Higher is worse for privacy; a "
                "class is no record"
            ),
            columns=(
                *("images of", "number", "success %", "from %", "to %", "number picked"),
                *("success of picked %", "p", *(f"{name} %" for name in judging)),
                *(("number not begun",) if are_stuck else ()),
            ),
            rows=tuple(
                (
                    *(name, one.success.count),
                    *(one.success.share, one.success.low, one.success.high),
                    *((one.picked.count, one.picked.share) if one.picked else (None, None)),
                    _at_least(one.chance),
                    *(one.by_evaluator[evaluator] for evaluator in judging),
                    *((one.not_begun,) if are_stuck else ()),
                )
                for name, one in everything.items()
            ),
            note=(
                "Success: most evaluators see the class that was meant, with its 95% interval; the "
                f"columns of {', '.join(judging)} say how often each evaluator does. Picked: those "
                "that the attacked model is surest of among several restarts. p: how often classes "
                f"given out at random would succeed as often; {LEAST_CHANCE:.4f} is the least that "
                f"is told. The attacker's prior knows {prior}."
                + " Not begun: a model that never says a class gives an attack by its labels "
                "nothing to begin with." * are_stuck
            ),
        ),
        Table(
            title=(
                "Reconstructions that are nearer to a training record than to one of equally many "
                "held-out records of their class. Higher is worse for privacy; 50% is no leak"
            ),
            columns=(
                *("images of", "distance in", "nearer to training %", "from %", "to %"),
                *("independent images", AGAINST),
            ),
            rows=tuple(
                (name, space, *_nearer(one.nearer[space]))
                for name, one in everything.items()
                if one.nearer is not None
                for space in SPACES
            ),
            note=(
                "If training and held-out records were not split at random, no leak is no more "
                f"than the unguided prior has. The verdict rests on {JUDGED}, in which the control "
                "shows a leak. Images with the same nearest record count as one, which leaves so "
                "many independent ones for the intervals. These hold for all rows together with "
                f"95% confidence. {NOT_TOLD}"
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
            note=(
                "Precision is the share of the images that lie among held-out records, and recall "
                "the share of held-out records that lie among the images."
            ),
        ),
        Table(
            title="Evaluators, trained on training records and measured on held-out ones",
            columns=("evaluator", "balanced accuracy %", "good enough to judge"),
            rows=tuple((one.name, one.accuracy, one.refused or "yes") for one in evaluators),
        ),
    )


def _at_least(chance: float) -> Cell:
    return chance if chance > LEAST_CHANCE else f"≤ {LEAST_CHANCE:.4f}"


def _nearer(share: Share) -> tuple[Cell, ...]:
    return (
        *(share.share, share.low, share.high, round(share.effective)),
        against_chance(share.low, share.high),
    )


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
    targets = dict.fromkeys(target for target, _ in judged)
    near = [sentence for target in targets for sentence in _nearness(target, judged, floor)] or [
        "No attack made reconstructions that are nearer to training records than to held-out ones "
        "more often than chance, or the unguided prior, allows."
    ]
    return "\n\n".join(
        " ".join(sentences)
        for sentences in (
            [
                *near,
                "Reconstructing what a class looks like is not leakage of a record: only nearness "
                "to training records would be.",
            ],
            [
                f"Most of {evaluators} evaluators see the intended class in "
                f"{percent(floor.success.share)} of unguided images of the attacker's prior, which "
                f"knows {prior}, and in {percent(ceiling.success.share)} of real held-out records.",
                *(_success(target, judged) for target in targets),
            ],
            [f"Nearness was compared with {compared:,} training and as many held-out records."],
        )
    )


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


def _success(target: str, judged: Judgements) -> str:
    """How often the best attack on a target, or the only one that is possible, succeeds."""
    attacks = {name: one for (of, name), one in judged.items() if of == target}
    attack, best = max(attacks.items(), key=lambda pair: pair[1].success.share)
    many = f"{best.success.count:,} reconstructions (95% interval {_interval(best.success)})"
    share = percent(best.success.share)
    if len(attacks) > 1:
        return (
            f"Of {_named(target)}, {attack} succeeds most (picked afterwards, so partly by luck), "
            f"with {share} of {many}."
        )
    how = "by its labels alone" if attack == "label-only" else f"by {attack} alone"
    return f"Of {_named(target)}, which was attacked {how}, {share} of {many} succeed."


def _nearness(target: str, judged: Judgements, floor: Judgement) -> list[str]:
    found = []
    for attack in leaking(judged, floor, target):
        share = (judged[target, attack].nearer or {})[JUDGED]
        found.append(
            f"The {attack} reconstructions of {_named(target)} are nearer to a training record "
            f"than to a held-out one in {percent(share.share)} of cases in {JUDGED} (interval "
            f"{_interval(share)}, which holds with 95% confidence for all attacks together; 50% is "
            "no leak)."
        )
    return found


def _named(target: str) -> str:
    return f"the {target}" if target in (TEACHER, STUDENT) else target


def _interval(share: Share) -> str:
    return f"{percent(share.low)} to {percent(share.high)}"

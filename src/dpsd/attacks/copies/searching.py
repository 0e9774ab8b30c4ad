"""Searching a run's synthetic images for copies of training records."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from dpsd.attacks.copies.comparing import Comparison, Space
from dpsd.attacks.copies.pairs import closest_pairs
from dpsd.attacks.copies.plants import Plants
from dpsd.attacks.copies.records import Records, reduced
from dpsd.attacks.copies.settings import Copies
from dpsd.attacks.copies.spaces import SPACES, Embedding, pixels, scattering_features
from dpsd.attacks.copies.statistics import SCORES
from dpsd.attacks.copies.usefulness import VERSION, Accuracy, accuracies, accuracy_table
from dpsd.attacks.target import Progress, Target
from dpsd.datasets import LabelledImages
from dpsd.reporting.evaluations import wilson
from dpsd.results.synthetic import synthesise
from dpsd.runs.findings import (
    AGAINST,
    NOT_APART,
    NOT_TOLD,
    Findings,
    Table,
    against_chance,
    p_in_words,
)

#: What the columns of the two tables mean.
NOTE = (
    "Samples: of the run's generator; planted ones, all or some of which are copies; and held-out "
    "records, among which nothing is to be found. Near-copies: with the interval of their share. "
    "By chance: how many of as many held-out records would pass the threshold. p: how often "
    "held-out records would give as many."
)
NEARNESS_NOTE = (
    "Nearer: than to any of as many held-out records. C: the mean z of the three-sample test of "
    "data copying; above 0, samples are farther from training records than held-out ones are. Each "
    "p: how often chance does as much. " + NOT_TOLD
)

#: By space, what samples are near to.
BySpace = Mapping[str, Comparison]


def attack(
    target: Target, *, settings: Copies, seed: int = 0, folder: Path, progress: Progress
) -> Findings:
    """Search the generator's images for copies of training records.

    Args:
        target: the run, with training and held-out records.
        settings: how much is looked at.
        seed: the seed of the samples and of all choices.
        folder: where pictures and counts of trained models are kept.
        progress: what is told of the progress.

    Raises:
        ConfigError: there are too few records to tell copies from likenesses.
        RunError: the run's models cannot be loaded, or the folder cannot be written to.
    """
    started = time.monotonic()
    folder.mkdir(exist_ok=True)
    records = Records.of(
        target.members,
        target.others,
        most_members=settings.members,
        most_others=settings.others,
        seed=seed,
    )
    count = max(settings.samples, settings.training)
    progress.step("copies: sampling", 0, 1)
    synthetic = synthesise(target.run, count, seed=seed, device=target.device)
    progress.step("copies: sampling", 1, 1)
    samples = synthetic.images[: settings.samples]
    plants = Plants.of(records, samples, seed=seed)
    examined = {
        "generator": samples,
        "planted: all": plants.all_copies,
        "planted: some": plants.some_copies,
        "held-out": plants.null,
    }
    found = _compared(examined, target, records, settings=settings, progress=progress)
    own, *planted = found.values()
    trained = accuracies(
        target, synthetic, settings=settings, seed=seed, folder=folder, progress=progress
    )
    drawn = [
        closest_pairs(samples, one, records, space=space, count=settings.pairs, folder=folder)
        for space, one in own.items()
    ]
    return Findings(
        kind="copies",
        run=target.run.identity,
        student=str(target.run.ledger.ending()["student"]),
        data=target.members.name,
        seed=seed,
        seconds=round(time.monotonic() - started, 1),
        verdict="\n\n".join([*_sentences(own, records), _useful(trained, target.others)]),
        controls=plants.controls(*planted),
        scores=SCORES | {"train on synthetic, test on real": VERSION},
        tables=(*_tables(found), accuracy_table(trained)),
        pictures=tuple(picture for picture in drawn if picture is not None),
        settings=asdict(settings),
        details={
            "risk": max(one.near.share for one in own.values()),
            "pixels": list(reduced(samples[:1]).shape[2:]),
            "training records": len(target.members),
            "searched": len(records.members),
            "compared": len(records.reference),
        },
    )


def _compared(
    examined: Mapping[str, Tensor],
    target: Target,
    records: Records,
    *,
    settings: Copies,
    progress: Progress,
) -> dict[str, dict[str, Comparison]]:
    like = reduced(records.reference.images)
    embeddings: dict[str, Embedding] = {
        "pixels": pixels,
        "scattering": scattering_features(like, target.execution),
    }
    compared = len(like) + sum(map(len, examined.values()))  # each is embedded before
    total = len(embeddings) * (len(records.members) + 2 * compared)
    done = 0

    def advance(images: int) -> None:
        nonlocal done
        done += images
        progress.step("copies: comparing", done, total)

    progress.step("copies: comparing", 0, total)
    found: dict[str, dict[str, Comparison]] = {name: {} for name in examined}
    for space, embed in embeddings.items():
        whole = Space(
            embed,
            records,
            rate=settings.rate,
            neighbours=settings.neighbours,
            advance=advance,
        )
        for name, images in examined.items():
            found[name][space] = whole.compare(images)
    return found


def _sentences(own: BySpace, records: Records) -> list[str]:
    """What was found, in plain words, which pass no judgement on privacy."""
    (_, first), *_ = own.items()
    thresholds = " and ".join(
        f"{one.near.threshold:.3f} ({SPACES[space]})" for space, one in own.items()
    )
    calibrated = (
        f"calibrated on {len(records.reference):,} held-out records; this is not a privacy "
        "measure; see membership."
    )
    if not any(one.near.count for one in own.values()):
        sentences = [
            f"No near-copies among {first.near.of:,} samples at threshold {thresholds}, "
            + calibrated
        ]
    else:
        counts = " and ".join(
            f"{one.near.count:,} in {SPACES[space]} (held-out records would give "
            f"{one.near.expected:.1f}; p {p_in_words(one.near.p)})"
            for space, one in own.items()
        )
        sentences = [
            f"Near-copies among {first.near.of:,} samples at threshold {thresholds}: {counts}, "
            + calibrated
        ]
    nearness = [
        f"In {SPACES[space]}, {one.nearer.share:.1%} ({one.nearer.low:.1%} to "
        f"{one.nearer.high:.1%}) of the samples are nearer to a training record than to any of "
        f"{len(records.reference):,} held-out ones, where 50% means no difference"
        + (
            "; as the interval includes 50%, this cannot be told from chance."
            if against_chance(one.nearer.low, one.nearer.high) == NOT_APART
            else "."
        )
        for space, one in own.items()
    ]
    return [*sentences, " ".join(nearness)]


def _useful(trained: list[Accuracy], others: LabelledImages) -> str:
    guessed = int(others.labels.bincount().max()) / len(others)
    named = [
        f"{one.model} {share:.1%} ({low:.1%} to {high:.1%})"
        for one in trained
        for _, _, share, low, high, _ in [one.row()]
    ]
    return (
        f"Of {trained[0].of:,} held-out records, models that were trained on synthetic images "
        f"alone classify correctly: {', '.join(named[:2])}; beside them, {', '.join(named[2:])}. "
        f"Always saying the most frequent class is right for {guessed:.1%}."
    )


def _tables(found: Mapping[str, BySpace]) -> tuple[Table, Table]:
    rows = [
        (name, space, one.near, one.three, one.nearer)
        for name, spaces in found.items()
        for space, one in spaces.items()
    ]
    copies = Table(
        title="Near-copies of training records; more is worse",
        columns=(
            *("samples", "space", "number", "near-copies", "from %", "to %", "by chance"),
            *("threshold", "p"),
        ),
        note=NOTE,
        rows=tuple(
            (
                *(name, space, near.of, near.count, *wilson(near.share, near.of)),
                *(round(near.expected, 1), near.threshold, near.p),
            )
            for name, space, near, _, _ in rows
        ),
    )
    nearness = Table(
        title="Nearness to training records; a share of nearer samples above 50% is worse, and so "
        "is a C far below 0",
        columns=(
            *("samples", "space", "nearer %", "from %", "to %", "p of nearer", "C", "p of C"),
            AGAINST,
        ),
        note=NEARNESS_NOTE,
        rows=tuple(
            (
                *(name, space, near.share, near.low, near.high, near.p, three.statistic, three.p),
                against_chance(near.low, near.high),
            )
            for name, space, _, three, near in rows
        ),
    )
    return copies, nearness

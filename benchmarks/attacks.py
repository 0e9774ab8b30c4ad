"""The same attacker against every way of protecting, as tables for RESULTS.md.

    OMP_NUM_THREADS=1 python benchmarks/attacks.py membership --data digits
    OMP_NUM_THREADS=1 python benchmarks/attacks.py membership --data mnist --records 4000 --pairs 8
    OMP_NUM_THREADS=1 python benchmarks/attacks.py inversion --data mnist --records 10000

``membership`` asks who was in the training data: a teacher's, with students that were transcribed
from it, an ensemble's, and that of DP-SGD. All are trained on the same random halves of mislabelled
canaries. ``inversion`` reconstructs classes of one teacher, of students and of a model of DP-SGD
with one prior and the same starts.

What is finished is kept in a folder under a hash of all that decides it, so the same command goes
on where it was stopped. The noise of transcriptions is secret, so another folder gives other
students; that of DP-SGD follows the seed. The held-out records are of the test split, on which
nothing is chosen. Leaks are planted as in ``dpsd attack``: if one is missed, no table is printed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from dpsd.attacks import inversion
from dpsd.attacks.inversion.judging import JUDGED
from dpsd.attacks.inversion.settings import ATTACKS, Inversion
from dpsd.attacks.inversion.tables import CEILING, FLOOR
from dpsd.attacks.membership.controls import null_control, rates_of, scored, told_controls
from dpsd.attacks.membership.rates import AT, Rates
from dpsd.attacks.membership.scores import SCORES
from dpsd.attacks.membership.shadows import STUDENTS, TEACHERS, TOLD, Shadows
from dpsd.attacks.membership.splits import Split
from dpsd.attacks.names import LETTERS
from dpsd.attacks.target import Progress, Target
from dpsd.benchmarks.baselines.distillation import Distillation
from dpsd.benchmarks.teachers import open_module
from dpsd.cli.progress import AttackProgress
from dpsd.datasets import LabelledImages, load_dataset
from dpsd.devices.execution import Execution
from dpsd.errors import DpsdError
from dpsd.runs.findings import Cell, Control, Table
from dpsd.storage.locks import exclusively
from dpsd.streams import stream
from dpsd.teachers import load_teacher
from dpsd.training.classifier import evaluate_accuracy
from explaining import explained
from ways_of_protecting import DELTA, Sizes, Student, finished_run, teacher_place, ways

#: The held-out records on which accuracies are measured, at most.
MOST_HELD_OUT = 2_000


def membership(
    sizes: Sizes, out: Path, epsilons: Sequence[float], progress: Progress
) -> tuple[list[Table], list[Control]]:
    """Attack membership; returns the table and the controls."""
    train = load_dataset(sizes.data, "train")
    split = Split.of(
        train,
        shadows=2 * sizes.pairs,
        records=sizes.records,
        canaries=sizes.canaries,
        seed=sizes.seed,
    )
    first, *others = ways(sizes, train, out, epsilons)
    assert isinstance(first, Student)
    shadows = Shadows(
        split=split,
        teachers=first.teachers,
        students=first.students,
        also={way.name: way for way in others},
        folder=out,
        seed=sizes.seed,
        execution=sizes.execution,
        held_out=held_out(sizes, MOST_HELD_OUT),
    )
    with exclusively(out / "lock", name=out):
        shadows.train(progress)
    found, is_in = shadows.collected(), split.membership
    draws = 60 if sizes.is_quick else 500
    controls = [
        *told_controls(found.pop(TOLD), is_in, draws=draws),
        null_control(found[STUDENTS], is_in, seed=sizes.seed),
    ]
    accuracy = shadows.accuracies()
    names = {TEACHERS: ("teacher", "no privacy"), STUDENTS: (first.name, first.claim)}
    names |= {way.name: (way.name, way.claim) for way in others}
    rates = {
        kind: rates_of(scored(said, is_in), is_in, draws=draws) for kind, said in found.items()
    }
    rests = next(iter(rates[TEACHERS].values()))
    table = Table(
        title=(
            f"**Membership**, {sizes.data}: {len(split.pool):,} records, {len(split.scored)} "
            f"mislabelled canaries, {sizes.pairs} pairs of shadows, {sizes.queries:,} queries a "
            f"student, δ = {DELTA:g}, seed {sizes.seed}. By {SCORES[0].name}; the largest AUC of "
            f"{len(SCORES)} scores is picked afterwards. 1 % rests on {rests.rests_on(0.01)}. "
            "Intervals of 95 % are over models and records. The accuracy is the shadows' mean on "
            f"{len(shadows.held_out or ())} records of the test split, on which nothing is chosen"
        ),
        columns=(
            *("model", "ε, about", "accuracy %", "AUC", "AUC from", "AUC to"),
            *(f"found at {AT[0.01]}{end}, %" for end in ("", " from", " to")),
            *("largest AUC", "AUC from", "AUC to", "by"),
        ),
        rows=tuple(
            (*names[kind], float(accuracy[kind].mean()), *_row(of_kind))
            for kind, of_kind in rates.items()
        ),
    )
    return [table], controls


def _row(rates: Mapping[str, Rates]) -> Iterator[float | str]:
    stated = rates[SCORES[0].name]
    best = max(rates, key=lambda name: rates[name].auc.value)
    for one in (stated.auc, stated.caught[0.01], rates[best].auc):
        yield from (one.value, one.low, one.high)
    yield best


def inverted(
    sizes: Sizes, out: Path, epsilons: Sequence[float], progress: Progress
) -> tuple[list[Table], list[Control]]:
    """Attack by inversion; returns the tables and the controls."""
    train, others = load_dataset(sizes.data, "train"), held_out(sizes, sizes.records)
    rows = torch.randperm(len(train), generator=stream(sizes.seed, 0, "inversion members"))
    members = train.subset(rows[: sizes.records].sort().values)
    first, *protected = ways(sizes, members, out, epsilons)
    assert isinstance(first, Student)
    with exclusively(out / "lock", name=out):
        place = teacher_place(first, members, sizes)
        run = finished_run(first, members, sizes)
        module = Execution.of().place(open_module(place))  # where it is distilled
        models: dict[str, nn.Module] = {}
        for done, way in enumerate(protected):
            progress.step("models", done, len(protected))
            if isinstance(way, Student):
                models[way.name] = finished_run(way, members, sizes).student()
            else:
                models[way.name] = way(members, sizes.seed)
        progress.step("models", len(protected), len(protected))
        models["student, distilled"] = Distillation().student(
            members, module, model=sizes.model, seed=sizes.seed
        )
        found = inversion.attack(
            Target(
                run=run,
                members=members,
                others=others,
                teacher=load_teacher(place, device=sizes.device),
                device=sizes.device,
            ),
            settings=(
                replace(Inversion.quick(), public=sizes.public)
                if sizes.is_quick
                else Inversion(reconstructions=sizes.reconstructions, public=sizes.public)
            ),
            seed=sizes.seed,
            folder=out,
            progress=progress,
            also=models,
        )
    claims = {way.name: way.claim for way in protected}
    claims["student"] = first.claim
    names = {"student": first.name}
    about = {
        name: (
            names.get(name, name),
            claims.get(name, "no privacy"),
            evaluate_accuracy(one, others),
        )
        for name, one in {"teacher": module, "student": run.student(), **models}.items()
    }
    success, nearer = found.tables[:2]
    first_of = success.columns.index("success %"), nearer.columns.index("nearer to training %")
    return [
        by_attack(
            f"**Inversion**, {sizes.data}: {len(members):,} training records, {sizes.queries:,} "
            f"queries a student, δ = {DELTA:g}, seed {sizes.seed}. The share of reconstructions in "
            f"which most evaluators see the class, of all restarts. Accuracy on {len(others):,} "
            "records of the test split, on which nothing is chosen",
            {row[0]: row[first_of[0] :][:3] for row in success.rows},
            about,
        ),
        by_attack(
            f"The share that is nearer to a training record than to a held-out one, in {JUDGED}; "
            "50 %, or that of the unguided prior, is no leak. All intervals hold together",
            {row[0]: row[first_of[1] :][:3] for row in nearer.rows if row[1] == JUDGED},
            about,
        ),
    ], list(found.controls)


def by_attack(
    title: str, found: Mapping[Cell, tuple[Cell, ...]], about: Mapping[str, tuple[Cell, ...]]
) -> Table:
    """A table with a column for each attack.

    Args:
        title: what the shares are.
        found: a share with its interval, by "model, attack", or by what is compared with.
        about: the first cells of a model's row, by its name.
    """
    none = (None, None, None)
    rows = [
        (*cells, *(one for attack in ATTACKS for one in found.get(f"{name}, {attack}", none)))
        for name, cells in about.items()
    ]
    compared = [
        (name, "-", None, *(found[name] * len(ATTACKS)))
        for name in (FLOOR, CEILING)
        if name in found
    ]
    return Table(
        title=title,
        columns=(
            *("model", "ε, about", "accuracy %"),
            *(f"{attack}{end} %" for attack in ATTACKS for end in ("", " from", " to")),
        ),
        rows=(*rows, *compared),
    )


def held_out(sizes: Sizes, most: int) -> LabelledImages:
    """Records of the test split, at most so many, drawn at random."""
    data = load_dataset(sizes.data, "test")
    rows = torch.randperm(len(data), generator=stream(sizes.seed, 0, "held out"))
    return data.subset(rows[:most].sort().values)


def markdown(table: Table) -> str:
    """A table as Markdown, below its title."""
    headings = table.headings()
    lines = [headings, ("---",) * len(headings), *table.texts()]
    return "\n".join([f"{table.title}.", "", *(f"| {' | '.join(line)} |" for line in lines), ""])


KINDS = {"membership": membership, "inversion": inverted}


def main(arguments: Sequence[str] | None = None) -> None:
    """Attack, and print the tables."""
    parser = explained(__doc__)
    parser.add_argument(
        "attack",
        choices=KINDS,
        help="membership: who was in the training data; inversion: what the classes look like",
    )
    parser.add_argument(
        "--data", default="digits", help="the private data set, as `dpsd data list` names it"
    )
    parser.add_argument("--records", type=int, default=600, help="training records at most")
    parser.add_argument(
        "--canaries",
        type=int,
        default=200,
        help="mislabelled records whose membership is guessed, at most half of the records",
    )
    parser.add_argument(
        "--pairs", type=int, default=12, help="pairs of shadow models for membership, at least 3"
    )
    parser.add_argument("--queries", type=int, default=4_000, help="queries of a transcription")
    parser.add_argument(
        "--shards", type=int, help="an ensemble's teachers (default: a 20th of the records)"
    )
    parser.add_argument("--epochs", type=int, default=20, help="passes of DP-SGD over its records")
    parser.add_argument(
        "--reconstructions",
        type=int,
        default=20,
        help="reconstructions of a class by inversion, a multiple of 5",
    )
    parser.add_argument(
        "--epsilons",
        type=float,
        nargs="+",
        default=[10.0, 1.0],
        help="the ε at which each way of protecting is attacked",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of splits, of models and of attacks, not of noise"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the processor, for torch")
    parser.add_argument("--device", default="cpu", help="where models run")
    parser.add_argument(
        "--public",
        default=LETTERS,
        metavar="IMAGES",
        help="what the prior of inversion learns from: letters, a drawn source, a folder, an .npz "
        "file, a data set, or classes:NAME,NAME of the private one (GMI's milder setting)",
    )
    parser.add_argument("--quick", action="store_true", help="try the script out in a minute")
    parser.add_argument(
        "--out", type=Path, default=Path("attacked"), help="the folder of what is finished"
    )
    asked = parser.parse_args(arguments)
    if asked.pairs < 3:
        parser.error("--pairs must be at least 3, so that every record is in and out of some")
    torch.set_num_threads(asked.threads)
    small = {"records": 240, "canaries": 80, "pairs": 3, "queries": 200, "epochs": 2}
    chosen = {
        name: min(getattr(asked, name), small[name] if asked.quick else getattr(asked, name))
        for name in small
    }
    sizes = Sizes(
        data=asked.data,
        shards=asked.shards or max(2, chosen["records"] // 20),
        reconstructions=asked.reconstructions,
        seed=asked.seed,
        is_quick=asked.quick,
        device=asked.device,
        public=asked.public,
        **chosen,
    )
    name = re.sub(r"[^\w.-]+", "-", asked.data)  # data may be a path
    out = asked.out / f"{asked.attack}-{name}"
    out.mkdir(parents=True, exist_ok=True)
    try:
        with AttackProgress() as progress:
            tables, controls = KINDS[asked.attack](sizes, out, asked.epsilons, progress)
    except DpsdError as error:
        sys.exit(f"error: {error}")
    if missed := [control.sentence for control in controls if not control.found]:
        sys.exit("\n".join(["The attack is invalid, as it failed its own controls:", *missed]))
    for table in tables:
        print(markdown(table))
    print(f"All {len(controls)} controls held: {'; '.join(one.name for one in controls)}.")


if __name__ == "__main__":
    main()

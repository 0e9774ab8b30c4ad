"""The attack on a run, which asks whether its student tells what its teacher was trained on.

Shadow teachers and their students are made by the run's recipe, with known membership. The scores
are measured on both, so that the teacher's leak and what is left of it stand side by side.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch

from dpsd.attacks.membership import roc
from dpsd.attacks.membership.controls import (
    null_control,
    rates_of,
    scored,
    told_bound_control,
    told_controls,
)
from dpsd.attacks.membership.kept import Kept
from dpsd.attacks.membership.one_run import VERSION, guessed, require_enough
from dpsd.attacks.membership.rates import Rates, measured
from dpsd.attacks.membership.recipes import StudentRecipe, TeacherRecipe, Train
from dpsd.attacks.membership.scores import SCORES
from dpsd.attacks.membership.shadows import (
    STUDENTS,
    TOLD,
    Shadows,
    confidence_of,
    told_of,
    transcribed,
)
from dpsd.attacks.membership.splits import PairedCanaries, Split
from dpsd.attacks.membership.verdict import Audited, Found
from dpsd.attacks.target import Progress, Target
from dpsd.errors import ConfigError, Setting
from dpsd.privacy.targets import Adjacency
from dpsd.runs.findings import Findings
from dpsd.storage.locks import exclusively
from dpsd.streams import stream_seed


@dataclass(frozen=True, kw_only=True)
class Membership:
    """The settings of the attack, sized for minutes on two cores with images of 28x28 pixels.

    Args:
        shadows: the number of shadow teachers, an even one of at least 6.
        records: the most training records that the shadows share.
        canaries: how many of the records get a wrong label, and are in a random half of the
            shadows, while all others are always in; at most half. ``None`` to guess about all
            records, each in a random half, with the labels that they have.
        queries: the most queries that the transcription of a shadow asks. If the run asked more,
            its queries and training steps are scaled down by the same factor.
        pairs: the number of pairs of canaries in the audit with one run, for ensembles, at least
            14; at most a quarter of the records are used.
        draws: the number of bootstrap samples.

    Raises:
        ConfigError: the number of shadows is odd or below 6, or there are too few pairs.
    """

    shadows: int = 16
    records: int = 4_000
    canaries: int | None = 200
    queries: int = 20_000
    pairs: int = 300
    draws: int = 500

    def __post_init__(self) -> None:
        if self.shadows < 6 or self.shadows % 2:
            raise ConfigError(
                Setting("shadows"), f" must be an even number of at least 6, not {self.shadows}"
            )
        require_enough(self.pairs, delta=0.0)

    @property
    def plan(self) -> str:
        """What is made, in words."""
        return (
            f"{self.shadows} shadow teachers are trained and transcribed, one after the other, and "
            "one more if the run has an ensemble"
        )

    @classmethod
    def quick(cls) -> Self:
        """Return settings for tests and demos, which take seconds with images of 8x8 pixels."""
        return cls(shadows=6, records=400, canaries=80, queries=1_000, pairs=60, draws=200)


def attack(
    target: Target,
    *,
    settings: Membership,
    seed: int = 0,
    folder: Path,
    progress: Progress,
    train: Train | None = None,
    also: Mapping[str, Train] | None = None,
) -> Findings:
    """Attack a run's recipe, and write a picture of the ROC curves.

    An attack that was interrupted goes on with the shadows that are finished.

    Args:
        target: the run, with its teacher's training records and others.
        settings: the sizes.
        seed: the seed of splits and of shadow teachers.
        folder: the folder of pictures; intermediate results are in ``membership/`` below it.
        progress: is told how far the attack is.
        train: how the teacher was trained, if no ``teacher.json`` says it.
        also: further methods to compare, by name, each trained on the same records; a name must
            change whenever its method does.

    Returns:
        The findings, which the caller saves.

    Raises:
        RunError: the recipe of teacher or student is not on record, shadows are missing, or another
            process is attacking the run.
        ConfigError: there are too few records for a canary, or too few pairs for an ensemble.
        DpsdError: a shadow's training or transcription failed; finished ones are kept.
    """
    started = time.monotonic()
    split = Split.of(
        target.members,
        shadows=settings.shadows,
        records=settings.records,
        canaries=settings.canaries,
        seed=seed,
    )
    shadows = Shadows(
        split=split,
        teachers=TeacherRecipe.recorded(
            target, share=len(split.pool) / len(target.members), train=train
        ),
        students=StudentRecipe.recorded(target, queries=settings.queries),
        also=also or {},
        folder=folder / "membership",
        seed=seed,
        execution=target.execution,
    )
    canaries = _paired(target, shadows, settings)
    shadows.folder.mkdir(parents=True, exist_ok=True)
    with exclusively(shadows.folder / "lock", name=shadows.folder):
        shadows.train(progress)
        one_run = None if canaries is None else _one_run(canaries, shadows, settings)
    confidences = shadows.collected()
    told, is_in = confidences.pop(TOLD), split.membership
    scores = {kind: scored(said, is_in) for kind, said in confidences.items()}
    roc.draw(scores, is_in, folder)
    found = Found(
        rates={kind: rates_of(one, is_in, draws=settings.draws) for kind, one in scores.items()},
        own=_own(target, draws=settings.draws),
        one_run=one_run,
        shadows=shadows,
        has_canaries=settings.canaries is not None,
    )
    bounded = {"one run, paired canaries": VERSION} if one_run else {}
    return Findings(
        kind="membership",
        run=target.run.identity,
        student=str(target.run.ledger.ending()["student"]),
        data=target.members.name,
        seed=seed,
        seconds=round(time.monotonic() - started, 1),
        verdict=found.verdict(),
        controls=(
            *told_controls(told, is_in, draws=settings.draws),
            null_control(confidences[STUDENTS], is_in, seed=seed),
            *((told_bound_control(one_run.told, delta=one_run.delta),) if one_run else ()),
        ),
        scores={score.name: score.version for score in SCORES} | bounded,
        tables=found.tables(),
        pictures=(found.picture(),),
        settings=asdict(settings) | {"also": sorted(shadows.also)},
        details=found.details(),
    )


def _own(target: Target, *, draws: int) -> Rates:
    """Measure the threshold attack on the run's own student, of which there is only one."""
    student, execution = target.student(), target.execution
    said = [confidence_of(student, data, execution) for data in (target.members, target.others)]
    is_member = torch.arange(sum(map(len, said))) < len(target.members)
    return measured(
        torch.cat(said).unsqueeze(0).numpy(),
        is_member.unsqueeze(0).numpy(),
        draws=draws,
        together=1,
    )


def _paired(target: Target, shadows: Shadows, settings: Membership) -> PairedCanaries | None:
    """Draw the canaries of the audit with one run, if the run's ε covers a training record.

    Raises:
        ConfigError: there are too few for its δ.
    """
    if shadows.students.members == 1:
        return None
    canaries = PairedCanaries.of(
        target.members, records=settings.records, pairs=settings.pairs, seed=shadows.seed
    )
    require_enough(len(canaries.first), delta=shadows.students.config.privacy.delta)
    return canaries


def _one_run(canaries: PairedCanaries, shadows: Shadows, settings: Membership) -> Audited:
    """Audit one more ensemble and its student."""
    kept = Kept(
        shadows.folder,
        "one-run",
        {
            "what": "an audited student, and one that was told",
            **shadows.shared_key(canaries.training, torch.tensor([settings.pairs])),
        },
    )
    if not kept.exists():
        made = transcribed(
            canaries.training,
            teachers=shadows.teachers,
            students=shadows.students,
            seed=stream_seed(shadows.seed, 0, "one run"),
            folder=shadows.folder,
            execution=shadows.execution,
        )
        models = {"": made.student, "told ": told_of(made.student, canaries.training)}
        both = {"first": canaries.first, "second": canaries.second}
        spent = made.certificate.spent
        kept.save(
            {
                f"{model}{name}": confidence_of(module, data, shadows.execution)
                for model, module in models.items()
                for name, data in both.items()
            }
            | {
                "claimed": torch.tensor(
                    [spent.under(Adjacency.TEACHER), spent.delta], dtype=torch.float64
                )
            }
        )
    said = {name: column.numpy() for name, column in kept.load().items()}
    claimed, delta = said["claimed"].tolist()
    bound, told = (
        guessed(
            said[f"{model}first"], said[f"{model}second"], canaries.is_first.numpy(), delta=delta
        )
        for model in ("", "told ")
    )
    return Audited(bound=bound, told=told, claimed=claimed, delta=delta)

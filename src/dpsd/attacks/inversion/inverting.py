"""Inversion of a run: its teacher, its student and further models, with controls.

The attacker reconstructs classes from models, with a prior of public images or without one. What
comes back is judged by evaluators of the private data, which the attacker does not have: does it
show the class, and is it nearer to records that were trained on than to others?
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor, nn

from dpsd.attacks.inversion.attacked import Attacked, attacked
from dpsd.attacks.inversion.attacker import VERSIONS, Attacker, as_reconstructions
from dpsd.attacks.inversion.controls import planted_controls
from dpsd.attacks.inversion.evaluators import train_evaluators
from dpsd.attacks.inversion.judging import SPACES, Judge, comparable
from dpsd.attacks.inversion.label_only import most_questions
from dpsd.attacks.inversion.pictures import draw_grid
from dpsd.attacks.inversion.public import public_images
from dpsd.attacks.inversion.reconstructions import Reconstructions
from dpsd.attacks.inversion.settings import Inversion
from dpsd.attacks.inversion.shelf import Shelf
from dpsd.attacks.inversion.tables import leaking, tables, verdict
from dpsd.attacks.names import STUDENT, TEACHER
from dpsd.attacks.target import Progress, Silent, Target, are_of_persons, remove_picture
from dpsd.datasets import LabelledImages
from dpsd.datasets.published import dataset_names
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.runs.findings import Findings, Picture
from dpsd.teachers import Teacher

#: The file name of the grid of reconstructions, without its suffix.
_GRID = "inversion-grid"
#: The probability that any interval of nearness misses its share.
_MISTAKE = 0.05

Model = nn.Module | Teacher | Callable[[Tensor], Tensor]


def attack(
    target: Target,
    *,
    settings: Inversion | None = None,
    seed: int = 0,
    folder: Path,
    progress: Progress | None = None,
    also: Mapping[str, Model] | None = None,
    priors: Path | None = None,
) -> Findings:
    """Attack a run by inversion.

    Args:
        target: the run, its records and its teacher. A teacher that is no module is attacked by
            its labels alone.
        settings: the settings; by default, those of :class:`Inversion`.
        seed: the seed of the whole attack, which fixes it to the bit on the same machine.
        folder: the folder of pictures and of intermediate results, with which an attack that was
            interrupted goes on.
        progress: is told of every part.
        also: further models to attack, by name, such as the students of other runs: modules,
            teachers, or functions from images in [0, 1] to scores or classes, whose labels alone
            are attacked.
        priors: the folder of the attacker's prior, which runs may share; by default, ``folder``.

    Returns:
        The findings.

    Raises:
        ConfigError: a name is taken, the public images are the private ones, or there are too few
            records to compare with.
        DataError: no evaluator is good enough.
        RunError: a file cannot be read or written.
    """
    started = time.monotonic()
    settings, progress = settings or Inversion(), progress or Silent()
    execution = Execution(target.execution.device, "float32")
    shelf = Shelf(folder)
    members, others = target.members, target.others
    has_persons = are_of_persons(members) or are_of_persons(others)
    if has_persons:
        remove_picture(folder, _GRID)
    names = target.run.class_names() or members.class_names
    public = public_images(
        settings.public,
        others,
        most=settings.public_images,
        seed=seed,
        teachers=[target.teacher] if target.teacher else (),
    )
    inside, outside = comparable(members, others, public.classes, seed=seed)
    evaluators = train_evaluators(
        members,
        others,
        steps=settings.evaluator_steps,
        seed=seed,
        execution=execution,
        shelf=shelf,
        advance=lambda done: progress.step("inversion: evaluators", done, 3),
    )
    attacker = Attacker.trained(
        settings,
        public,
        execution=execution,
        shelf=shelf,
        priors=Shelf(priors or folder),
        progress=progress,
        seed=seed,
    )
    # Half of the held-out records are what distributions are compared with, and half the ceiling.
    judge = Judge(
        evaluators,
        inside=inside,
        outside=outside,
        reference=outside.images[::2],
        public=public.pixels,
        execution=execution,
    )
    targets = _targets(target, also or {}, execution)
    made = {
        (one.name, name): attacker.attack(one, name, each=settings.reconstructions)
        for one in targets
        for name in settings.attacks
        if attacker.can_attack(one, name)
    }
    # All intervals of nearness hold together, as whoever reads them looks for the largest share.
    confidence = 1 - _MISTAKE / max(1, len(made) * len(SPACES))
    judged = {which: judge.judge(images, confidence=confidence) for which, images in made.items()}
    floor = judge.judge(
        attacker.unguided(settings.reconstructions), is_guided=False, confidence=confidence
    )
    ceiling = judge.judge(
        as_reconstructions(outside.images[1::2], outside.labels[1::2]),
        is_guided=False,
        is_record=True,
    )
    controls = planted_controls(attacker, judge, inside, attacks=settings.attacks)
    return Findings(
        kind="inversion",
        run=target.run.identity,
        student=str(target.run.ledger.ending()["student"]),
        data=members.name,
        seed=seed,
        seconds=time.monotonic() - started,
        verdict=verdict(
            judged,
            floor,
            ceiling,
            prior=public.words,
            evaluators=len(judge.evaluators),
            compared=len(inside),
        ),
        controls=controls,
        scores=VERSIONS,
        tables=tables(judged, floor, ceiling, evaluators, prior=public.words),
        pictures=(
            ()
            if has_persons
            else _pictures(made, outside, names, attacker, bool(leaking(judged, floor)), folder)
        ),
        settings=asdict(settings) | {"attacks": list(settings.attacks)},
        details={
            "targets": {one.name: one.key for one in targets},
            "prior": public.words,
            "evaluators": {one.name: one.content for one in evaluators},
            "questions for a label-only reconstruction, at most": most_questions(
                settings.rounds, settings.points
            ),
        },
    )


def _targets(target: Target, also: Mapping[str, Model], execution: Execution) -> list[Attacked]:
    """Return all targets, the teacher first."""
    models = {} if target.teacher is None else {TEACHER: target.teacher}
    taken = sorted({TEACHER, STUDENT} & also.keys())
    if taken:
        raise ConfigError(
            f"also names a model {taken[0]!r}, which is a name of the run's own models"
        )
    shape = target.members.input_shape
    return [
        attacked(name, model, shape=shape, execution=execution)
        for name, model in {**models, STUDENT: target.student(), **also}.items()
    ]


def _pictures(
    made: Mapping[tuple[str, str], Reconstructions],
    outside: LabelledImages,
    names: tuple[str, ...],
    attacker: Attacker,
    is_leaking: bool,
    folder: Path,
) -> tuple[Picture, ...]:
    # Of a user's own data nobody knows whom they show, so a picture shows none of their records
    # unless the reconstructions may show them anyway.
    shows_records = is_leaking or attacker.public.are_private or outside.name in dataset_names()
    real = {"real, held out": as_reconstructions(outside.images, outside.labels)}
    rows = {
        **(real if shows_records else {}),
        "prior, unguided": attacker.unguided(1),
        **{f"{target}, {attack}": one for (target, attack), one in made.items()},
    }
    draw_grid(rows, classes=attacker.public.classes, class_names=names, folder=folder, name=_GRID)
    return (
        Picture(
            name=_GRID,
            caption=(
                "The reconstruction of each class that its target is surest of, by target and "
                "attack, below "
                + "a real record that was held out and " * shows_records
                + "an unguided image of the attacker's prior."
            ),
            finding=(
                f"Reconstructions of {len(made)} pairs of target and attack. "
                + (
                    "Some are nearer to training records than chance allows, and may show them."
                    if is_leaking
                    else "None is nearer to training records than chance allows."
                )
            ),
            shows_records=shows_records,
        ),
    )

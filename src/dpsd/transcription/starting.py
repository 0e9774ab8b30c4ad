"""Starting a transcription, continuing one, and helping one from another process.

:func:`transcribe` is the way in for Python, :func:`start` for a configuration. All of them put
together what :class:`~dpsd.transcription.loop.Transcription` plays.

>>> import dpsd
>>> transcribe("teacher/", mechanism=dpsd.Gaussian(), budget=dpsd.Budget(epsilon=1.0), out="run")
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: teacher must be a dpsd.Teacher, not 'teacher/'; load it with dpsd.load...
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from torch import nn

from dpsd.config.transcription import ENSEMBLE_STUDENT, OF_GRADIENTS, Recipe, TranscriptionConfig
from dpsd.devices.execution import Execution
from dpsd.devices.processes import Processes
from dpsd.errors import ConfigError, DpsdError, RunError, Setting
from dpsd.models import build_classifier, build_generator
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.mechanisms import (
    ConfidentVotes,
    Gaussian,
    Mechanism,
    NoisySum,
    RandomizedResponse,
)
from dpsd.privacy.randomness import ReproducibleNoise
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.targets import Adjacency, Budget, Exposure
from dpsd.reporting.html import write_report
from dpsd.runs.budgets import budget_of, count_uncounted
from dpsd.runs.directory import Run, RunDirectory
from dpsd.runs.observing import Observer, Unheard
from dpsd.streams import stream_seed
from dpsd.synthesis.mixture import build_mixture
from dpsd.teachers import Teacher
from dpsd.transcription.launching import processes_for
from dpsd.transcription.loop import Transcription

#: Records that may be exposed outright, on average, before a δ is called too large for them.
_MOST_EXPOSED = 0.1


def transcribe(
    teacher: Teacher,
    *,
    mechanism: Mechanism,
    budget: Budget,
    out: str | Path,
    student: str | nn.Module | None = None,
    generator: str | nn.Module = "dcgan",
    rounds: int | None = None,
    queries: int | None = None,
    recipe: Recipe | None = None,
    cap: Budget | None = None,
    budget_file: str | Path | None = None,
    count_earlier: bool = False,
    observer: Observer | None = None,
) -> Run:
    """Turn a teacher into a student through privatised answers to synthetic queries.

    Args:
        teacher: from :func:`dpsd.load_teacher`.
        mechanism: how answers are privatised; its noise level is left open, for the budget to set.
        budget: the privacy target.
        out: the run directory; must be new or empty.
        student: a model's name, ``package.module:factory``, or a module; by default ``cnn``, and
            ``scattering`` for an ensemble, which learns most from few answers.
        generator: likewise; ``dcgan`` by default.
        rounds: overrides the recipe's.
        queries: in a round; overrides the recipe's.
        recipe: everything else; by default what suits the teacher, see :meth:`Recipe.suited_to`.
            Batch sizes that it leaves open suit the images, and rounds the budget; see
            :meth:`Recipe.for_images` and :meth:`Recipe.for_budget`.
        cap: what all runs of this teacher together may spend, and of a committee, those of each
            of its members.
        budget_file: where the teacher's budget is kept, besides the usual place, whose cap holds
            too; see :mod:`dpsd.runs.budgets`.
        count_earlier: the teacher's file was changed or exchanged: what the budget beside it
            records of what was there before counts for this teacher, from now on.
        observer: is told how it goes.

    Returns:
        The finished run.

    Raises:
        ConfigError: arguments that make no sense together.
        BudgetError: a privacy target that cannot be met, or more than the cap.
        TeacherError: the teacher failed or answered with something that is no class scores.
        RunError: the directory is taken or cannot be written.
    """
    for name, value, kind in (
        ("teacher", teacher, Teacher),
        ("mechanism", mechanism, Mechanism),
        ("budget", budget, Budget),
    ):
        if not isinstance(value, kind):
            hint = "; load it with dpsd.load_teacher" if kind is Teacher else ""
            raise ConfigError(f"{name} must be a dpsd.{kind.__name__}, not {value!r}{hint}")
    changed = {"rounds": rounds, "queries": queries}
    changed = {name: value for name, value in changed.items() if value is not None}
    recipe = (recipe or Recipe.suited_to(teacher)).for_images(teacher.input_shape)
    recipe = Recipe(**{**recipe.model_dump(exclude_unset=True), **changed}).for_budget(budget)
    student = student or (ENSEMBLE_STUDENT if teacher.members > 1 else "cnn")
    config = _recorded(teacher, mechanism, budget, student, generator, recipe).model_copy(
        update={
            "cap": None if cap is None else str(cap),
            "budget_file": None if budget_file is None else str(Path(budget_file).absolute()),
            "count_earlier": count_earlier,
        }
    )
    return start(
        config,
        teacher,
        mechanism=mechanism,
        out=Path(out),
        student=student,
        generator=generator,
        observer=observer,
    )


def start(
    config: TranscriptionConfig,
    teacher: Teacher,
    *,
    out: Path,
    mechanism: Mechanism | None = None,
    student: str | nn.Module | None = None,
    generator: str | nn.Module | None = None,
    observer: Observer | None = None,
) -> Run:
    """Start a run from a configuration; :func:`transcribe` is the friendlier way in."""
    config = config.for_images(teacher.input_shape)
    processes = processes_for(config, teacher, run=out, student=student, generator=generator)
    if not processes.leads:
        return follow(
            out,
            teacher,
            config=config,
            mechanism=mechanism,
            student=student,
            generator=generator,
            processes=processes,
        )
    mechanism = mechanism or config.mechanism(members=teacher.members)
    calibrated = _calibrated(mechanism, config, teacher)
    # What makes no sense is refused before anything is written or spent.
    config.objective_function(members=teacher.members)
    config.require_effect(members=teacher.members)
    observer = observer or Observer()
    spending = _accounts(teacher, config.budget_file, config=config, observer=observer)
    _refuse_unknown(spending, cap=config.limit())
    identity = secrets.token_hex(8)
    if spending is not None:
        planned = [(index, config.queries_in(index)) for index in range(1, config.rounds + 1)]
        spending.admit(
            run=identity,
            mechanism=calibrated,
            planned=planned,
            delta=config.delta,
            cap=config.limit(),
        )
    for warning in _warnings(config, teacher, calibrated):
        observer.warn(warning)
    players = _players(config, teacher, student, generator, processes)
    facts = {
        "format": "dpsd-student",
        "version": 1,
        "run": identity,
        "student": _model_name(student or config.student),
        "generator": _model_name(generator or config.generator),
        "input_shape": list(teacher.input_shape),
        "num_classes": teacher.num_classes,
        "teacher": teacher.fingerprint,
        "members": teacher.members,
        "disjoint_data": teacher.is_disjoint,
        "dealt_by": teacher.dealt_by,
        "distinct_images": True,
    }
    sources = build_mixture(config.sources, teacher.input_shape)
    directory = RunDirectory.create(out, config, facts)
    transcription = Transcription(
        teacher=teacher,
        mechanism=calibrated,
        sources=sources,
        recipe=config.recipe(),
        directory=directory,
        budget=spending,
        observer=observer,
        **players,
    )
    try:
        return _reported(transcription.run())
    except DpsdError:
        directory.discard()  # else the same command would find its place taken
        raise


def _accounts(
    teacher: Teacher,
    *paths: str | Path | None,
    config: TranscriptionConfig,
    observer: Observer,
) -> Accounts | None:
    """What a run is charged to; what lies beside a teacher and is not counted is counted or told.

    A budget that was named may serve several teachers, so what it records of others is no news.
    """
    accounts = budget_of(teacher, *paths)
    if accounts is None:
        return None
    if config.count_earlier:
        count_uncounted(accounts)
    elif found := [other for _, other in accounts.uncounted() if other.is_all]:
        more = f", and so do {len(found) - 1} others" if len(found) > 1 else ""
        observer.warn(
            f"{found[0].describe(delta=config.delta, adjacency=config.adjacency)}{more}. If the "
            "teacher's file was changed or exchanged since, count them with --count-earlier "
            "(count_earlier=True)"
        )
    return accounts


def _refuse_unknown(accounts: Accounts | None, *, cap: Budget | None) -> None:
    """A cap needs to know what each teacher has spent."""
    if cap is not None and (accounts is None or accounts.unknown):
        which = accounts.unknown[0] if accounts is not None else "this teacher"
        raise ConfigError(
            *(
                "a ",
                Setting("cap"),
                f" needs to know what {which} has spent, and nothing tells it ",
            ),
            *("from another: say with ", Setting("budget_file"), " where its budget is"),
        )


def _warnings(config: TranscriptionConfig, teacher: Teacher, mechanism: Mechanism) -> Iterator[str]:
    """What a user should know before anything is spent."""
    if teacher.members > 1 and config.adjacency is not Adjacency.TEACHER:
        yield (
            f"epsilon {config.epsilon:g} is a target under {config.adjacency.value!r}, which "
            "protects single answers; for a training record, or a person where records were dealt "
            "by person, calibrate an ensemble to 'teacher'"
        )
    covered, whose = (
        (teacher.persons, "persons") if teacher.persons else (teacher.records, "training records")
    )
    if covered is not None and config.delta * covered > _MOST_EXPOSED:
        yield (
            f"delta {config.delta:g} is the chance of exposing any one of the {covered:,} {whose} "
            f"outright, so {config.delta * covered:.1g} of them on average; lower delta to "
            f"1e{math.floor(math.log10(_MOST_EXPOSED / covered))} at most"
        )
    if isinstance(mechanism, NoisySum):
        noise = float(str(mechanism.parameters()["noise_multiplier"]))
        if noise > teacher.members:
            yield (
                f"the noise on each sum (standard deviation {noise:.0f}) is larger than all "
                f"{teacher.members} teachers together: the student will learn little. Train more "
                "teachers, ask fewer queries, or raise epsilon"
            )


def resume(
    path: str | Path,
    teacher: Teacher,
    *,
    student: str | nn.Module | None = None,
    generator: str | nn.Module | None = None,
    cap: Budget | None = None,
    budget_file: str | Path | None = None,
    count_earlier: bool = False,
    devices: int | None = None,
    observer: Observer | None = None,
) -> Run:
    """Continue a run where it stopped; what was released before is read again for free.

    Args:
        path: the run directory.
        teacher: the same teacher as before.
        student: needed again only if it was given as a module.
        generator: likewise.
        cap: lets the run go over its target, up to this, where answers were lost; and what all
            runs of this teacher together may spend, instead of what the run was given.
        budget_file: where the teacher's budget goes on, besides the usual place and the file that
            the run was given, as far as that is still there.
        count_earlier: as for :func:`transcribe`.
        devices: how many processes go on with it; as many as it was started with if not given.
        observer: is told how it goes.

    Raises:
        BudgetError: what is left of the run would exceed a cap.
        RunError: no run there, a damaged one, or one that belongs to another teacher.
    """
    path = Path(path)
    directory = RunDirectory.open(path)
    config = directory.config()
    if devices is not None:
        config = TranscriptionConfig(**config.model_dump() | {"devices": devices})
    processes = processes_for(config, teacher, run=path, student=student, generator=generator)
    if not processes.leads:
        return follow(
            path,
            teacher,
            config=config,
            student=student,
            generator=generator,
            processes=processes,
        )
    transcription = _continued(
        directory, teacher, config=config, student=student, generator=generator, processes=processes
    )
    observer = observer or Observer()
    config = config.model_copy(update={"count_earlier": count_earlier or config.count_earlier})
    transcription.budget = _accounts(
        teacher, budget_file, config.budget_file, config=config, observer=observer
    )
    transcription.allowance = cap
    transcription.observer = observer
    return _reported(transcription.run())


def _reported(run: Run) -> Run:
    """A finished run, with a page about it beside it."""
    write_report(run.directory, run.certificate)
    return run


def follow(
    path: Path,
    teacher: Teacher,
    *,
    config: TranscriptionConfig,
    processes: Processes,
    mechanism: Mechanism | None = None,
    student: str | nn.Module | None = None,
    generator: str | nn.Module | None = None,
) -> Run:
    """Help process 0 to play a run, in another process; this one writes nothing.

    Args:
        path: of the run directory.
        teacher: this process's own.
        config: the run's.
        processes: all of them; joined here.
        mechanism: not calibrated, if it was given as an object.
        student: likewise.
        generator: likewise.

    Raises:
        StoppedError: process 0 ended the run.
        DpsdError: what went wrong here, which process 0 is told.
    """
    with processes:  # process 0 joins once the directory is there
        directory = RunDirectory.open(path)
        return _continued(
            directory,
            teacher,
            config=config,
            mechanism=mechanism,
            student=student,
            generator=generator,
            processes=processes,
        ).run()


def _continued(
    directory: RunDirectory,
    teacher: Teacher,
    *,
    config: TranscriptionConfig,
    processes: Processes,
    mechanism: Mechanism | None = None,
    student: str | nn.Module | None = None,
    generator: str | nn.Module | None = None,
) -> Transcription:
    """A run as its directory has it, without a budget, and with nobody to tell of it."""
    facts = directory.facts()
    if facts.get("teacher") != teacher.fingerprint:
        raise RunError(
            f"{directory.path} was started with another teacher ({facts.get('teacher')}, not "
            f"{teacher.fingerprint}); give that one, or start a new run"
        )
    mechanism = mechanism or config.mechanism(members=teacher.members)
    return Transcription(
        teacher=teacher,
        mechanism=directory.as_recorded(_calibrated(mechanism, config, teacher)),
        sources=build_mixture(config.sources, teacher.input_shape),
        recipe=config.recipe(),
        directory=directory,
        budget=None,
        observer=Unheard(),
        **_players(config, teacher, student, generator, processes),
    )


def _calibrated(mechanism: Mechanism, config: TranscriptionConfig, teacher: Teacher) -> Mechanism:
    if mechanism.is_calibrated:
        raise ConfigError(
            "the mechanism's noise level is set and a budget is given, which may contradict each "
            "other; leave the level open (RandomizedResponse(), Gaussian()) and dpsd calibrates it"
        )
    answers = [config.queries_in(index) for index in range(1, config.rounds + 1)]
    mechanism = mechanism.for_members(teacher.members)
    return calibrate(mechanism, config.budget(), Exposure.of_rounds(answers))


class _Players(TypedDict):
    """Who learns, and where."""

    student: nn.Module
    generator: nn.Module
    execution: Execution


def _players(
    config: TranscriptionConfig,
    teacher: Teacher,
    student: str | nn.Module | None,
    generator: str | nn.Module | None,
    processes: Processes,
) -> _Players:
    execution = Execution.of(config.device, config.precision, devices=processes.count)
    execution = replace(execution, processes=processes)
    built_student = build_classifier(
        student or config.student,
        input_shape=teacher.input_shape,
        num_classes=teacher.num_classes,
        seed=stream_seed(config.seed, 0, "student"),
    )
    built_generator = build_generator(
        generator or config.generator,
        input_shape=teacher.input_shape,
        seed=stream_seed(config.seed, 0, "generator"),
    )
    if not any(parameter.requires_grad for parameter in built_student.parameters()):
        raise ConfigError(
            f"student {_model_name(student or config.student)} has no trainable parameters"
        )
    return {
        "student": execution.place(built_student),
        "generator": execution.place(built_generator),
        "execution": execution,
    }


def _recorded(
    teacher: Teacher,
    mechanism: Mechanism,
    budget: Budget,
    student: str | nn.Module,
    generator: str | nn.Module,
    recipe: Recipe,
) -> TranscriptionConfig:
    """The configuration that says what was passed as objects."""
    settings: dict[str, Any] = {
        "teacher": teacher.location or teacher.description,
        "student": _model_name(student),
        "generator": _model_name(generator),
        "protect": mechanism.protects,
        "epsilon": budget.epsilon,
        "delta": budget.delta,
        "adjacency": budget.adjacency,
    }
    if teacher.location is not None:
        # All that it takes to load the same teacher from there, and to ask it the same way.
        settings |= {
            "teacher_weights": teacher.weights_location,
            "input_shape": teacher.input_shape,
            "num_classes": teacher.num_classes,
            # Each member of a committee has its own; an ensemble's file says.
            "scores": teacher.scores if teacher.members == 1 else "auto",
        }
        if teacher.normalization is not None:
            settings["mean"], settings["deviation"] = map(tuple, teacher.normalization)
    if isinstance(mechanism, RandomizedResponse):
        settings["candidates"] = mechanism.candidates
    elif isinstance(mechanism, ConfidentVotes):
        settings |= {
            "consensus": mechanism.threshold,
            "consensus_noise": mechanism.test_noise,
            "consensus_answered": mechanism.answered,
        }
    elif isinstance(mechanism, Gaussian):
        settings |= {name: getattr(mechanism, name) for name in OF_GRADIENTS}
    if isinstance(mechanism.noise, ReproducibleNoise):
        settings["reproducible_noise"] = mechanism.noise.seed
    return TranscriptionConfig(**settings, **recipe.model_dump())


def _model_name(model: str | nn.Module) -> str:
    return model if isinstance(model, str) else f"module:{type(model).__qualname__}"

"""Starting a transcription, resuming one, and taking part in one from another process.

:func:`transcribe` takes objects; :func:`start` builds the same objects from a configuration. Both
make a :class:`~dpsd.transcription.plan.Plan`, which
:class:`~dpsd.transcription.loop.Transcription` executes.

>>> import dpsd
>>> transcribe("teacher/", mechanism=dpsd.Gaussian(), budget=dpsd.Budget(epsilon=1.0), out="run")
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: teacher must be a dpsd.Teacher, not 'teacher/'; load it with dpsd.load...
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import nn

from dpsd.config.recipe import Recipe
from dpsd.config.transcription import TranscriptionConfig
from dpsd.devices.execution import Execution
from dpsd.devices.processes import Processes
from dpsd.errors import ConfigError, DpsdError, RunError
from dpsd.models.names import WAVELETS
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.targets import Budget
from dpsd.reporting.progress import watched
from dpsd.reporting.report import write_report
from dpsd.runs.directory import Run, RunDirectory
from dpsd.runs.observing import Observer, Unheard
from dpsd.teachers import Teacher
from dpsd.teachers.backbones import Backbone
from dpsd.transcription.admission import account_of, admit_new
from dpsd.transcription.launching import processes_for
from dpsd.transcription.loop import Transcription
from dpsd.transcription.plan import Plan
from dpsd.transcription.public import Images, stated


def transcribe(
    teacher: Teacher,
    *,
    mechanism: Mechanism,
    budget: Budget,
    out: str | Path,
    student: str | nn.Module | None = None,
    features: str | Backbone | None = None,
    generator: str | nn.Module = "dcgan",
    rounds: int | None = None,
    queries: int | None = None,
    recipe: Recipe | None = None,
    cap: Budget | None = None,
    budget_file: str | Path | None = None,
    count_earlier: bool = False,
    public: Images | None = None,
    probe: Images | None = None,
    observer: Observer | Literal["auto", "progress"] | None = "auto",
) -> Run:
    """Turn a teacher into a student through privatised answers to synthetic queries.

    Args:
        teacher: the teacher, from :func:`dpsd.load_teacher`.
        mechanism: the mechanism that privatises answers; its noise level is left open, and the
            budget determines it.
        budget: the privacy target.
        out: the run directory, which must be new or empty.
        student: the name of a model, ``package.module:factory``, or a module; by default ``cnn``,
            and for an ensemble ``scattering``, which learns most from few answers.
        features: what a student of the kind ``scattering`` is linear on: ``glyphs``, ``cifar100``,
            a ``.pt2`` or ``.onnx`` file, ``package.module:factory``, or ``wavelets``; by default,
            the teachers' own features. They must be public.
        generator: the name of a generator, ``package.module:factory``, or a module.
        rounds: the number of rounds, in place of the recipe's.
        queries: the number of queries per round, in place of the recipe's.
        recipe: everything else. Settings that it leaves open are fitted to the teacher, its images
            and the budget; see :meth:`Recipe.resolved`.
        cap: the most that all runs of this teacher together may spend; for a committee, it applies
            to each of its members.
        budget_file: a second file for the teacher's budget, in addition to the usual one, whose cap
            still applies; see :mod:`dpsd.runs.budgets`.
        count_earlier: whether to count for this teacher, from now on, what the budget beside it
            records of an earlier file. Set it if the teacher's file was changed or replaced.
        public: public unlabelled images of the domain, a source of queries: as the recipe names
            them, or a tensor, uint8 ``(N, C, H, W)``. The run publishes them.
        probe: public unlabelled images on which agreement with the teacher is estimated after every
            round, given in the same way; nothing is trained on them. ``"none"`` for no probe.
        observer: is notified of progress and warnings. ``"progress"`` shows, on standard error,
            bars and a line per round, as the command line does; ``"auto"`` does so in a terminal or
            a notebook and is silent elsewhere; ``None`` is silent. Warnings are always raised.

    Returns:
        The finished run.

    Raises:
        ConfigError: the arguments make no sense together.
        BudgetError: the privacy target cannot be met, or the run would exceed a cap.
        DataError: public images cannot be read, or have a shape that cannot be fitted.
        TeacherError: the teacher failed, or its answers are not class scores.
        RunError: the directory is not empty or cannot be written to.
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
    given = {"public": public, "probe": probe}
    plan = Plan.of(
        teacher,
        mechanism=mechanism,
        target=budget,
        recipe=Recipe(
            **(recipe or Recipe()).model_dump(exclude_unset=True) | changed | stated(given)
        ),
        given=given,
        student=student,
        features=features,
        generator=generator,
        charged={
            "cap": None if cap is None else str(cap),
            "budget_file": None if budget_file is None else str(Path(budget_file).absolute()),
            "count_earlier": count_earlier,
        },
    )
    return _started(plan, Path(out), observer=observer)


def start(
    config: TranscriptionConfig,
    teacher: Teacher,
    *,
    out: Path,
    features: Backbone | None = None,
    observer: Observer | None = None,
) -> Run:
    """Start a run from a configuration, with a teacher that was loaded from it.

    Args:
        config: the configuration. Its ``teacher`` says how the teacher was loaded; it is not loaded
            again.
        teacher: the teacher to ask.
        out: the run directory, which must be new or empty.
        features: the backbone that the configuration names, if it is loaded already.
        observer: is notified of progress and warnings.

    Raises:
        ConfigError: settings make no sense together or have no effect.
        DpsdError: as for :func:`transcribe`.
    """
    config.privacy.require_effect(members=teacher.members)
    return _started(_planned(config, teacher, features=features), out, observer=observer)


def _planned(
    config: TranscriptionConfig,
    teacher: Teacher,
    *,
    student: str | nn.Module | None = None,
    generator: str | nn.Module | None = None,
    features: str | Backbone | None = None,
    given: Mapping[str, Images | None] | None = None,
) -> Plan:
    """The plan that a configuration describes; models and images may be given as objects."""
    privacy = config.privacy
    return Plan.of(
        teacher,
        mechanism=privacy.mechanism(members=teacher.members),
        target=privacy.budget(),
        recipe=config.recipe,
        student=student or config.student,
        features=features or config.features,
        generator=generator or config.generator,
        charged={name: getattr(privacy, name) for name in ("cap", "budget_file", "count_earlier")},
        given=given,
    )


def _started(
    plan: Plan, out: Path, *, observer: Observer | Literal["auto", "progress"] | None
) -> Run:
    """Begin a run, or take part in one that process 0 begins."""
    config, teacher = plan.config(), plan.teacher
    processes = processes_for(
        config, teacher, run=out, student=plan.student, generator=plan.generator
    )
    if not processes.leads:
        with processes:  # process 0 joins once the directory exists
            return _helped(RunDirectory.open(out), plan, processes)
    with watched(observer, rounds=plan.recipe.rounds) as shown:
        return _reported(_begun(plan, out, processes=processes, observer=shown))


def _begun(plan: Plan, out: Path, *, processes: Processes, observer: Observer) -> Run:
    """Execute a run that is new, in the process that leads it."""
    # Whatever makes no sense is refused before anything is written or spent.
    config, teacher = plan.config(), plan.teacher
    account = account_of(
        teacher,
        config.privacy.budget_file,
        target=plan.target,
        count_earlier=config.privacy.count_earlier,
        observer=observer,
    )
    identity = secrets.token_hex(8)
    admit_new(plan, account, identity=identity, cap=config.privacy.limit())
    for warning in plan.warnings():
        observer.warn(warning)
    for note in teacher.notes:
        observer.warn(f"{teacher.description}: {note}")
    execution = _execution(plan.recipe, processes)
    directory = RunDirectory(out)
    transcription = Transcription(
        plan, directory, execution=execution, account=account, observer=observer
    )
    transcription.rehearse()
    facts = plan.facts(identity) | transcription.querying.facts()
    RunDirectory.create(out, config, facts, features=plan.features)
    try:
        return transcription.run()
    except DpsdError:
        directory.discard()  # otherwise the same command would find its directory taken
        raise


def _reported(run: Run) -> Run:
    """Write the report of a finished run, and return the run."""
    write_report(run.directory, run.certificate)
    return run


def _execution(recipe: Recipe, processes: Processes) -> Execution:
    execution = Execution.of(recipe.device, recipe.precision, devices=processes.count)
    return replace(execution, processes=processes)


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
    public: Images | None = None,
    probe: Images | None = None,
    observer: Observer | Literal["auto", "progress"] | None = "auto",
) -> Run:
    """Resume a run where it stopped; earlier releases are read again at no cost.

    Args:
        path: the run directory.
        teacher: the teacher, which must be the same as before.
        student: the student; needed again only if it was given as a module.
        generator: the generator; needed again only if it was given as a module.
        cap: the most that the run may spend, even beyond its target, where answers were lost. It
            also replaces the run's earlier cap on what all runs of this teacher together may spend.
        budget_file: the file in which the teacher's budget continues, in addition to the usual one
            and to the file that the run was given, if that still exists.
        count_earlier: as for :func:`transcribe`.
        devices: the number of processes that continue the run; by default, as many as started it.
        public: the public images; needed again only if they were given as a tensor.
        probe: the images of the probe; needed again only if they were given as a tensor.
        observer: as for :func:`transcribe`.

    Raises:
        BudgetError: the rest of the run would exceed a cap.
        RunError: there is no run, it is damaged, or it belongs to another teacher.
    """
    path = Path(path)
    directory = RunDirectory.open(path)
    config = directory.config()
    if devices is not None:
        config = config.changed(devices=devices)
    given = {"public": public, "probe": probe}
    plan = _continued(
        directory, teacher, config=config, student=student, generator=generator, given=given
    )
    processes = processes_for(config, teacher, run=path, student=student, generator=generator)
    if not processes.leads:
        with processes:
            return _helped(directory, plan, processes)
    finished = len(directory.metrics())
    with watched(observer, rounds=plan.recipe.rounds, finished=finished) as shown:
        account = account_of(
            teacher,
            budget_file,
            config.privacy.budget_file,
            target=plan.target,
            count_earlier=count_earlier or config.privacy.count_earlier,
            observer=shown,
        )
        transcription = Transcription(
            plan,
            directory,
            execution=_execution(plan.recipe, processes),
            account=account,
            allowance=cap,
            observer=shown,
        )
        transcription.rehearse()
        return _reported(transcription.run())


def follow(
    path: Path,
    teacher: Teacher,
    *,
    config: TranscriptionConfig,
    processes: Processes,
    student: str | nn.Module | None = None,
    generator: str | nn.Module | None = None,
) -> Run:
    """Take part in process 0's run from another process, which writes nothing.

    Args:
        path: the run directory.
        teacher: the teacher of this process.
        config: the configuration of the run.
        processes: all processes, which this one joins here.
        student: the student that process 0 was given, if any.
        generator: the generator that process 0 was given, if any.

    Raises:
        StoppedError: process 0 ended the run.
        DpsdError: something went wrong here; process 0 is notified.
    """
    with processes:  # process 0 joins once the directory exists
        directory = RunDirectory.open(path)
        plan = _continued(directory, teacher, config=config, student=student, generator=generator)
        return _helped(directory, plan, processes)


def _continued(
    directory: RunDirectory,
    teacher: Teacher,
    *,
    config: TranscriptionConfig,
    student: str | nn.Module | None,
    generator: str | nn.Module | None,
    given: Mapping[str, Images | None] | None = None,
) -> Plan:
    """The plan of a run that has begun.

    Raises:
        RunError: the run was started with another teacher, other features or other public images,
            or its mechanism cannot be rebuilt.
    """
    facts = directory.facts()
    fingerprint = facts.get("teacher")
    if fingerprint != teacher.fingerprint:
        raise RunError(
            f"{directory.path} was started with another teacher ({fingerprint}, not "
            f"{teacher.fingerprint}); give the teacher it was started with, or start a new run"
        )
    # Settings that are not stored were none; nothing is open any more for the recipe to resolve.
    config = config.model_copy(update={"recipe": Recipe(**config.recipe.model_dump())})
    plan = _planned(
        config,
        teacher,
        student=student,
        generator=generator,
        features=directory.features() or WAVELETS,
        given=given,
    )
    if plan.stated_features() != facts.get("features", {}):
        raise RunError(
            f"{directory.path} was started with a teacher of other features; give the teacher that "
            "it was started with, or start a new run"
        )
    if plan.public.facts() != facts.get("public_images", {}):
        raise RunError(
            f"{directory.path} was started with other public images: put back what "
            f"{' and '.join(config.recipe.stated_images)} held, or start a new run"
        )
    return replace(plan, mechanism=directory.as_recorded(plan.mechanism))


def _helped(directory: RunDirectory, plan: Plan, processes: Processes) -> Run:
    """Do this process's share of a run, and return the run; process 0 reports on it."""
    execution = _execution(plan.recipe, processes)
    transcription = Transcription(plan, directory, execution=execution, observer=Unheard())
    transcription.rehearse()
    return transcription.run()

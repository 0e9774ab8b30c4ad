"""Starting a transcription, continuing one, and helping one from another process.

:func:`transcribe` plays objects; :func:`start` turns a configuration into the same objects. Both
make a :class:`~dpsd.transcription.plan.Plan`, which
:class:`~dpsd.transcription.loop.Transcription` plays.

>>> import dpsd
>>> transcribe("teacher/", mechanism=dpsd.Gaussian(), budget=dpsd.Budget(epsilon=1.0), out="run")
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: teacher must be a dpsd.Teacher, not 'teacher/'; load it with dpsd.load...
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from torch import nn

from dpsd.config.recipe import Recipe
from dpsd.config.transcription import TranscriptionConfig
from dpsd.devices.execution import Execution
from dpsd.devices.processes import Processes
from dpsd.errors import ConfigError, DpsdError, RunError
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.targets import Budget
from dpsd.reporting.html import write_report
from dpsd.runs.directory import Run, RunDirectory
from dpsd.runs.observing import Observer, Unheard
from dpsd.teachers import Teacher
from dpsd.transcription.admission import account_of, admit_new
from dpsd.transcription.launching import processes_for
from dpsd.transcription.loop import Transcription
from dpsd.transcription.plan import Plan


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
        recipe: everything else. What it leaves open suits the teacher, its images and the budget;
            see :meth:`Recipe.resolved`.
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
    plan = Plan.of(
        teacher,
        mechanism=mechanism,
        target=budget,
        recipe=Recipe(**(recipe or Recipe()).model_dump(exclude_unset=True) | changed),
        student=student,
        generator=generator,
        charged={
            "cap": None if cap is None else str(cap),
            "budget_file": None if budget_file is None else str(Path(budget_file).absolute()),
            "count_earlier": count_earlier,
        },
    )
    return _started(plan, Path(out), observer=observer)


def start(
    config: TranscriptionConfig, teacher: Teacher, *, out: Path, observer: Observer | None = None
) -> Run:
    """Start a run from a configuration, of a teacher that was loaded as it says.

    Args:
        config: whose ``teacher`` says how the teacher was loaded, which is not done again.
        teacher: is asked.
        out: the run directory; must be new or empty.
        observer: is told how it goes.

    Raises:
        ConfigError: settings that make no sense together, or have no effect.
        DpsdError: as for :func:`transcribe`.
    """
    config.privacy.require_effect(members=teacher.members)
    return _started(_planned(config, teacher), out, observer=observer)


def _planned(
    config: TranscriptionConfig,
    teacher: Teacher,
    *,
    student: str | nn.Module | None = None,
    generator: str | nn.Module | None = None,
) -> Plan:
    """The plan that a configuration stands for; some of it may have been given as objects."""
    privacy = config.privacy
    return Plan.of(
        teacher,
        mechanism=privacy.mechanism(members=teacher.members),
        target=privacy.budget(),
        recipe=config.recipe,
        student=student or config.student,
        generator=generator or config.generator,
        charged={name: getattr(privacy, name) for name in ("cap", "budget_file", "count_earlier")},
    )


def _started(plan: Plan, out: Path, *, observer: Observer | None) -> Run:
    """Begin a run, or help another process that does."""
    config, teacher = plan.config(), plan.teacher
    processes = processes_for(
        config, teacher, run=out, student=plan.student, generator=plan.generator
    )
    if not processes.leads:
        with processes:  # process 0 joins once the directory is there
            return _helped(RunDirectory.open(out), plan, processes)
    # What makes no sense is refused before anything is written or spent.
    observer = observer or Observer()
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
    execution = _execution(plan.recipe, processes)
    directory = RunDirectory(out)
    transcription = Transcription(
        plan, directory, execution=execution, account=account, observer=observer
    )
    RunDirectory.create(out, config, plan.facts(identity))
    try:
        return _reported(transcription.run())
    except DpsdError:
        directory.discard()  # else the same command would find its place taken
        raise


def _reported(run: Run) -> Run:
    """A finished run, with a page about it beside it."""
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
        config = config.changed(devices=devices)
    plan = _continued(directory, teacher, config=config, student=student, generator=generator)
    processes = processes_for(config, teacher, run=path, student=student, generator=generator)
    if not processes.leads:
        with processes:
            return _helped(directory, plan, processes)
    observer = observer or Observer()
    account = account_of(
        teacher,
        budget_file,
        config.privacy.budget_file,
        target=plan.target,
        count_earlier=count_earlier or config.privacy.count_earlier,
        observer=observer,
    )
    transcription = Transcription(
        plan,
        directory,
        execution=_execution(plan.recipe, processes),
        account=account,
        allowance=cap,
        observer=observer,
    )
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
    """Help process 0 to play a run, in another process; this one writes nothing.

    Args:
        path: of the run directory.
        teacher: this process's own.
        config: the run's.
        processes: all of them; joined here.
        student: as process 0 was given it, if it was.
        generator: the same.

    Raises:
        StoppedError: process 0 ended the run.
        DpsdError: what went wrong here, which process 0 is told.
    """
    with processes:  # process 0 joins once the directory is there
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
) -> Plan:
    """The plan of a run that has begun.

    Raises:
        RunError: it was started with another teacher, or its mechanism cannot be made again.
    """
    fingerprint = directory.facts().get("teacher")
    if fingerprint != teacher.fingerprint:
        raise RunError(
            f"{directory.path} was started with another teacher ({fingerprint}, not "
            f"{teacher.fingerprint}); give that one, or start a new run"
        )
    plan = _planned(config, teacher, student=student, generator=generator)
    return replace(plan, mechanism=directory.as_recorded(plan.mechanism))


def _helped(directory: RunDirectory, plan: Plan, processes: Processes) -> Run:
    """The run, to which this process gave its share; process 0 tells of it."""
    execution = _execution(plan.recipe, processes)
    return Transcription(plan, directory, execution=execution, observer=Unheard()).run()

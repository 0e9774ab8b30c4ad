"""Admission: which accounts a run is charged to, and whether its target and caps allow it."""

from __future__ import annotations

import math
from pathlib import Path

from dpsd.errors import BudgetError, ConfigError, Setting
from dpsd.privacy.accounting import Spending, format_epsilon, spent_under
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.targets import Budget, Exposure
from dpsd.runs.budgets import budget_of, count_uncounted
from dpsd.runs.directory import RunDirectory
from dpsd.runs.observing import Observer
from dpsd.runs.reconciliation import complete_budgets, complete_ledger
from dpsd.shell import command_line
from dpsd.teachers import Teacher
from dpsd.transcription.plan import Plan


def account_of(
    teacher: Teacher,
    *paths: str | Path | None,
    target: Budget,
    count_earlier: bool,
    observer: Observer,
) -> Accounts | None:
    """Return the accounts that a run is charged to.

    A budget beside a teacher may record queries to earlier content of the teacher's file. They are
    counted if ``count_earlier`` says so; otherwise the observer is warned of them. A budget file
    that the user names may serve several teachers, so its records of others raise no warning. The
    observer is also warned of teachers that have no budget, as nothing adds up what they are asked.

    Args:
        teacher: the teacher of the run.
        paths: budget files in addition to those in the usual places.
        target: the run's privacy target, at whose δ and adjacency the warning states ε.
        count_earlier: whether to count what was asked before the teacher's file changed.
        observer: receives the warnings.

    Raises:
        ConfigError: the teacher is a service, and no budget file is named.
    """
    if not any(paths) and (of_services := [t for t in teacher.charged if t.requires_budget_file]):
        raise ConfigError(
            f"{of_services[0].description} shows no content under which its budget could be kept: "
            "say with ",
            *(Setting("budget_file"), " where to keep it, as in budgets.jsonl"),
        )
    accounts = budget_of(teacher, *paths)
    if uncharged := _uncharged(teacher, accounts):
        observer.warn(uncharged)
    if accounts is None:
        return None
    if count_earlier:
        count_uncounted(accounts)
    elif found := [other for _, other in accounts.uncounted() if other.is_all]:
        more = f", and so do {len(found) - 1} others" if len(found) > 1 else ""
        observer.warn(
            f"{found[0].describe(delta=target.delta, adjacency=target.adjacency)}{more}. If the "
            "teacher's file was changed or replaced since, count them with --count-earlier "
            "(count_earlier=True)"
        )
    return accounts


def _uncharged(teacher: Teacher, accounts: Accounts | None) -> str | None:
    """Return the warning that some teachers have no budget, if that is so."""
    names = [teacher.description] if accounts is None else accounts.unknown
    if not names:
        return None
    more = f" and {len(names) - 1} more" * (len(names) > 1)
    has = "have" if len(names) > 1 else "has"
    return (
        f"{names[0]}{more} {has} no budget, so nothing adds up what this run and others spend: a "
        "function has no content to keep a budget under. Name a file for the budget with "
        "--budget-file (budget_file=)"
    )


def admit_new(plan: Plan, account: Accounts | None, *, identity: str, cap: Budget | None) -> None:
    """Refuse a run that has not begun if it would exceed its teachers' caps.

    Raises:
        ConfigError: a cap is given, but nothing identifies a teacher, so its spending is unknown.
        BudgetError: the run would exceed a cap.
    """
    if cap is not None and (account is None or account.unknown):
        which = account.unknown[0] if account is not None else "this teacher"
        raise ConfigError(
            *("a ", Setting("cap"), f" needs to know what {which} has spent, but nothing tells "),
            *("it from another: say with ", Setting("budget_file"), " where its budget is"),
        )
    if account is not None:
        _ask(account, plan, plan.rounds, identity=identity, cap=cap)


def admit(
    plan: Plan,
    directory: RunDirectory,
    *,
    account: Accounts | None,
    allowance: Budget | None,
    observer: Observer,
    is_over: bool = False,
) -> None:
    """Check that the rest of a run may be spent, say what it will take, and open its ledger.

    Args:
        plan: the plan of the run.
        directory: the run directory, which this process has locked.
        account: the accounts of the run's teachers, which this process has locked too.
        allowance: a cap that allows the run to exceed its target.
        observer: is told what the rest of the run will take, where a teacher can say so.
        is_over: whether the run stopped early and asks nothing more.

    Raises:
        BudgetError: the run would exceed its target or a cap.
        ConfigError: a setting of the teacher does not allow that much.
        TeacherError: the teacher cannot say what it will take, as it does not answer.
    """
    left = [
        (index, queries)
        for index, queries in plan.rounds
        if not (is_over or directory.releases_path(index).exists())
    ]
    if account is not None:
        complete_budgets(directory, account)
    if left:
        _refuse_to_overspend(plan, directory, left, account=account, allowance=allowance)
        if account is not None:
            cap = allowance or directory.config().privacy.limit()
            _ask(account, plan, left, identity=directory.identity, cap=cap)
        _announce(plan, left, observer=observer)
    earlier = None if account is None else account.history(delta=plan.target.delta)
    directory.open_ledger(earlier=earlier)
    if account is not None:
        complete_ledger(directory, account, mechanism=plan.mechanism)


def _announce(plan: Plan, left: list[tuple[int, int]], *, observer: Observer) -> None:
    """Tell the observer what the rest of a run will take, where a teacher can say so."""
    answers = sum(queries for _, queries in left)
    for one in plan.teacher.charged:
        if said := one.forecast(answers):
            observer.notice(said)


def _ask(
    account: Accounts,
    plan: Plan,
    planned: list[tuple[int, int]],
    *,
    identity: str,
    cap: Budget | None,
) -> None:
    account.admit(
        run=identity,
        mechanism=plan.mechanism,
        planned=planned,
        delta=plan.target.delta,
        cap=cap,
    )


def _refuse_to_overspend(
    plan: Plan,
    directory: RunDirectory,
    left: list[tuple[int, int]],
    *,
    account: Accounts | None,
    allowance: Budget | None,
) -> None:
    """Refuse a run that answers paid for and lost would push over what it was calibrated to."""
    own = directory.reservations()
    # The accounts record everything that the ledger does, and possibly more.
    recorded = own if account is None else account.asked(directory.identity)
    asked = [(entry["round"], entry["answers"]) for entry in recorded]
    if not asked:
        return
    target = allowance or plan.target
    whole = Spending(
        event=plan.mechanism.event(),
        mean_event=plan.mechanism.mean_event(),
        exposure=Exposure.of_asked([*asked, *left]),
    )
    needed = spent_under([whole], target.adjacency, delta=target.delta)
    if not target.is_exceeded_by(needed):
        return
    path, kind = directory.path, target.adjacency.value
    copy = ", or asked by a copy of it" if len(asked) > len(own) else ""
    limit = "cap" if allowance else "target"
    # A cap limits all runs of the teacher, so one that allows this run must allow for the others.
    total = needed
    if account is not None:
        total = account.needed(
            directory.identity, mechanism=plan.mechanism, planned=left, limit=target
        )
    allowing = f"{math.ceil(max(needed, total) * 1e4) / 1e4!r},{target.delta:g},{kind}"
    resume = command_line("dpsd", "transcribe", "--resume", path, "--cap", allowing)
    if directory.objects:
        resume = f"{directory.resuming}, with cap=dpsd.Budget.parse({allowing!r})"
    otherwise = "No round is finished, so there is no student yet"
    if directory.metrics():
        evaluate, export = (command_line("dpsd", name, path) for name in ("evaluate", "export"))
        otherwise = (
            f"Or leave the run as it is: {evaluate} and {export} use the student of its last round"
        )
    raise BudgetError(
        f"{path}: answers were paid for and lost in an interruption or an error{copy}; asked "
        f"again, the run would spend ε = {format_epsilon(needed)} under {kind!r} at δ = "
        f"{target.delta:g}, above its {limit} {target.epsilon:g}. To allow that: {resume}. "
        f"{otherwise}"
    )

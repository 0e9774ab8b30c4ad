"""Making a client from its teacher and the privacy that its owner demands."""

from __future__ import annotations

from pathlib import Path

from dpsd.config.privacy import PrivacySettings
from dpsd.devices.execution import Execution
from dpsd.federated.client.plan import AnswerPlan
from dpsd.federated.client.respondent import Respondent
from dpsd.runs.observing import Observer
from dpsd.teachers import Teacher
from dpsd.transcription.admission import account_of


def new_respondent(
    teacher: Teacher,
    privacy: PrivacySettings,
    *,
    plan: AnswerPlan,
    directory: Path,
    sharing: int | None,
    observer: Observer,
    federation: str | None = None,
    execution: Execution | None = None,
) -> Respondent:
    """Return a client that answers from a teacher, whose budget it is charged to.

    Args:
        teacher: the client's teacher, or ensemble of teachers.
        privacy: the privacy that its owner demands, of whoever sees its releases.
        plan: what is answered at most.
        directory: the client's directory: a new or empty one, or that of this client.
        sharing: where the server is trusted to add up, the fewest clients that share the noise.
        observer: is told what happens, for the client's own operator.
        federation: the identity of the federation; by default, of the first to greet the client.
        execution: the device that images are moved to; by default, the CPU.

    Raises:
        ConfigError: settings make no sense together.
        BudgetError: the target cannot be met, or the plan would exceed the cap.
        TeacherError: the teacher does not answer public noise.
        DpsdError: the directory holds something else, or its records contradict each other.
    """
    privacy.require_effect(members=teacher.members)
    account = account_of(
        teacher,
        privacy.budget_file,
        target=privacy.budget(),
        count_earlier=privacy.count_earlier,
        observer=observer,
    )
    return Respondent(
        teacher,
        mechanism=privacy.mechanism(members=teacher.members, sharing=sharing),
        target=privacy.budget(),
        plan=plan,
        directory=directory,
        account=account,
        budget_file=privacy.budget_file,
        cap=privacy.limit(),
        federation=federation,
        execution=execution,
        observer=observer,
    )

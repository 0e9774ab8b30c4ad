"""Starting a federation on its server, and resuming one where it stopped."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from dpsd.config.federation import FederationConfig
from dpsd.config.recipe import Recipe
from dpsd.devices.execution import Execution
from dpsd.errors import RunError
from dpsd.federated.exchange import Exchange
from dpsd.federated.server.federation import FederatedRun, Federation
from dpsd.federated.server.plan import FederationPlan
from dpsd.reporting.federations import write_federation_report
from dpsd.reporting.progress import watched
from dpsd.runs.federation import FederationDirectory
from dpsd.runs.observing import Observer
from dpsd.teachers import Teacher
from dpsd.transcription.public import Images

#: The settings that may change when a federation is resumed: when its server waits.
CHANGEABLE = ("clients", "at_least", "deadline", "patience")


def begin(
    config: FederationConfig,
    out: str | Path,
    *,
    student: str | nn.Module | None = None,
    generator: str | nn.Module | None = None,
    public: Images | None = None,
    simulated: bool = False,
    teachers: Sequence[Teacher] = (),
) -> tuple[FederationPlan, FederationDirectory]:
    """Plan a federation, and create the directory of its server, which has an identity.

    Args:
        config: the configuration.
        out: the directory of the server, which must be new or empty.
        student: the student, in place of the configuration's.
        generator: the generator, in place of the configuration's.
        public: public unlabelled images of the domain, a source of queries: as the recipe names
            them, or a tensor, uint8 ``(N, C, H, W)``.
        simulated: whether all clients are on this machine, and end with the server.
        teachers: the teachers of clients on this machine, whose training data are refused as public
            images.

    Raises:
        ConfigError: the settings make no sense together or with the teachers.
        DataError: public images cannot be read.
        RunError: the directory is not empty or cannot be written to.
    """
    plan = FederationPlan.of(
        config,
        student=student,
        generator=generator,
        given={"public": public},
        simulated=simulated,
        teachers=teachers,
    )
    identity = secrets.token_hex(8)
    facts = plan.facts(identity)
    directory = FederationDirectory.create(Path(out), plan.config(), facts, features=plan.features)
    directory.begin()
    return plan, directory


def begin_again(
    path: str | Path,
    *,
    student: str | nn.Module | None = None,
    generator: str | nn.Module | None = None,
    public: Images | None = None,
    teachers: Sequence[Teacher] = (),
    **changed: Any,
) -> tuple[FederationPlan, FederationDirectory]:
    """Return the plan and the directory of a federation that has begun.

    Args:
        path: the directory of the server.
        student: the student; needed again only if it was given as a module.
        generator: the generator; needed again only if it was given as a module.
        public: the public images; needed again only if they were given as a tensor.
        teachers: as for :func:`begin`.
        changed: other values of the settings :data:`CHANGEABLE`.

    Raises:
        ConfigError: the public images are what a teacher was trained on.
        RunError: there is no federation, it is damaged, or its public images were changed.
    """
    if unknown := changed.keys() - set(CHANGEABLE):
        raise TypeError(f"{', '.join(sorted(unknown))} cannot change; see CHANGEABLE")
    directory = FederationDirectory.open(path)
    config = directory.settings().changed(**changed)
    # Settings that are not stored were none; nothing is open any more for the recipe to resolve.
    config = config.model_copy(update={"recipe": Recipe(**config.recipe.model_dump())})
    plan = FederationPlan.of(
        config,
        student=student,
        generator=generator,
        given={"public": public},
        features=directory.features(),
        teachers=teachers,
    )
    if plan.public.facts() != directory.facts().get("public_images", {}):
        raise RunError(
            f"{directory.path} was started with other public images: put back what "
            f"{' and '.join(config.recipe.stated_images)} held, or start a new federation"
        )
    return plan, directory


def execute(
    plan: FederationPlan,
    directory: FederationDirectory,
    *,
    exchange: Exchange,
    observer: Observer | Literal["auto", "progress"] | None = "auto",
) -> FederatedRun:
    """Execute all remaining rounds of a federation; what was stored is not asked again.

    Args:
        plan: the plan of the federation.
        directory: the directory of its server.
        exchange: carries requests to clients and their replies back.
        observer: as for :func:`dpsd.transcribe`.

    Raises:
        RunError: too few clients answered a round, or a file was damaged; what was stored is kept.
    """
    finished = len(directory.metrics())
    with watched(observer, rounds=plan.recipe.rounds, finished=finished) as shown:
        execution = Execution.of(plan.recipe.device, plan.recipe.precision)
        federation = Federation(
            plan, directory, exchange=exchange, execution=execution, observer=shown
        )
        run = federation.run()
    write_federation_report(directory)
    return run


def federate(
    config: FederationConfig,
    *,
    exchange: Exchange,
    out: str | Path,
    observer: Observer | Literal["auto", "progress"] | None = "auto",
    **begun: Any,
) -> FederatedRun:
    """Turn the teachers of many clients into one student, through what the clients release.

    Args:
        config: the configuration.
        exchange: carries requests to clients and their replies back.
        out: the directory of the server, which must be new or empty.
        observer: as for :func:`dpsd.transcribe`.
        begun: the other arguments of :func:`begin`.

    Raises:
        ConfigError: the settings make no sense together.
        DataError: public images cannot be read.
        RunError: the directory is not empty or cannot be written to, or too few clients answered.
    """
    plan, directory = begin(config, out, **begun)
    return execute(plan, directory, exchange=exchange, observer=observer)

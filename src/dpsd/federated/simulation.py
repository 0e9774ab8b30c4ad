"""A federation whose clients are all on this machine: for trying settings before hospitals meet.

Every client is what it would be elsewhere: it has a folder of its own with a ledger and a
certificate, is charged to its teacher's budget, and speaks to the server by Flower's messages.

    OUT/simulation.toml    the teachers, and the privacy that each client demands
    OUT/clients/NAME/      the folder of each client
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from dpsd.config.base import read_toml, to_toml
from dpsd.config.federation import FederationConfig, SimulationSettings, require_backend
from dpsd.config.recipe import Recipe
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError, DpsdError
from dpsd.federated.client.plan import AnswerPlan
from dpsd.federated.client.respondent import Respondent
from dpsd.federated.client.starting import new_respondent
from dpsd.federated.exchange import Exchange
from dpsd.federated.flower.in_process import simulate
from dpsd.federated.server.federation import FederatedRun
from dpsd.federated.server.plan import FederationPlan
from dpsd.federated.server.starting import begin, begin_again, execute
from dpsd.runs.federation import FederationDirectory
from dpsd.runs.observing import Observer
from dpsd.storage.files import write_text
from dpsd.teachers import Teacher, load_teacher

#: The file that says which teachers answer, and for which privacy.
SIMULATION_FILE = "simulation.toml"


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A federation on one machine, ready to run.

    Args:
        plan: the plan of the server.
        directory: the directory of the server, in which the clients' folders are.
        respondents: the clients.
    """

    plan: FederationPlan
    directory: FederationDirectory
    respondents: Sequence[Respondent]

    def run(
        self, *, observer: Observer | None = None, threads: int = 1, backend: str = "in-process"
    ) -> FederatedRun:
        """Execute all remaining rounds.

        Args:
            observer: is notified of progress and warnings.
            threads: the number of clients that answer at the same time in this process.
            backend: where clients answer: one of :data:`~dpsd.config.federation.BACKENDS`.

        Raises:
            ConfigError: the backend is not installed.
            RunError: too few clients answered a round; what was stored is kept.
        """
        require_backend(backend)
        runs: list[FederatedRun] = []

        def serve(exchange: Exchange) -> None:
            runs.append(execute(self.plan, self.directory, exchange=exchange, observer=observer))

        clients = self.respondents
        if backend == "ray":
            from dpsd.federated.flower import on_ray

            on_ray.simulate(serve, partial(client_of, self.directory.path), len(clients))
        else:
            simulate(serve, clients.__getitem__, len(clients), threads=threads)
        return runs[0]


def new_simulation(
    settings: SimulationSettings,
    out: Path,
    *,
    configured: Callable[[Teacher], FederationConfig],
    observer: Observer,
    device: str = "auto",
) -> Simulation:
    """Prepare a federation of teachers on this machine.

    Args:
        settings: the teachers, and the privacy that each client demands.
        out: the directory of the server, which must be new or empty.
        configured: returns the configuration of the server, given one of the teachers.
        observer: is notified of warnings.
        device: where teachers answer, as the recipe names it.

    Raises:
        ConfigError: the teachers take different images or classes, or settings make no sense.
        BudgetError: the privacy target cannot be met, or a client would exceed a cap.
        TeacherError: a teacher cannot be loaded.
        RunError: the directory is not empty or cannot be written to.
    """
    teachers = _loaded(settings.teachers, device)
    for place, teacher in zip(settings.teachers, teachers, strict=True):
        first, own = ((one.input_shape, one.num_classes) for one in (teachers[0], teacher))
        if first != own:
            raise ConfigError(
                f"{place} takes images {own[0]} of {own[1]} classes, and {settings.teachers[0]} "
                f"takes {first[0]} of {first[1]}: the teachers of a federation must agree"
            )
    plan, directory = begin(configured(teachers[0]), out, simulated=True, teachers=teachers)
    try:
        respondents = _respondents(settings, teachers, plan.recipe, directory, observer)
        write_text(directory.path / SIMULATION_FILE, to_toml(settings))
    except DpsdError:  # otherwise the same command would find its directory taken
        shutil.rmtree(directory.path / "clients", ignore_errors=True)
        directory.abandon()
        raise
    return Simulation(plan=plan, directory=directory, respondents=respondents)


def resumed_simulation(path: Path, *, observer: Observer, **changed: Any) -> Simulation:
    """Prepare a simulation that was interrupted to go on.

    Args:
        path: the directory of the server.
        observer: is notified of warnings.
        changed: as for :func:`.begin_again`.

    Raises:
        RunError: there is no simulation, or its files were damaged.
        TeacherError: a teacher cannot be loaded.
    """
    recipe = FederationDirectory.open(path).recipe  # refuses what is no federation, or was changed
    settings = SimulationSettings(**read_toml(path / SIMULATION_FILE))
    teachers = _loaded(settings.teachers, recipe.device)
    plan, directory = begin_again(path, teachers=teachers, **changed)
    respondents = _respondents(settings, teachers, plan.recipe, directory, observer)
    return Simulation(plan=plan, directory=directory, respondents=respondents)


def answer_plan(recipe: Recipe) -> AnswerPlan:
    """The plan of a client that answers everything that a server with this recipe asks.

    >>> answer_plan(Recipe(rounds=3, queries=100, first_queries=201))
    AnswerPlan(rounds=3, queries=134)
    """
    asked = [recipe.queries_in(number) for number in range(1, recipe.rounds + 1)]
    return AnswerPlan(rounds=recipe.rounds, queries=math.ceil(sum(asked) / len(asked)))


@cache
def client_of(path: Path, number: int) -> Respondent:
    """Return a client of a simulation, made from its directory once in a process.

    Args:
        path: the directory of the server.
        number: the client's number, from 0.

    Raises:
        RunError: there is no such client, or its files were damaged.
        TeacherError: its teacher cannot be loaded.
    """
    settings = SimulationSettings(**read_toml(path / SIMULATION_FILE))
    directory = FederationDirectory.open(path)
    (teacher,) = _loaded(settings.teachers[number : number + 1], directory.recipe.device)
    return _respondent(settings, number, teacher, directory.recipe, directory, Observer())


def _loaded(places: Sequence[str], device: str) -> list[Teacher]:
    """Load teachers onto the device that the recipe names, an accelerator if there is one."""
    found = str(Execution.of(device).device)
    return [load_teacher(place, device=found) for place in places]


def _respondents(
    settings: SimulationSettings,
    teachers: Sequence[Teacher],
    recipe: Recipe,
    directory: FederationDirectory,
    observer: Observer,
) -> list[Respondent]:
    return [
        _respondent(settings, number, teacher, recipe, directory, observer)
        for number, teacher in enumerate(teachers)
    ]


def _respondent(
    settings: SimulationSettings,
    number: int,
    teacher: Teacher,
    recipe: Recipe,
    directory: FederationDirectory,
    observer: Observer,
) -> Respondent:
    return new_respondent(
        teacher,
        settings.privacy,
        plan=answer_plan(recipe),
        directory=directory.path / "clients" / f"client-{number + 1}",
        sharing=directory.settings().federation.trusted_aggregator,
        execution=Execution.of(recipe.device, recipe.precision),
        observer=observer,
    )

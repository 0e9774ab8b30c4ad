"""Executing the commands of ``dpsd federate``, and reporting their progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import typer

from dpsd.cli.console import STATUS, grid, hint, say, show, shown_warnings, warn
from dpsd.cli.errors import INTERRUPTED
from dpsd.cli.progress import ProgressObserver, QuietObserver
from dpsd.cli.results import show_written
from dpsd.config.federation import FederationConfig, SimulationSettings
from dpsd.errors import WriteError
from dpsd.federated.exchange import Exchange
from dpsd.federated.flower.identities import read_public_key
from dpsd.federated.flower.invitations import Fact, Invitation, invitation_text, read_invitation
from dpsd.federated.flower.places import ServerPlace
from dpsd.federated.flower.processes import require_free
from dpsd.federated.flower.proxies import PROXIES, proxy_configuration
from dpsd.federated.flower.registering import register
from dpsd.federated.flower.serving import serve
from dpsd.federated.parts import ClientTeachers
from dpsd.federated.server.federation import FederatedRun
from dpsd.federated.server.plan import FederationPlan
from dpsd.federated.server.starting import begin, begin_again, execute
from dpsd.federated.simulation import (
    Simulation,
    answer_plan,
    new_simulation,
    resumed_simulation,
)
from dpsd.reporting.federations import stated_epsilon
from dpsd.runs.federation import FederationDirectory
from dpsd.runs.observing import Observer
from dpsd.shell import command_line
from dpsd.storage.files import write_text
from dpsd.teachers import Teacher

#: The port of a server for which none is chosen.
_PORT = 9393

#: The file that clients need, and the names of the proxies' configurations.
INVITATION_FILE = "invitation.toml"
_PROXY_FILES = {"nginx": "nginx.conf", "caddy": "Caddyfile"}


def train_clients(
    data: str, keep: Path, *, model: str, clients: int, alpha: float, seed: int
) -> list[str]:
    """Train the teachers of a simulation on their parts; returns where they are."""
    teachers = ClientTeachers(
        data=data, folder=keep, model=model, clients=clients, alpha=alpha, seed=seed
    )
    with shown_warnings():
        places = teachers.train(lambda text: STATUS.print(text, style="dim", soft_wrap=True))
    return [str(place) for place in places]


def play_simulation(
    simulation: SimulationSettings,
    settings: FederationConfig,
    out: Path,
    *,
    backend: str,
    quiet: bool,
) -> None:
    """Execute a federation on this machine, and show what came of it.

    Args:
        simulation: the teachers, and the privacy that each client demands.
        settings: the configuration of the server, whose images and classes are the teachers'.
        out: the directory, which must be new or empty.
        backend: where clients answer.
        quiet: whether to show warnings and errors only.
    """

    def configured(teacher: Teacher) -> FederationConfig:
        names = {"class_names": teacher.class_names} if teacher.class_names else {}
        shape, classes = teacher.input_shape, teacher.num_classes
        return settings.changed(input_shape=shape, num_classes=classes, **names)

    with shown_warnings():
        made = new_simulation(
            simulation,
            out,
            configured=configured,
            observer=QuietObserver(),
            device=settings.recipe.device,
        )
    _play(made.plan, made.directory, partial(_run_simulation, made, backend), quiet)


def play_simulation_again(
    path: Path, changed: Mapping[str, Any], *, backend: str, quiet: bool
) -> None:
    """Continue a federation on this machine."""
    with shown_warnings():
        made = resumed_simulation(path, observer=QuietObserver(), **changed)
    _play(made.plan, made.directory, partial(_run_simulation, made, backend), quiet)


def _run_simulation(made: Simulation, backend: str, observer: Observer) -> FederatedRun:
    return made.run(observer=observer, backend=backend)


def host_federation(
    settings: FederationConfig,
    out: Path,
    *,
    address: tuple[str, int] | None,
    port: int | None,
    quiet: bool,
) -> None:
    """Run a federation's server, and show what came of it.

    Args:
        settings: the configuration.
        out: the directory, which must be new or empty.
        address: the host and port that clients reach; by default Flower's server itself, as far as
            they are on this machine.
        port: the port of Flower's server on the loopback interface; 9393 by default.
        quiet: whether to show warnings and errors only.
    """
    port = port or _PORT
    host, outside = address or ("127.0.0.1", port)
    require_free(port)
    plan, directory = begin(settings, out)
    place = _place(directory)
    place.prepare([host])
    facts: dict[str, Fact] = {
        "input_shape": list(plan.shape),
        "num_classes": plan.num_classes,
        "rounds": answer_plan(plan.recipe).rounds,
        "queries": answer_plan(plan.recipe).queries,
    }
    if (sharing := plan.settings.trusted_aggregator) is not None:
        facts["trusted_aggregator"] = sharing
    invitation = Invitation(
        f"{host}:{outside}", place.authority.read_text(encoding="ascii"), directory.identity, facts
    )
    write_text(out / INVITATION_FILE, invitation_text(invitation))
    for proxy in PROXIES:
        text = proxy_configuration(
            proxy,
            host=host,
            outside=outside,
            inside=port,
            authority=place.authority,
            certificate=place.certificate,
            key=place.key,
        )
        write_text(out / _PROXY_FILES[proxy], text)
    _host(plan, directory, place, port=port, quiet=quiet)


def host_again(path: Path, changed: Mapping[str, Any], *, port: int | None, quiet: bool) -> None:
    """Continue a federation's server, by default on the port that it listened on before."""
    plan, directory = begin_again(path, **changed)
    place = _place(directory)
    before = place.last_port
    port = port or before or _PORT
    require_free(port)
    if before not in (None, port):
        warn(
            f"the server listened on port {before} and listens on {port} now: the reverse proxy, "
            "and clients without one, must be told"
        )
    place.prepare()
    _host(plan, directory, place, port=port, quiet=quiet)


def _show_invitation(out: Path) -> None:
    """Say what to send to clients, and how to let them in."""
    invitation = read_invitation((out / INVITATION_FILE).read_text(encoding="utf-8"))
    invite = command_line("dpsd", "federate", "invite", "KEY.pub", "--name", "NAME")
    STATUS.print(
        f"send {out / INVITATION_FILE} to the clients, and let each in by its public key: "
        f"{invite} {command_line('--server', out)}\n"
        f"fingerprint to compare with the clients by another way: {invitation.fingerprint}",
        soft_wrap=True,
    )


def register_client(folder: Path, public_key: Path, name: str) -> str:
    """Let a client connect to a running server; returns the client's key."""
    return register(ServerPlace(folder), read_public_key(public_key), name)


def _place(directory: FederationDirectory) -> ServerPlace:
    return ServerPlace(directory.path / "flower")


def _host(
    plan: FederationPlan,
    directory: FederationDirectory,
    place: ServerPlace,
    *,
    port: int,
    quiet: bool,
) -> None:
    if not quiet:
        _show_invitation(directory.path)

    def run(observer: Observer) -> FederatedRun:
        runs: list[FederatedRun] = []

        def beside(exchange: Exchange) -> None:
            runs.append(execute(plan, directory, exchange=exchange, observer=observer))

        serve(place, beside, port=port)
        if plan.settings.trusted_aggregator is not None:
            place.forget_messages()  # which held what the clients released, each by itself
        return runs[0]

    _play(plan, directory, run, quiet)


def _play(
    plan: FederationPlan,
    directory: FederationDirectory,
    run: Callable[[Observer], FederatedRun],
    quiet: bool,
) -> None:
    """Execute a federation to its end; if it is stopped, say how to continue it."""
    try:
        with _observing(plan, directory, quiet=quiet) as observer:
            run(observer)
    except KeyboardInterrupt:
        STATUS.print(
            f"interrupted; all releases are kept. Continue with: {directory.resuming}",
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    except (WriteError, OSError, MemoryError):
        hint(f"what was released so far is kept; continue with: {directory.resuming}")
        raise
    if not quiet:
        _show_summary(directory)


@contextmanager
def _observing(
    plan: FederationPlan, directory: FederationDirectory, *, quiet: bool
) -> Iterator[Observer]:
    with ExitStack() as stack:
        observer: Observer = QuietObserver()
        if not quiet:
            rounds, finished = plan.recipe.rounds, len(directory.metrics())
            observer = stack.enter_context(ProgressObserver(rounds=rounds, finished=finished))
        stack.enter_context(shown_warnings(observer.warn))
        yield observer


def _show_summary(directory: FederationDirectory) -> None:
    path = directory.path
    say()
    table = grid("client", "images answered", "spent, as the client stated it")
    for client in directory.clients():
        table.add_row(client.name, f"{client.answers:,}", stated_epsilon(client))
    show(table)
    pages = "clients.json, report.html           what each client stated, and who answered when"
    show_written(path, pages, "federate", "status", path)

"""``dpsd federate``: clients that share neither data nor models are transcribed together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from dpsd.cli.console import grid, say, show
from dpsd.cli.errors import BuiltCommand, Command
from dpsd.errors import ConfigError, RunError
from dpsd.runs.files import CONFIG_FILE, JOURNAL_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dpsd.federated.exchange import Member

INTRODUCTION = """
Transcribe the teachers of several clients together; none of them shows its data or its model.

A client answers from its own teacher, its own budget and its own cap, and privatises every answer \
before it leaves. The server sees releases alone.

Example: dpsd federate simulate --data digits --clients 5 --dirichlet 0.3 --epsilon 1 --adjacency \
response --out runs/five

On machines of their own:

dpsd federate server --out runs/hub --clients 2 --input-shape 1,28,28 --num-classes 10

dpsd federate client teacher --out hospital-1  (makes its key)

dpsd federate invite hospital-1.pub --name hospital-1 --server runs/hub

dpsd federate client teacher --out hospital-1 --invitation invitation.toml  (shows what it says)

dpsd federate client teacher --out hospital-1 --invitation invitation.toml --epsilon 1 \
--adjacency response
"""

app = typer.Typer(no_args_is_help=True, help=INTRODUCTION)

#: The folder of a client's directory that has its ledger and answers, and the file that says so.
CLIENT_FOLDER, CLIENT_FILE = "client", "client.toml"

#: The folder of a directory that has the keys, and what Flower keeps.
FLOWER_FOLDER = "flower"


class _Built(BuiltCommand):
    def built(self) -> click.Command:
        from dpsd.cli.federating import command

        return command(str(self.name))


@app.command("simulate", cls=_Built)
def _simulate() -> None:
    """Try a federation whose clients are all on this machine.

    Example: dpsd federate simulate --help
    """


@app.command("server", cls=_Built)
def _server() -> None:
    """Run a federation's server, which teaches the student.

    Example: dpsd federate server --help
    """


@app.command("client", cls=_Built)
def _client() -> None:
    """Take part in a federation with a teacher of one's own.

    Example: dpsd federate client --help
    """


@app.command(cls=Command)
def invite(
    public_key: Annotated[
        Path,
        typer.Argument(
            help="The public key that the client sent, as `dpsd federate client` wrote it.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Option(help="What to call the client.", show_default=False)],
    server: Annotated[
        Path,
        typer.Option(
            metavar="RUN", help="The directory of the server, which is running.", show_default=False
        ),
    ],
) -> None:
    """Let a client connect to a running server, by its public key.

    Example: dpsd federate invite hospital-1.pub --name hospital-1 --server runs/hub

    The flags to know first are --name and --server. The client also needs the server's
    invitation.toml, which holds no secret. Its owner compares the fingerprint, which the server
    showed when it started, by another way.
    """
    _check_server(server)

    from dpsd.cli.hosting import register_client

    key = register_client(server / FLOWER_FOLDER, public_key, name)
    say(f"{name} may connect from now on; its key is {key}")
    say(f"Send {server / 'invitation.toml'} to it, if it does not have it yet.")


@app.command(cls=Command)
def status(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The directory of a server or of a client.", show_default=False
        ),
    ],
) -> None:
    """Say who takes part in a federation, and what each client spent.

    Example: dpsd federate status runs/hub

    The argument to know first is DIR. For a server, each ε is what the client stated of itself. A
    server that is running also knows who is invited and has not connected or answered yet. For a
    client, ε is computed from the client's own ledger.
    """
    if (own := client_folder(place)) is not None:
        from dpsd.cli.privacy import show_certificate
        from dpsd.federated.client.folder import ClientFolder

        folder = ClientFolder.open(own)
        if not folder.reservations():
            say("This client has answered nothing yet, so it has no certificate.")
            return
        folder.stored()  # refuses a ledger that was cut short
        show_certificate(folder.certify(), run=str(own), teacher="")
        return
    _check_server(place)

    from dpsd.federated.server.attendance import attendance
    from dpsd.reporting.federations import (
        ABOUT_CLIENTS,
        ABOUT_CODES,
        about_sums,
        stated_epsilon,
    )
    from dpsd.runs.federation import FederationDirectory

    directory = FederationDirectory.open(place)
    # Asked first, as a federation may finish meanwhile.
    is_finished = directory.is_finished()
    metrics, rounds = directory.metrics(), directory.recipe.rounds
    online = _online(place)
    state = "finished" if is_finished else "the server is running"
    if online is None and not is_finished:
        state = f"unless its server is running, continue with {directory.resuming}"
    number = len(metrics) + 1
    tense = "was" if online is None else "is"
    asking = f"; round {number} {tense} being asked" if directory.is_asking(number) else ""
    say(f"{number - 1} of {rounds} rounds{asking}; {state}")
    table = grid("client", "images answered", "last said", "now")
    clients = directory.clients()
    for one in attendance(clients, directory.journal.refusals(), online=online):
        table.add_row(one.name, f"{one.answers:,}", one.said, one.state)
    show(table)
    say(f"\n{ABOUT_CODES}")
    for client in clients:
        say(f"\n{client.name} (key {client.key}) stated:")
        say(f"  {stated_epsilon(client)}")
        say(f"  mechanism {client.mechanism.get('name')}; ledger head {client.ledger or 'none'}")
    for sentence in (*ABOUT_CLIENTS, *about_sums(directory)):
        say(f"\n{sentence.replace('`', '')}")


def _online(place: Path) -> Mapping[Member, bool] | None:
    """The clients that may connect to a server, and who is connected; ``None`` if it is not there.

    A simulation has no server, and a machine may lack Flower.
    """
    if not (place / FLOWER_FOLDER).is_dir():
        return None
    try:
        from dpsd.federated.flower.places import ServerPlace
        from dpsd.federated.flower.registering import registered

        invited = registered(ServerPlace(place / FLOWER_FOLDER))
    except (RunError, ConfigError):
        return None
    return {one.member: one.is_online for one in invited}


def client_folder(place: Path) -> Path | None:
    """Return the folder with a client's records that a place is or has, if it is not a run's."""
    if (place / CONFIG_FILE).is_file():
        return None
    folders = (within(place, CLIENT_FOLDER), place)
    return next((folder for folder in folders if (folder / CLIENT_FILE).is_file()), None)


def within(place: Path, name: str) -> Path:
    """Return a folder within a client's directory, which reads and writes nothing elsewhere.

    Raises:
        RunError: the folder is a link.
    """
    folder = place / name
    if folder.is_symlink():
        raise RunError(
            f"{folder} is a symbolic link, which a client's directory may not contain: put back "
            "the folder itself"
        )
    return folder


def _check_server(place: Path) -> None:
    if not (place / JOURNAL_FILE).exists():
        if (place / FLOWER_FOLDER / "client.key.pub").exists():
            raise RunError(
                f"{place} holds a client's key, and no client yet: start it with --invitation, "
                "--epsilon and --adjacency"
            )
        raise RunError(
            f"{place} is not the directory of a federation's server or client: it has no "
            f"{JOURNAL_FILE}"
        )

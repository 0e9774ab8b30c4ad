"""The commands of ``dpsd federate`` whose flags are settings: simulate, server and client.

Everything that can be checked without torch is checked before torch is imported, which
:mod:`dpsd.cli.hosting` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import typer
from pydantic.fields import FieldInfo

from dpsd.cli.choices import Words
from dpsd.cli.console import say, say_json
from dpsd.cli.errors import spell
from dpsd.cli.federate import CLIENT_FOLDER, FLOWER_FOLDER, within
from dpsd.cli.options import RUN_PANEL, built_command, flag_name, given
from dpsd.config.base import read_toml
from dpsd.config.federation import (
    BACKENDS,
    FederationConfig,
    SimulationSettings,
    require_backend,
)
from dpsd.config.privacy import PrivacySettings
from dpsd.config.recipe import Recipe
from dpsd.config.teacher import TeacherSettings
from dpsd.config.transcription import TranscriptionConfig
from dpsd.datasets import check_dataset
from dpsd.errors import ConfigError
from dpsd.models.names import check_model
from dpsd.runs.files import JOURNAL_FILE
from dpsd.teachers.kinds import TEACHER_HELP, check_source

Out = Annotated[
    Path | None,
    typer.Option(
        help="The directory to write to, which must be new or empty.", rich_help_panel=RUN_PANEL
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        help="Continue the federation in this directory, as it was started.",
        metavar="RUN",
        rich_help_panel=RUN_PANEL,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(help="A TOML file of settings; flags override it.", rich_help_panel=RUN_PANEL),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Show warnings and errors only.", rich_help_panel=RUN_PANEL),
]

#: The settings of when a server waits, which may change when it is resumed.
_WAITING = ("clients", "at_least", "deadline", "patience")

#: The most that a client answers, which the invitation states if its owner does not.
_ASKED: dict[str, FieldInfo] = {
    name: FieldInfo(annotation=int | None, default=None, description=text)
    for name, text in {
        "rounds": "The most rounds to answer; as the invitation says if not given.",
        "queries": "The most images to answer in a round; as the invitation says if not given.",
    }.items()
}

#: The settings of privacy that clients have.
_PRIVACY = {
    name: field
    for name, field in PrivacySettings.model_fields.items()
    if name != "reproducible_noise" and not name.startswith("consensus")
}

#: The settings of images and classes, which a simulation takes from its teachers.
_IMAGES = ("input_shape", "num_classes", "class_names")


def command(name: str) -> click.Command:
    """Return a command with all its flags."""
    chosen = FederationConfig.chosen()
    if name == "server":
        return built_command(name, _server, fields=chosen)
    if name == "simulate":
        own = {name: field for name, field in chosen.items() if name not in (*_IMAGES, "clients")}
        return built_command(name, _simulate, fields=_PRIVACY | own)
    own = {name: Recipe.model_fields[name] for name in ("device", "precision")} | _ASKED
    return built_command(name, _client, fields=_PRIVACY | TeacherSettings.model_fields | own)


def _simulate(
    ctx: typer.Context,
    teachers: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEACHER]…", help=f"The teacher of each client. {TEACHER_HELP}"),
    ] = None,
    out: Out = None,
    resume: Resume = None,
    config: Config = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Instead of TEACHER…, the data set that is divided among the clients, whose "
            "teachers are trained on their parts.",
            rich_help_panel="Clients",
        ),
    ] = None,
    clients: Annotated[
        int, typer.Option(min=2, help="With --data: clients.", rich_help_panel="Clients")
    ] = 5,
    dirichlet: Annotated[
        float,
        typer.Option(
            help="With --data: how alike the clients' parts are. 0.1: a few classes a client; 0.5: "
            "uneven; 100: alike.",
            rich_help_panel="Clients",
        ),
    ] = 0.5,
    model: Annotated[
        str,
        typer.Option(help="With --data: the model of the teachers.", rich_help_panel="Clients"),
    ] = "cnn",
    keep: Annotated[
        Path,
        typer.Option(
            help="With --data: the folder in which trained teachers are kept.",
            rich_help_panel="Clients",
        ),
    ] = Path("teachers"),
    backend: Annotated[
        str,
        typer.Option(
            click_type=Words(BACKENDS),
            help="Where clients answer: one after another in this process, or at the same time in "
            "processes of Ray's, which take longer to start.",
            rich_help_panel="Clients",
        ),
    ] = "in-process",
    quiet: Quiet = False,
    **flags: Any,
) -> None:
    """Try a federation whose clients are all on this machine, without a network.

    Each client is what it would be elsewhere: it has its own ledger, certificate and budget, and
    speaks Flower's messages. What the clients are is in RUN/clients.

    Example: dpsd federate simulate --data digits --clients 5 --dirichlet 0.3 --epsilon 1
    --adjacency response --out runs/five

    The flags to know first are --epsilon and --adjacency (what each client demands), --dirichlet
    and --out. An interrupted simulation is continued with --resume.
    """
    chosen = given(ctx, flags)
    require_backend(backend)
    if resume is not None:
        changed = _resumed(resume, chosen, out=out, config=config)

        from dpsd.cli.hosting import play_simulation_again

        play_simulation_again(resume, changed, backend=backend, quiet=quiet)
        return
    values = ({} if config is None else read_toml(config)) | chosen
    if bool(teachers) == (data is not None):
        raise ConfigError(
            "say who the clients are: either TEACHER…, one for each client, or --data, which is "
            "divided among --clients"
        )
    if data is not None:
        check_dataset(data)
        check_model(model)
    for teacher in teachers or ():
        check_source(teacher)
    privacy = {name: value for name, value in values.items() if name in _PRIVACY}
    others = {name: value for name, value in values.items() if name not in _PRIVACY}
    count = clients if data is not None else len(teachers or ())
    stated = SimulationSettings(teachers=teachers or ["to be trained"], **privacy)
    stated.privacy.require_effect()
    # The shape and the classes are the teachers', who are not loaded yet.
    settings = FederationConfig(
        **{"input_shape": (1, 1, 1), "num_classes": 2, "clients": count, **others}
    )
    settings.check_names()
    if settings.federation.trusted_aggregator is not None:
        stated.privacy.require_votes()
    if out is None:
        raise ConfigError("say where to write with --out, or --resume a federation")

    from dpsd.cli.hosting import play_simulation, train_clients

    if data is not None:
        places = train_clients(
            data, keep, model=model, clients=clients, alpha=dirichlet, seed=settings.recipe.seed
        )
        stated = stated.changed(teachers=places)
    play_simulation(stated, settings, out, backend=backend, quiet=quiet)


def _server(
    ctx: typer.Context,
    out: Out = None,
    resume: Resume = None,
    config: Config = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="The host and port under which clients reach the server, in the end by a reverse "
            "proxy.",
            metavar="HOST:PORT",
            show_default="127.0.0.1 and --port, to try it on one machine without a proxy",
            rich_help_panel="Network",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="The port of Flower's server on the loopback interface.",
            show_default="9393; with --resume, as before",
            rich_help_panel="Network",
        ),
    ] = None,
    quiet: Quiet = False,
    **flags: Any,
) -> None:
    """Run a federation's server: it makes queries, asks all clients, and teaches the student.

    Only clients whose public keys were registered can connect; see `dpsd federate invite`. On first
    start, the server makes its certificate, RUN/invitation.toml for clients, and configurations of
    reverse proxies (RUN/nginx.conf, RUN/Caddyfile) that let clients reach what they need and
    nothing else. RUN/flower holds its private keys: keep it to yourself.

    Example: dpsd federate server --out runs/hub --clients 2 --input-shape 1,28,28 --num-classes 10

    The flags to know first are --input-shape, --num-classes, --clients (how many to wait for) and
    --address. An interrupted server is continued with --resume.
    """
    chosen = given(ctx, flags)
    if resume is not None:
        changed = _resumed(resume, chosen, out=out, config=config)

        from dpsd.cli.hosting import host_again

        host_again(resume, changed, port=port, quiet=quiet)
        return
    values = ({} if config is None else read_toml(config)) | chosen
    settings = FederationConfig(**values)
    settings.check_names()
    reached = None if address is None else _parsed_address(address)
    if out is None:
        raise ConfigError("say where to write with --out, or --resume a federation")

    from dpsd.cli.hosting import host_federation

    host_federation(settings, out, address=reached, port=port, quiet=quiet)


def _client(
    ctx: typer.Context,
    teacher: Annotated[str, typer.Argument(help=TEACHER_HELP)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The directory of the client: its key, its ledger and its answers. Each has a key "
            "of its own, and takes part in one federation.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    invitation: Annotated[
        Path | None,
        typer.Option(
            help="The invitation.toml that the server's people sent. Without it, the client only "
            "makes its key. Without --epsilon, what it states is shown with its fingerprint.",
            metavar="FILE",
            rich_help_panel="Network",
        ),
    ] = None,
    trusted_aggregator: Annotated[
        bool,
        typer.Option(
            "--trusted-aggregator",
            help="You trust the server to keep nothing of your answers but sums over several "
            "clients, as the invitation says. Against all others, ε is then smaller. --epsilon "
            "stays what the server itself may learn.",
            rich_help_panel="Privacy",
        ),
    ] = False,
    quiet: Quiet = False,
    **flags: Any,
) -> None:
    """Take part in a federation with a teacher of one's own, until Ctrl-C.

    The client answers from its own ledger, within --epsilon under --adjacency for the whole
    federation, and never twice about an image. The server decides what is asked, and nothing else.
    --rounds and --queries are the most that is answered; by default, what the invitation states, up
    to a million images in all.

    Whoever alters an invitation can put themselves in the server's place. Without --epsilon, the
    client shows what the invitation states, with its fingerprint, and joins nothing: compare the
    fingerprint by another way, such as the telephone, before you give --epsilon. It is shown with
    --quiet too.

    Example: dpsd federate client teacher --out hospital-1 --invitation invitation.toml --epsilon 1
    --adjacency response

    The flags to know first are --epsilon, --adjacency and --invitation. Started once without
    --invitation, it makes its key, which the server's people register. After Ctrl-C or a crash, the
    same command goes on.
    """
    chosen = given(ctx, flags)
    if out is None:
        raise ConfigError("say where to keep the ledger and the key with --out")
    if invitation is None:
        # Before people are asked to register a key, with which nothing could be answered.
        check_source(teacher, plain_http=bool(chosen.get("plain_http")))

        from dpsd.cli.taking_part import make_key

        make_key(within(out, FLOWER_FOLDER))
        return
    if not invitation.is_file():
        raise ConfigError(f"--invitation: there is no {invitation}")

    from dpsd.federated.flower.invitations import read_invitation

    found = read_invitation(invitation.read_text(encoding="utf-8"))
    if "epsilon" not in chosen:
        facts = dict(found.facts)
        say_json({"address": found.address, "federation": found.federation, "facts": facts})
        say(f"The fingerprint of the invitation is {found.fingerprint}")
        say(
            "Compare it with those who run the server by another way, such as the telephone. Only "
            "if it is the same, run the command again with --epsilon, the most that may be spent, "
            "and --adjacency, what it is about."
        )
        return
    spell(ctx, {"teacher": "TEACHER"})
    settings = TranscriptionConfig(teacher=teacher, **chosen)
    settings.privacy.require_effect()
    if trusted_aggregator:
        settings.privacy.require_votes()
    settings.teacher.check_normalization()
    settings.teacher.check_source(budget_file=settings.privacy.budget_file)

    from dpsd.cli.taking_part import take_part

    take_part(
        settings,
        found,
        records=within(out, CLIENT_FOLDER),
        keys=within(out, FLOWER_FOLDER),
        asked={name: chosen[name] for name in ("rounds", "queries") if name in chosen},
        trusts=trusted_aggregator,
        quiet=quiet,
    )


def _parsed_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--address is {address!r}; give HOST:PORT, as in hub.example:443")
    return host, int(port)


def _resumed(
    path: Path, chosen: dict[str, Any], *, out: Path | None, config: Path | None
) -> dict[str, Any]:
    """The settings that change when a federation is resumed."""
    if out is not None or config is not None:
        raise ConfigError("--resume takes all settings from the run: leave out --out and --config")
    if fixed := sorted(chosen.keys() - set(_WAITING)):
        raise ConfigError(
            f"--resume continues a federation as it was started: "
            f"{', '.join(map(flag_name, fixed))} cannot change"
        )
    if not (path / JOURNAL_FILE).exists():
        raise ConfigError(f"--resume: {path} is not of a federation: it has no {JOURNAL_FILE}")
    return chosen

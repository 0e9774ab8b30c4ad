"""The report of a federation's server: its clients, their ε, and who answered when.

What it says of a client's ε and ledger is what the client stated of itself. Nothing in it depends
on an answer except through a release, so it may be published with the student.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpsd.privacy.accounting import format_epsilon
from dpsd.privacy.targets import Adjacency
from dpsd.reporting.curves import progress_figure
from dpsd.reporting.html import part, template
from dpsd.reporting.memory import MEMORY, peak
from dpsd.reporting.sections import REPORT_FILE, Rows
from dpsd.reporting.verdict import Point, measured
from dpsd.runs.federation import FederationDirectory
from dpsd.runs.journal import Client
from dpsd.shell import command_line
from dpsd.storage.files import write_text

#: The headings of a table of clients.
CLIENT_HEADINGS = (
    *("client", "mechanism", *(f"ε under {kind.value}" for kind in Adjacency)),
    *("δ", "images answered", "last said", "ledger head"),
)

#: The headings of a table of rounds.
ROUND_HEADINGS = (
    *("round", "queries", "clients that answered", "loss", "from", "seconds"),
    MEMORY,
)

#: What is said of the ε of clients.
ABOUT_CLIENTS = (
    "Each ε is what the client stated of itself, about its own teacher and its own answers, "
    "against everybody who sees its releases, the server included. The server cannot check it; the "
    "client's own certificate does, and names the ledger head that is shown here.",
    "Under `response` and `round`, ε is about one image's answer. Whoever makes the "
    "queries may ask about many images that look alike, and average the noise away: only `teacher` "
    "counts all answers together.",
)

#: What is said of it besides where clients trust the server.
ABOUT_SUMS = (
    "The clients trusted the server to let others see nothing of their answers but sums over at "
    "least {clients} of them, each of which adds a share of the noise. Against those who see no "
    "more, what a client spent is less than this table says: its own certificate states both. Of a "
    "sum, nobody can tell how much a single client's answers say of the class."
)

#: What is said of codes, and of clarity.
ABOUT_CODES = (
    "silent: no reply came in time. late: the request arrived after its deadline. budget: the "
    "client's plan or cap leaves no room. malformed: the client found the request wrong. failed: "
    "its teacher or disk failed, or it has stopped after such failures. garbage: what it said was "
    "no reply. unlike: it counts on sums that this server does not make, or the others count on "
    "noise that it does not add."
)
ABOUT_CLARITY = (
    "0: the client's answers do not depend on the class, as those of a client that says anything. "
    "1: each names the class itself. -: the client answered nothing. It is estimated from the "
    "releases of all clients."
)

#: The characters of a hash that are shown.
_SHOWN = 12


def client_rows(clients: Sequence[Client]) -> Rows:
    """Return a row for each client, in the order of :data:`CLIENT_HEADINGS`."""
    return [
        (
            client.name,
            str(client.mechanism.get("name", "-")),
            *(_epsilon(client, kind) for kind in Adjacency),
            f"{client.spent['delta']:g}" if "delta" in client.spent else "-",
            f"{client.answers:,}",
            last_said(client),
            client.ledger.removeprefix("sha256:")[:_SHOWN] or "-",
        )
        for client in clients
    ]


def federation_page(
    run: FederationDirectory, *, evaluations: Sequence[Mapping[str, Any]] = (), name: str = "RUN"
) -> str:
    """Return the HTML of a federation's report.

    Args:
        run: the directory of the server.
        evaluations: what ``dpsd evaluate --json`` wrote about its student.
        name: the name by which commands call the directory.
    """
    clients, metrics = run.clients(), run.metrics()
    summed = about_sums(run)
    return template("federation.html.j2").render(
        style=part("report.css.j2"),
        facts=run.facts(),
        is_finished=run.is_finished(),
        clients=clients,
        evaluations=evaluations,
        points=[*_points(clients, metrics), *measured(evaluations)],
        client_headings=CLIENT_HEADINGS,
        client_rows=client_rows(clients),
        about_clients=[*ABOUT_CLIENTS, *summed],
        answer_headings=("round", *(client.name for client in clients)),
        answer_rows=_by_round(clients, metrics, _answered),
        clarity_rows=[] if summed else _by_round(clients, metrics, _clarity),
        about_codes=ABOUT_CODES,
        about_clarity=ABOUT_CLARITY,
        figure=progress_figure({name: metrics}),
        round_headings=ROUND_HEADINGS,
        round_rows=[_round_row(line) for line in metrics],
        commands=[
            command_line("dpsd", "federate", "status", name),
            command_line("dpsd", "evaluate", name, "--data", "NAME"),
        ],
    )


def about_sums(run: FederationDirectory) -> list[str]:
    """Return what is said besides of a federation whose server is trusted to add up."""
    fewest = run.settings().federation.trusted_aggregator
    return [] if fewest is None else [ABOUT_SUMS.format(clients=fewest)]


def write_federation_report(run: FederationDirectory) -> None:
    """Write the report of a federation, which may be published, into its directory.

    Raises:
        RunError: the disk is full, or the directory cannot be written to.
    """
    write_text(run.path / REPORT_FILE, federation_page(run))


def last_said(client: Client) -> str:
    """Return the last code of a client, and the round that it is about."""
    return f"{client.code} (round {client.round})" if client.code else "-"


def stated_epsilon(client: Client) -> str:
    """Return the ε that a client stated, each with its adjacency, in one line.

    >>> spent = {"response": 1.0, "round": 8.0, "teacher": 40000.0, "delta": 1e-5}
    >>> stated_epsilon(Client(key="", name="", mechanism={}, spent=spent, ledger=""))
    'ε = 1 under response, 8 under round, 40,000 under teacher, at δ = 1e-05'
    """
    if not client.spent:
        return "nothing spent"
    parts = [f"{_epsilon(client, kind)} under {kind.value}" for kind in Adjacency]
    at = f", at δ = {client.spent['delta']:g}" if "delta" in client.spent else ""
    return f"ε = {', '.join(parts)}{at}"


def _epsilon(client: Client, kind: Adjacency) -> str:
    return format_epsilon(client.spent[kind.value]) if kind.value in client.spent else "-"


def _points(clients: Sequence[Client], metrics: Sequence[Mapping[str, Any]]) -> list[Point]:
    answered = sum(client.answers for client in clients)
    queries = sum(line["queries"] for line in metrics)
    return [
        (
            "What was bought",
            "The server bought nothing and has no certificate: it saw releases alone. What each "
            "client spent is in the table below, as the client stated it.",
        ),
        (
            "What the student learned from",
            f"{answered:,} answers of {len(clients):,} clients about {queries:,} images in "
            f"{len(metrics):,} rounds. No number here says how the student does on real images.",
        ),
    ]


def _by_round(clients: Sequence[Client], metrics: Sequence[Mapping[str, Any]], shown: Any) -> Rows:
    return [
        (
            str(line["round"]),
            *(
                shown(line["clients"][client.key]) if client.key in line["clients"] else "not there"
                for client in clients
            ),
        )
        for line in metrics
    ]


def _answered(said: Mapping[str, Any]) -> str:
    return f"{said['answers']:,}" if said["code"] == "answered" else str(said["code"])


def _clarity(said: Mapping[str, Any]) -> str:
    # Who is silent says nothing of the class, but is no liar, whose answers are worth nothing.
    return f"{max(0.0, said['clarity']):.3f}" if said["answers"] else "-"


def _round_row(line: Mapping[str, Any]) -> tuple[str, ...]:
    answered = sum(said["code"] == "answered" for said in line["clients"].values())
    return (
        *(str(line["round"]), f"{line['queries']:,}", f"{answered} of {len(line['clients'])}"),
        f"{line['student_loss']:.4f}",
        ", ".join(f"{name} {count:,}" for name, count in line["sources"].items()),
        *(f"{line['seconds']:,}", peak([line])),
    )

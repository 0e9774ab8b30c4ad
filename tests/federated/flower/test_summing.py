"""A federation whose server adds up shares, as programs that talk over TLS."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from dpsd.runs.federation import FederationDirectory

from . import programs
from .programs import ended, hospital, invited, until

pytestmark = [pytest.mark.federated, pytest.mark.thorough, pytest.mark.timeout(900)]

CLIENTS, ROUNDS, QUERIES = 3, 2, 60


def test_a_server_keeps_sums_alone_also_when_a_client_is_killed(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hospitals = [hospital(tmp_path, number, "--trusted-aggregator") for number in (1, 2, 3)]
    server = programs.server(
        tmp_path,
        clients=CLIENTS,
        rounds=ROUNDS,
        queries=QUERIES,
        words=("--trusted-aggregator", CLIENTS, "--deadline", 15),
    )
    try:
        server.start()
        for one in hospitals:
            until(partial(invited, hub, one), "the server did not start")
            one.start()
        until(FederationDirectory.open(hub).metrics, "the first round was not played")
        if server.code is None:
            hospitals[0].kill("flower-supernode")
        folders = ended(server, hospitals, rounds=ROUNDS)
    finally:
        for program in (*hospitals, server):
            program.end()
    for folder in folders:
        certificate = folder.certify()
        assert certificate.against_others is not None
        assert 0 < certificate.against_others.response < certificate.spent.response
    kept = [file.read_bytes() for file in hub.rglob("*") if file.is_file()]
    assert not (hub / "flower" / "state.db").exists()
    for folder in folders:
        with folder.answers._opened() as table:
            shares = [row[0] for row in table.execute("SELECT release FROM answers")]
        assert len(shares) == ROUNDS * QUERIES
        assert not [share for share in shares if any(share in content for content in kept)]
    stored = FederationDirectory.open(hub).stored_releases(ROUNDS, may_commit=False)
    assert stored is not None
    assert stored.release.shape == (QUERIES, 1, programs.CLASSES)

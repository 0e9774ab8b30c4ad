"""What a federation's server leaves behind when it is finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.federated.server.hospitals import SETTINGS, Network, hospitals

from dpsd.cli import hosting
from dpsd.config.federation import FederationConfig
from dpsd.federated.exchange import Exchange
from dpsd.federated.flower.places import ServerPlace
from dpsd.privacy.mechanisms import SharedNoiseVotes
from dpsd.runs.federation import FederationDirectory


@pytest.mark.parametrize("fewest", [None, 3])
def test_messages_that_hold_shares_are_removed_with_the_last_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fewest: int | None
) -> None:
    """As written by Flower, whose database keeps what was fetched; others may still be resumed."""
    summed: dict[str, Any] = {
        "mechanism": SharedNoiseVotes(noise_multiplier=1.0, teachers=1, clients=3)
    }
    several = hospitals(3, **(summed if fewest else {}))

    def serve(place: ServerPlace, run: Callable[[Exchange], None], *, port: int) -> None:
        for name in ("state.db", "state.db-wal"):
            (place.folder / name).write_bytes(b"shares")
        run(Network(several))

    monkeypatch.setattr(hosting, "serve", serve)
    monkeypatch.setattr(hosting, "require_free", lambda port: None)
    settings = {**SETTINGS, "rounds": 1, "clients": 3, "trusted_aggregator": fewest}
    out = tmp_path / "hub"
    hosting.host_federation(FederationConfig(**settings), out, address=None, port=1, quiet=True)
    assert FederationDirectory.open(out).is_finished()
    assert bool(list((out / "flower").glob("state.db*"))) is (fewest is None)
    assert ("trusted_aggregator = 3" in (out / "invitation.toml").read_text()) is bool(fewest)

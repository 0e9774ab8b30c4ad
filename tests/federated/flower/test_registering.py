"""Who may connect, when there is no server to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpsd.errors import RunError
from dpsd.federated.flower.places import ServerPlace
from dpsd.federated.flower.registering import registered


def test_a_server_that_does_not_run_cannot_be_controlled(tmp_path: Path) -> None:
    server = ServerPlace(tmp_path)
    server.prepare()
    with pytest.raises(RunError, match="start it first"):
        registered(server)
    server.address.write_text("127.0.0.1:9", encoding="utf-8")
    with pytest.raises(RunError, match="not running"):
        registered(server)

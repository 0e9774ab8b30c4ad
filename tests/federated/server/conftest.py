"""What tests of the server share."""

from __future__ import annotations

import pytest

from dpsd.federated.server import starting


@pytest.fixture(autouse=True)
def without_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report, which takes longer than the federation, where it is not looked at."""
    if request.module.__name__.rpartition(".")[2] != "test_reports":
        monkeypatch.setattr(starting, "write_federation_report", lambda directory: None)

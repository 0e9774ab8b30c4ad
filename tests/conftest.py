"""What every test may rely on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A shell in the background has its commands ignore Ctrl-C, and processes that tests start and
# interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_data_directory(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Budgets of teachers without a place of their own must not reach the user's own."""
    folder: Path = tmp_path_factory.mktemp("user-data")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return folder

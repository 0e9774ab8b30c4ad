"""A process of Flower's that ends by itself ends what relies on it, with one line."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from dpsd.errors import RunError
from dpsd.federated.flower.processes import Child, free_port, require_free, watched


def test_a_process_that_ends_by_itself_ends_the_work_that_relies_on_it(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_text("Exit Code: 305\n", encoding="utf-8")  # an earlier process said so
    child = Child("Flower's node", ["no-such-command"], environment=os.environ, log=log)
    start = time.monotonic()
    with (
        pytest.raises(RunError, match=r"^Flower's node has ended: read .*child\.log"),
        watched(child),
    ):
        time.sleep(240)
    assert time.monotonic() - start < 230
    assert not child.is_running
    assert "KeyError" in log.read_text("utf-8")


def test_what_a_node_printed_last_says_whether_it_reaches_its_server(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_text("SuperNode ID: 1\n", encoding="utf-8")  # an earlier process reached it
    child = Child("Flower's node", ["no-such-command"], environment=os.environ, log=log)
    try:
        assert child.is_connected is None
        for line, is_connected in (
            ("WARNING: Connection attempt failed, retrying in 3.08 seconds", False),
            ("INFO: Connection successful after 6.66 seconds and 6 tries.", True),
            ("INFO: SuperNode ID: 13533338439923391355", True),
            ("WARNING: Connection attempt failed, retrying in 1.88 seconds", False),
            *[("INFO: Received successfully\n" + 900 * "-", True)] * 20,  # longer than the tail
        ):
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
            assert child.is_connected is is_connected
    finally:
        child.end()


def test_a_port_that_is_taken_is_named_before_anything_starts() -> None:
    port = free_port()
    require_free(port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(RunError, match=f"port {port} cannot be listened on .* with --port"):
            require_free(port)

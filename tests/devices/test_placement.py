"""Which process this is, from what schedulers say."""

from __future__ import annotations

import pytest

from dpsd.devices.placement import Placement, scheduled

STEP = {
    "SLURM_JOB_ID": "4217",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}
ELASTIC = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}


def environment(monkeypatch: pytest.MonkeyPatch, told: dict[str, str]) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)


def test_torchrun_says_where_processes_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, ELASTIC)
    assert scheduled(4) == Placement(1, 4, 2, ("node1", 29500), is_scheduled=True)


def test_the_processes_of_a_slurm_step_meet_on_its_first_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment(monkeypatch, STEP)
    placement = scheduled(8)
    assert placement is not None
    assert (placement.rank, placement.count, placement.local_count) == (5, 8, 4)
    assert placement.address is not None
    host, port = placement.address
    assert host == "gpu07"
    assert 1024 < port < 32768  # of nobody, and not among those that are given to connections
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert scheduled(8) != placement  # two steps of a job at once do not meet each other


def test_another_meeting_place_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, STEP | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "5000"})
    placement = scheduled(8)
    assert placement is not None
    assert placement.address == ("10.0.0.7", 5000)


def test_a_slurm_step_of_single_device_runs_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, STEP)
    assert scheduled(1) is None

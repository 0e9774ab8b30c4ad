"""Queries wait on disk, come back as they were, and leave nothing behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dpsd.errors import RunError, WriteError
from dpsd.synthesis.queries import Queries, Spool, instructive

SHAPE = (1, 2, 3)


def images(count: int, *, start: int = 0) -> Tensor:
    """Every image tells its row."""
    rows = torch.arange(start, start + count) % 256
    return rows.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE)


def queries(spool: Spool, count: int) -> Queries:
    made = Queries.empty(spool, count, classes=3)
    made.rows[:] = torch.arange(count)
    made.prior[:] = torch.arange(count).half().unsqueeze(-1)
    made.predicted[:] = torch.arange(count, dtype=torch.int32)
    made.source[:] = (torch.arange(count) % 2).to(torch.uint8)
    made.digest[:] = torch.arange(count)
    return made


@settings(max_examples=80, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    wanted=st.lists(st.integers(0, 10**6), max_size=40),
)
def test_rows_come_back_in_the_order_asked_for(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], wanted: list[int]
) -> None:
    with Spool(tmp_path_factory.mktemp("spool"), SHAPE) as spool:
        for count in counts:
            spool.append(images(count, start=len(spool)))
            spool[torch.arange(len(spool))]  # reading between does not disturb writing
        assert len(spool) == sum(counts)
        rows = torch.tensor([row % len(spool) for row in wanted if len(spool)], dtype=torch.long)
        assert spool[rows].equal(images(len(spool))[rows])
        assert spool[rows].shape == (len(rows), *SHAPE)


def test_a_spool_has_no_name_while_it_is_used(tmp_path: Path) -> None:
    with Spool(tmp_path, SHAPE) as spool:
        spool.append(images(5))
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    with Spool(tmp_path, SHAPE) as spool:
        spool.append(images(5))
        os.truncate(spool._file.fileno(), 5 * 6 - 1)
        assert spool[torch.arange(4)].equal(images(4))
        with pytest.raises(RunError, match="cannot be read: it was cut off"):
            spool[torch.arange(5)]


def test_a_disk_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    spool = Spool(tmp_path, SHAPE)
    spool.append(images(5))

    class Broken:
        def seek(self, *_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

    spool._file = Broken()  # type: ignore[assignment]
    with pytest.raises(RunError, match=r"cannot be read.*Input/output error"):
        spool[torch.arange(5)]


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Spool(tmp_path, SHAPE) as spool:
        monkeypatch.setattr("dpsd.synthesis.queries.write_block", full)
        with pytest.raises(WriteError, match=r"No space left.*free some space.*intact"):
            spool.append(images(5))
        assert len(spool) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_disk_that_is_full_when_buffers_are_flushed_is_told_of_at_once(tmp_path: Path) -> None:
    with Spool(tmp_path, SHAPE) as spool, Path("/dev/full").open("wb", buffering=0) as full:
        os.dup2(full.fileno(), spool._file.fileno())
        with pytest.raises(WriteError, match="No space left"):
            spool.append(images(5))


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="nowhere could not be written"):
        Spool(tmp_path / "nowhere", SHAPE)


@pytest.mark.parametrize(
    "kept",
    [
        torch.tensor([False, True, True, False, True, False, False]),
        torch.tensor([1, 2, 4]),
    ],
    ids=["mask", "rows"],
)
def test_some_queries_are_all_that_goes_with_them(tmp_path: Path, kept: Tensor) -> None:
    with Spool(tmp_path, SHAPE) as spool:
        spool.append(images(7))
        some = queries(spool, 7).only(kept)
        assert len(some) == 3
        for column in (some.rows, some.prior[:, 0], some.predicted, some.digest):
            assert column.tolist() == [1, 2, 4]
        assert some.source.tolist() == [1, 0, 0]
        assert torch.cat(list(some.blocks())).equal(images(7)[[1, 2, 4]])
        assert some.only(slice(2)).rows.tolist() == [1, 2]


def test_blocks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpsd.synthesis.queries._BLOCK", 13)  # two images of six bytes
    with Spool(tmp_path, SHAPE) as spool:
        spool.append(images(7))
        blocks = list(queries(spool, 7).blocks())
    assert [len(block) for block in blocks] == [2, 2, 2, 1]
    assert torch.cat(blocks).equal(images(7))


def test_doubtful_queries_are_preferred() -> None:
    doubt = torch.cat([torch.zeros(900), torch.full((100,), 2.0)])
    chosen = instructive(doubt, torch.zeros(1000), 200, torch.Generator().manual_seed(0))
    assert len(set(chosen.tolist())) == 200
    assert int((chosen >= 900).sum()) > 85  # nearly all of the hundred, and others too


def test_queries_of_rare_classes_are_preferred() -> None:
    predicted = torch.arange(1000) % 10 == 0  # a tenth is of class 1
    chosen = instructive(torch.ones(1000), predicted, 200, torch.Generator().manual_seed(0))
    assert 55 < int(predicted[chosen].sum()) < 90  # of 20 if all were alike

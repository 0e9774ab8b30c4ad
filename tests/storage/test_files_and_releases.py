"""Files are written whole or not at all, and releases are read back as they were."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dpsd.distillation.releases import Replay, RoundReleases, save_releases
from dpsd.errors import DiskFullError, RunError, WriteError
from dpsd.storage.files import (
    Column,
    load_tensors,
    open_tensors,
    replacing,
    save_tensors,
    stream_tensors,
    write_text,
)


def round_of(count: int, *, index: int = 1, start: int = 0) -> RoundReleases:
    """A round whose every tensor tells which row it belongs to."""
    rows = torch.arange(start, start + count)
    return RoundReleases(
        index=index,
        queries=(rows % 256).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2),
        prior=(rows % 7).half().view(-1, 1).expand(-1, 3),
        predicted=rows.to(torch.int32),
        source=(rows % 2).to(torch.uint8),
        release=rows,
        asked=-rows,
    )


def save(releases: RoundReleases, path: Path, *, block: int = 7) -> None:
    """Write a round, its queries in blocks."""
    assert releases.asked is not None
    blocks = torch.split(releases.queries, block)
    save_releases(
        path,
        index=releases.index,
        queries=Column(torch.uint8, tuple(releases.queries.shape), blocks),
        prior=releases.prior,
        predicted=releases.predicted,
        source=releases.source,
        release=releases.release,
        asked=releases.asked,
    )


def test_text_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    write_text(path, "ε = 1")
    assert path.read_text(encoding="utf-8") == "ε = 1"
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    turned = torch.arange(6).view(2, 3).T  # not contiguous
    for tensor in (torch.zeros(2), turned):
        save_tensors(path, {"tensor": tensor}, metadata={"round": "1"})
        assert load_file(path)["tensor"].equal(tensor)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise KeyError("interrupted")

    with pytest.raises(KeyError, match="interrupted"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_synced_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    contents = []
    monkeypatch.setattr("dpsd.storage.files.os.fsync", lambda _: contents.append(path.read_text()))
    write_text(path, "new")
    assert contents == ["old", "new"]  # the file, then the folder


TYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
TYPES += [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 9),
    block=st.integers(1, 10),
    types=st.lists(st.sampled_from(TYPES), min_size=1, max_size=5),
)
def test_what_is_streamed_is_what_safetensors_would_have_written(
    tmp_path_factory: pytest.TempPathFactory, rows: int, block: int, types: list[torch.dtype]
) -> None:
    folder = tmp_path_factory.mktemp("streamed")
    tensors = {
        f"column-{number}": (torch.arange(rows * 3) % 2).to(dtype).view(rows, 3)
        for number, dtype in enumerate(types)
    }
    columns = {
        name: Column(tensor.dtype, tuple(tensor.shape), torch.split(tensor, block))
        for name, tensor in tensors.items()
    }
    stream_tensors(folder / "streamed", columns, metadata={"round": "1"})
    loaded = load_file(folder / "streamed")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].equal(tensor)
    whole = {name: Column.of(tensor) for name, tensor in tensors.items()}
    stream_tensors(folder / "at once", dict(reversed(whole.items())), metadata={"round": "1"})
    assert (folder / "streamed").read_bytes() == (folder / "at once").read_bytes()


def test_a_round_has_the_bytes_that_safetensors_would_write(tmp_path: Path) -> None:
    releases = round_of(23)
    names = ("queries", "prior", "predicted", "source", "release", "asked")
    tensors = {name: getattr(releases, name) for name in names}
    save(releases, tmp_path / "streamed")
    save_tensors(tmp_path / "whole", tensors, metadata={"round": "1"})
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("given", [3, 5])
def test_blocks_that_do_not_add_up_leave_no_file(tmp_path: Path, given: int) -> None:
    with pytest.raises(ValueError, match=rf"{8 * given + 72} bytes were given, not 104"):
        stream_tensors(
            tmp_path / "counts", {"counts": Column(torch.int64, (4,), [torch.arange(given)])}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_streaming_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "round-0001.safetensors"
    save(round_of(20), path)
    before, blocks = path.read_bytes(), iter(range(3))

    def full(*_: object) -> None:
        if next(blocks, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dpsd.storage.files.write_block", full)
    with pytest.raises(RunError, match=r"No space left.*free some space.*intact"):
        save(round_of(20, start=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("when", ["writing", "syncing"])
def test_a_full_disk_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path = tmp_path / "tensors.safetensors"
    save_tensors(path, {"tensor": torch.ones(3)})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        "dpsd.storage.files.save_file" if when == "writing" else "dpsd.storage.files.os.fsync", full
    )
    with pytest.raises(DiskFullError, match=r"No space left.*free some space.*intact"):
        save_tensors(path, {"tensor": torch.zeros(3)})
    assert load_file(path)["tensor"].equal(torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_known_by_what_safetensors_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its errors are not the system's, and have the number in their text alone."""
    quoted = "Error while serializing: I/O error: {} (os error {})"

    def refuse(text: str, number: int) -> None:
        def fail(*_: object, **__: object) -> None:
            raise SafetensorError(quoted.format(text, number))

        monkeypatch.setattr("dpsd.storage.files.save_file", fail)

    refuse("No space left on device", errno.ENOSPC)
    with pytest.raises(DiskFullError, match="free some space"):
        save_tensors(tmp_path / "a", {"tensor": torch.ones(1)})
    refuse("Permission denied", errno.EACCES)
    with pytest.raises(WriteError, match="fix the permissions") as caught:
        save_tensors(tmp_path / "a", {"tensor": torch.ones(1)})
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("read", [load_tensors, open_tensors])
def test_a_file_that_may_not_be_read_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "tensors.safetensors"
    save_tensors(path, {"tensor": torch.ones(3)})

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # the user of a test may read everything
    with pytest.raises(PermissionError, match="Permission denied"):
        read(path)


def test_a_place_that_is_no_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere" / "note.txt", tmp_path / "file" / "note.txt"):
        with pytest.raises(RunError, match="could not be written"):
            write_text(path, "text")
        with pytest.raises(RunError, match="could not be written"):
            save_tensors(path, {"tensor": torch.zeros(1)})


def test_releases_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "round-0003.safetensors"
    stored = round_of(11, index=3)
    save(stored, path)
    loaded = RoundReleases.load(path, index=3)
    assert loaded.index == 3
    assert len(loaded) == 11
    for name in ("queries", "prior", "predicted", "source", "release", "asked"):
        found, expected = getattr(loaded, name), getattr(stored, name)
        assert found.dtype == expected.dtype
        assert found.equal(expected)


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.99])
def test_truncated_releases_are_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "round-0001.safetensors"
    save(round_of(50), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(RunError, match=r"releases .*round-0001\.safetensors cannot be read"):
        RoundReleases.load(path, index=1)


def test_releases_that_are_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "round-0001.safetensors"
    save_tensors(path, {"weight": torch.zeros(3)})
    with pytest.raises(RunError, match="cannot be read"):
        RoundReleases.load(path, index=1)
    with pytest.raises(RunError, match="cannot be read"):
        RoundReleases.load(tmp_path / "missing.safetensors", index=1)


@st.composite
def replays_with_rows(draw: st.DrawFn) -> tuple[list[int], Tensor, int]:
    counts = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    rows = draw(st.lists(st.integers(0, sum(counts) - 1), min_size=1, max_size=60))
    return counts, torch.tensor(rows), draw(st.integers(1, 20))


@settings(max_examples=150, deadline=None)
@given(replays_with_rows())
def test_batches_hold_the_rows_asked_for(case: tuple[list[int], Tensor, int]) -> None:
    counts, rows, batch_size = case
    replay = Replay()
    for index, count in enumerate(counts, start=1):
        replay.append(round_of(count, index=index, start=len(replay)))
    assert len(replay) == sum(counts)
    batches = list(replay.batches(rows, batch_size=batch_size))
    assert [len(batch.release) for batch in batches] == [
        len(part) for part in rows.split(batch_size)
    ]
    for batch, wanted in zip(batches, rows.split(batch_size), strict=True):
        assert batch.release.sort().values.equal(wanted.sort().values)
        assert batch.queries[:, 0, 0, 0].equal((batch.release % 256).to(torch.uint8))
        assert batch.prior[:, 0].equal((batch.release % 7).half())


@settings(max_examples=60, deadline=None)
@given(replays_with_rows())
def test_shares_travel_with_the_rows_of_their_round(case: tuple[list[int], Tensor, int]) -> None:
    counts, rows, batch_size = case
    replay = Replay()
    origin = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    for index, count in enumerate(counts, start=1):
        # The second round is one whose shares are not known.
        shares = None if index == 2 else [index / 10, 0.1, 0.9 - index / 10]
        replay.append(round_of(count, index=index, start=len(replay)), shares=shares)
    for batch in replay.batches(rows, batch_size=batch_size):
        rounds = origin[batch.release] + 1
        first = torch.where(rounds == 2, torch.tensor(1 / 3), rounds / 10)
        assert batch.shares.shape == (len(batch.release), 3)
        torch.testing.assert_close(batch.shares[:, 0], first)
        torch.testing.assert_close(batch.shares.sum(-1), torch.ones(len(rounds)))


def test_rounds_given_at_once_have_equal_shares() -> None:
    (batch,) = Replay([round_of(4)]).batches(torch.arange(4), batch_size=4)
    torch.testing.assert_close(batch.shares, torch.full((4, 3), 1 / 3))


def test_a_file_that_was_cut_off_while_it_is_learned_from_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "round-0001.safetensors"
    save(round_of(50), path)
    loaded = RoundReleases.load(path, index=1)
    assert loaded.images(torch.tensor([3, 49, 7])).equal(loaded.queries[[3, 49, 7]])
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 51)  # all sources, and a pixel of the last query
    with pytest.raises(RunError, match=r"releases .* cannot be read: it was cut off"):
        list(Replay([loaded]).batches(torch.arange(50), batch_size=50))


def test_what_is_stored_is_read_the_same_when_it_is_mapped_anew(tmp_path: Path) -> None:
    stored, in_memory = [], []
    for index, (count, start) in enumerate(((300, 0), (500, 300)), start=1):
        part = round_of(count, index=index, start=start)
        save(part, tmp_path / f"{index}.safetensors")
        stored.append(RoundReleases.load(tmp_path / f"{index}.safetensors", index=index))
        in_memory.append(part)
    rows = torch.randint(800, (1_300,), generator=torch.Generator().manual_seed(0))
    replay = Replay(stored)
    pairs = zip(
        replay.batches(rows, batch_size=2),
        Replay(in_memory).batches(rows, batch_size=2),
        strict=True,
    )
    for one, other in pairs:
        assert one.release.equal(other.release)
        assert one.queries.equal(other.queries)
    assert replay.rounds[0] is not stored[0]  # 650 batches: mapped anew three times

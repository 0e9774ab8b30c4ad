"""Shards are disjoint, dealt by position alone, and cannot be quietly changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dpsd.errors import DataError, TeacherError
from dpsd.teachers.sharding import SHARDS_FILE, Shards, distinct_rows, record_digests


def images(count: int) -> torch.Tensor:
    return torch.arange(count).view(count, 1, 1, 1).expand(count, 1, 2, 2).to(torch.uint8)


@given(count=st.integers(4, 200), data=st.data())
def test_every_record_is_in_one_shard_and_sizes_are_even(count: int, data: st.DataObject) -> None:
    teachers = data.draw(st.integers(2, count // 2))
    rows = Shards.assign(images(count), teachers=teachers, seed=0).rows()
    assert sorted(torch.cat(rows).tolist()) == list(range(count))
    sizes = [len(part) for part in rows]
    assert len(sizes) == teachers
    assert max(sizes) - min(sizes) <= 1


def test_replacing_a_record_moves_no_other() -> None:
    before = images(60)
    after = before.clone()
    after[17] = 200
    dealt, dealt_again = (Shards.assign(x, teachers=7, seed=3) for x in (before, after))
    assert dealt.shard.equal(dealt_again.shard)
    assert not dealt.shard.equal(Shards.assign(before, teachers=7, seed=4).shard)


def test_a_record_in_two_shards_is_refused() -> None:
    same = images(20)
    same[11] = same[3]
    dealt = [torch.randperm(20, generator=torch.Generator().manual_seed(s)) % 2 for s in range(9)]
    assert {bool(shard[11] == shard[3]) for shard in dealt} == {True, False}
    key = b"k"
    for shard in dealt:
        digests = record_digests(same, key)
        if shard[11] == shard[3]:  # then both are one teacher's alone
            Shards(shard=shard.int(), digests=digests, key=key)
            continue
        with pytest.raises(DataError, match=r"2 of 20 records.*--drop-duplicates"):
            Shards(shard=shard.int(), digests=digests, key=key)
    kept = distinct_rows(same)
    assert len(kept) == 19
    Shards.assign(same[kept], teachers=9, seed=0)


@pytest.mark.parametrize("teachers", [0, 1, 11, 500])
def test_shards_of_less_than_two_records_are_refused(teachers: int) -> None:
    with pytest.raises(DataError, match=f"shards is {teachers}, but 20 records"):
        Shards.assign(images(20), teachers=teachers, seed=0)


def test_stored_shards_are_checked_again(tmp_path: Path) -> None:
    dealt = Shards.assign(images(30), teachers=3, seed=0)
    dealt.save(tmp_path)
    assert Shards.load(tmp_path).shard.equal(dealt.shard)
    path = tmp_path / SHARDS_FILE
    tensors = load_file(path)
    first, second = (int((dealt.shard == shard).nonzero()[0]) for shard in (0, 1))
    tensors["digests"][first] = tensors["digests"][second]
    save_file(tensors, path, metadata={"key": dealt.key.hex()})
    with pytest.raises(TeacherError, match="more than one shard"):
        Shards.load(tmp_path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(TeacherError, match="cannot be read"):
        Shards.load(tmp_path)
    path.unlink()
    with pytest.raises(TeacherError, match="nobody can check"):
        Shards.load(tmp_path)


def test_hashes_do_not_repeat_between_ensembles() -> None:
    one, other = (Shards.assign(images(10), teachers=2, seed=0) for _ in range(2))
    assert not one.digests.equal(other.digests)
    assert record_digests(images(10), one.key).equal(one.digests)

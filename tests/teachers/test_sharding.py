"""Shards are disjoint, dealt by what identifies a record alone, and cannot be quietly changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dpsd.datasets import LabelledImages
from dpsd.errors import DataError, TeacherError
from dpsd.teachers.sharding import SHARDS_FILE, Shards, distinct_rows, record_digests


def records(values: list[int], names: list[str] | None = None) -> LabelledImages:
    """A record for each value, which is all that its image shows."""
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return LabelledImages(
        images=images.contiguous(),
        labels=torch.zeros(len(values), dtype=torch.int64),
        class_names=("a", "b"),
        name="values",
        split="train",
        names=None if names is None else tuple(names),
    )


def contents(data: LabelledImages, shards: Shards) -> list[list[int]]:
    """What each teacher sees, and how often."""
    return [sorted(data.images[rows, 0, 0, 0].tolist()) for rows in shards.rows()]


def changed(one: list[list[int]], other: list[list[int]]) -> set[int]:
    return {i for i, (before, after) in enumerate(zip(one, other, strict=True)) if before != after}


@given(count=st.integers(4, 200), data=st.data())
def test_every_record_is_in_one_shard_and_sizes_are_even(count: int, data: st.DataObject) -> None:
    teachers = data.draw(st.integers(2, count // 2))
    rows = Shards.assign(records(list(range(count))), teachers=teachers, seed=0).rows()
    assert sorted(torch.cat(rows).tolist()) == list(range(count))
    sizes = [len(part) for part in rows]
    assert len(sizes) == teachers
    assert max(sizes) - min(sizes) <= 1


def test_replacing_a_record_moves_no_other() -> None:
    before = list(range(60))
    after = [*before[:17], 200, *before[18:]]
    dealt, dealt_again = (Shards.assign(records(x), teachers=7, seed=3) for x in (before, after))
    assert dealt.shard.equal(dealt_again.shard)
    assert not dealt.shard.equal(Shards.assign(records(before), teachers=7, seed=4).shard)


@pytest.mark.parametrize("named", [False, True])
@given(data=st.data())
def test_a_replaced_record_reaches_its_own_shard_and_that_of_an_equal_one(
    named: bool, data: st.DataObject
) -> None:
    """With duplicates dropped: the cases that docs/many-teachers.md counts, and no others."""
    values = data.draw(st.lists(st.integers(0, 40), min_size=8, max_size=60))
    place = data.draw(st.integers(0, len(values) - 1))
    new = data.draw(st.integers(0, 60))
    seed, teachers = data.draw(st.integers(0, 9)), data.draw(st.integers(2, len(values) // 2))
    names = [f"c/{i}.png" for i in range(len(values))] if named else None
    replaced = [*values[:place], new, *values[place + 1 :]]
    worlds = [records(some, names) for some in (values, replaced)]
    dealt = [
        Shards.assign(world, teachers=teachers, seed=seed, drop_duplicates=True) for world in worlds
    ]
    moved = changed(*(contents(world, shards) for world, shards in zip(worlds, dealt, strict=True)))

    rest = [*values[:place], None, *values[place + 1 :]]
    allowed = {int(dealt[0].shard[place])}
    equals = [value for value in (values[place], new) if value in rest]
    # The first of those that are equal to the old record steps in; of those to the new, steps out.
    allowed |= {int(dealt[0].shard[rest.index(value)]) for value in equals}
    assert moved <= allowed
    assert len(moved) <= 1 + len(equals)


@given(data=st.data())
def test_another_name_moves_that_record_alone(data: st.DataObject) -> None:
    count = data.draw(st.integers(8, 60))
    names = [f"c/{i:03d}.png" for i in range(count)]
    place = data.draw(st.integers(0, count - 1))
    teachers = data.draw(st.integers(2, count // 2))
    before = Shards.assign(records(list(range(count)), names), teachers=teachers, seed=0)
    # Under its new name it is the first of all in the folder, so everybody's row is another.
    order = [place, *(i for i in range(count) if i != place)]
    renamed = ["c/000-first.png", *(names[i] for i in order[1:])]
    after = Shards.assign(records(order, renamed), teachers=teachers, seed=0)
    assert before.shard[order[1:]].equal(after.shard[1:])


@given(data=st.data())
def test_with_or_without_a_named_record_one_shard_differs(data: st.DataObject) -> None:
    """Names are dealt one by one, so a record may also come or go."""
    count = data.draw(st.integers(9, 60))
    names = [f"c/{i}.png" for i in range(count)]
    place = data.draw(st.integers(0, count - 1))
    teachers = data.draw(st.integers(2, (count - 1) // 2))
    left = [i for i in range(count) if i != place]
    worlds = [records(list(range(count)), names), records(left, [names[i] for i in left])]
    dealt = [Shards.assign(world, teachers=teachers, seed=0) for world in worlds]
    seen = [contents(world, shards) for world, shards in zip(worlds, dealt, strict=True)]
    assert changed(*seen) == {int(dealt[0].shard[place])}


@given(data=st.data())
def test_a_persons_records_reach_one_teacher(data: st.DataObject) -> None:
    """However many they are, and whatever is put in their place, in whatever number."""
    persons = data.draw(st.lists(st.integers(0, 9), min_size=8, max_size=60))
    if len(set(persons)) < 4:
        return
    who = data.draw(st.sampled_from(persons))
    teachers = data.draw(st.integers(2, len(set(persons)) // 2))
    keep = [i for i, person in enumerate(persons) if person != who]
    new = data.draw(st.integers(1, 9))
    worlds = [records(list(range(len(persons)))), records([*keep, *range(100, 100 + new)])]
    whose = [persons, [*(persons[i] for i in keep), *[who] * new]]
    dealt = [
        Shards.assign(world, teachers=teachers, seed=1, persons=[f"p{i}" for i in own])
        for world, own in zip(worlds, whose, strict=True)
    ]
    for shards, own in zip(dealt, whose, strict=True):
        assert shards.persons == len(set(own))
        for person in set(own):
            assert len(shards.shard[torch.tensor(own) == person].unique()) == 1
    seen = [contents(world, shards) for world, shards in zip(worlds, dealt, strict=True)]
    assert changed(*seen) == {int(dealt[0].shard[persons.index(who)])}


def test_a_record_in_two_shards_is_refused() -> None:
    same = [*range(11), 3, *range(12, 20)]
    seeds = range(9)
    shard = Shards.assign(records(list(range(20))), teachers=2, seed=0).shard
    outcomes = set()
    for seed in seeds:
        shard = Shards.assign(records(list(range(20))), teachers=2, seed=seed).shard
        together = bool(shard[11] == shard[3])
        outcomes.add(together)
        if together:  # then both are one teacher's alone
            Shards.assign(records(same), teachers=2, seed=seed)
            continue
        with pytest.raises(DataError, match=r"2 of 20 records.*--drop-duplicates"):
            Shards.assign(records(same), teachers=2, seed=seed)
        kept = Shards.assign(records(same), teachers=2, seed=seed, drop_duplicates=True)
        assert (kept.records, kept.kept[11].item()) == (19, False)
    assert outcomes == {True, False}
    assert len(distinct_rows(records(same).images)) == 19
    persons = [str(i) for i in range(20)]
    with pytest.raises(DataError, match="the same image under two persons"):
        Shards.assign(records([0] * 20), teachers=2, seed=0, persons=persons)


@pytest.mark.parametrize("teachers", [0, 1, 11, 500])
def test_shards_of_less_than_two_records_are_refused(teachers: int) -> None:
    with pytest.raises(DataError, match=f"shards is {teachers}, but 20 records"):
        Shards.assign(records(list(range(20))), teachers=teachers, seed=0)
    persons = [str(i // 2) for i in range(40)]
    with pytest.raises(DataError, match=f"shards is {teachers}, but 20 persons"):
        Shards.assign(records(list(range(40))), teachers=teachers, seed=0, persons=persons)


def test_whether_shards_are_refused_depends_on_no_duplicate() -> None:
    """How many shards there may be follows from the number of records before any is dropped."""
    shards = Shards.assign(records([1] * 20), teachers=10, seed=0, drop_duplicates=True)
    assert shards.records == 1
    assert [len(rows) for rows in shards.rows()].count(0) == 9
    assert shards.teachers == 10


def test_stored_shards_are_checked_again(tmp_path: Path) -> None:
    persons = [str(i // 2) for i in range(30)]
    dealt = Shards.assign(records([*range(29), 0]), teachers=3, seed=0, drop_duplicates=True)
    dealt.save(tmp_path)
    stored = Shards.load(tmp_path)
    assert stored.shard.equal(dealt.shard)
    assert stored.kept.equal(dealt.kept)
    assert (stored.records, stored.teachers, stored.dealt_by) == (29, 3, "position")
    Shards.assign(records(list(range(30))), teachers=3, seed=0, persons=persons).save(tmp_path)
    stored = Shards.load(tmp_path)
    assert (stored.persons, stored.dealt_by) == (15, "person")
    path = tmp_path / SHARDS_FILE
    tensors = load_file(path)
    first, second = (int((stored.shard == shard).nonzero()[0]) for shard in (0, 1))
    tensors["digests"][first] = tensors["digests"][second]
    save_file(tensors, path, metadata={"key": stored.key.hex()})
    with pytest.raises(TeacherError, match="more than one shard"):
        Shards.load(tmp_path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(TeacherError, match="cannot be read"):
        Shards.load(tmp_path)
    path.unlink()
    with pytest.raises(TeacherError, match="nobody can check"):
        Shards.load(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        {"kept": torch.ones(3, dtype=torch.bool)},
        {"kept": torch.ones(30, dtype=torch.uint8)},
        {"shard": torch.zeros(30)},
        {"shard": torch.full((30,), 3, dtype=torch.int32)},
        {"shard": torch.zeros(0, dtype=torch.int32)},
        {"digests": torch.zeros(30, 8, dtype=torch.uint8)},
        {"teachers": "2"},
        {"teachers": "99999999999999999999999999"},
        {"persons": "7"},
        {"dealt_by": "person"},
        {"dealt_by": "colour"},
    ],
)
def test_damaged_shards(tmp_path: Path, damage: dict[str, object]) -> None:
    Shards.assign(records(list(range(30))), teachers=3, seed=0).save(tmp_path)
    path = tmp_path / SHARDS_FILE
    tensors, facts = load_file(path), {"key": "00", "teachers": "3", "dealt_by": "name"}
    for name, value in damage.items():
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        else:
            facts[name] = str(value)
    save_file(tensors, path, metadata=facts)
    with pytest.raises(TeacherError, match=r"shards\.safetensors"):
        Shards.load(tmp_path)


def test_hashes_do_not_repeat_between_ensembles() -> None:
    data = records(list(range(10)))
    one, other = (Shards.assign(data, teachers=2, seed=0) for _ in range(2))
    assert not one.digests.equal(other.digests)
    assert record_digests(data.images, one.key).equal(one.digests)


def test_parts_of_shards_must_fit() -> None:
    dealt = Shards.assign(records(list(range(10))), teachers=2, seed=0)
    with pytest.raises(DataError, match="do not fit together"):
        replace(dealt, teachers=1)

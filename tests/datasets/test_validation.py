"""Validation: the publishers' split, or training records held out by what identifies them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpsd.datasets import LabelledImages, has_validation, load_dataset, load_training
from dpsd.datasets.validation import held_out_rows, hold_out
from dpsd.errors import ConfigError, DataError
from dpsd.teachers.dealing import deal_names, deal_positions

NAMES = tuple(f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(200))


def numbered(count: int = 400, **more: object) -> LabelledImages:
    """Images that are all different: each is the number of its record."""
    images = torch.arange(count, dtype=torch.int32).view(torch.uint8).view(count, 1, 2, 2)
    data = LabelledImages(
        images=images,
        labels=torch.arange(count) % 2,
        class_names=("cat", "dog"),
        name="own.npz",
        split="train",
    )
    return replace(data, **more)  # type: ignore[arg-type]


def numbers(data: LabelledImages) -> set[int]:
    return set(data.images.flatten(1).contiguous().view(torch.int32).flatten().tolist())


@pytest.mark.parametrize("names", [None, NAMES])
@given(shares=st.tuples(st.floats(0.02, 0.9), st.floats(0.02, 0.9)))
def test_a_larger_share_contains_a_smaller_and_nothing_is_lost(
    names: tuple[str, ...] | None, shares: tuple[float, float]
) -> None:
    data = numbered(names=names)
    small, large = (hold_out(data, share) for share in sorted(shares))
    assert numbers(small[1]) <= numbers(large[1])
    for training, validation in (small, large):
        assert not numbers(training) & numbers(validation)
        assert len(training) + len(validation) == len(data)
        assert (training.split, validation.split) == ("train", "validation")
        # Each record keeps its label and its name.
        for part in (training, validation):
            rows = part.images.flatten(1).contiguous().view(torch.int32).flatten().long()
            assert part.labels.equal(data.labels[rows])
            assert names is None or part.names == tuple(names[row] for row in rows.tolist())


@pytest.mark.parametrize("names", [None, NAMES])
def test_no_content_and_no_label_decides_what_is_held_out(names: tuple[str, ...] | None) -> None:
    data = numbered(names=names)
    before = numbers(hold_out(data, 0.3)[1])
    _, after = hold_out(replace(data, labels=1 - data.labels), 0.3)
    assert numbers(after) == before
    for row in (min(before), min(numbers(data) - before)):  # one on each side
        images = data.images.clone()
        images[row] = 255
        _, other = hold_out(replace(data, images=images), 0.3)
        assert numbers(other) - {-1} == before - {row}
        assert len(other) == len(before)


def test_files_of_one_name_in_two_classes_are_on_one_side() -> None:
    """So that a label, which is the folder's name, has no say."""
    training, validation = hold_out(numbered(names=NAMES), 0.3)
    sides = [
        {name.partition("/")[2] for name in part.names or ()} for part in (training, validation)
    ]
    assert not sides[0] & sides[1]


def test_a_record_that_is_removed_or_added_moves_no_other() -> None:
    named = numbered(names=NAMES)
    before = set(hold_out(named, 0.3)[1].names or ())
    after = set(hold_out(named.subset(torch.arange(399)), 0.3)[1].names or ())
    assert after == before - {NAMES[399]}
    assert numbers(hold_out(numbered(399), 0.3)[1]) == numbers(hold_out(numbered(), 0.3)[1]) - {399}


def test_a_person_is_never_on_both_sides() -> None:
    persons = tuple(f"person {number // 5}" for number in range(400))
    for names in (None, NAMES):
        training, validation = hold_out(numbered(names=names, persons=persons), 0.2)
        assert training.persons
        assert validation.persons
        assert not set(training.persons) & set(validation.persons)


def test_the_rule_is_the_same_for_ever() -> None:
    """Otherwise, teachers on disk would be measured on what they were trained on."""
    named, rows = hold_out(numbered(names=NAMES), 0.3)[1], hold_out(numbered(), 0.3)[1]
    digests = [
        hashlib.sha256(repr(sorted(numbers(part))).encode()).hexdigest()[:16]
        for part in (named, rows)
    ]
    assert digests == ["1fad29150a54bd8b", "3b78bc57ecb805c6"]
    assert held_out_rows(400, 0.3) == len(rows)


def test_what_is_held_out_is_independent_of_the_deal() -> None:
    """The shares held out of 20 shards scatter as they would by chance."""
    count, shards, share = 20_000, 20, 0.1
    data = replace(numbered(count), images=torch.zeros(count, 1, 1, 1, dtype=torch.uint8))
    words = tuple(f"a/{number}" for number in range(count))
    for names, shard in (
        (None, deal_positions(count, teachers=shards, seed=0)),
        (words, deal_names(words, teachers=shards, seed=0)),
    ):
        # Only the remaining records are dealt; here, all are, to see where those held out would be.
        classes = tuple(map(str, range(count)))
        marked = replace(data, names=names, labels=torch.arange(count), class_names=classes)
        held = hold_out(marked, share)[1].labels
        found = torch.bincount(shard[held].long(), minlength=shards).double()
        expected = torch.bincount(shard.long(), minlength=shards).double() * share
        chi_squared = float(((found - expected) ** 2 / (expected * (1 - share))).sum())
        assert 4 < chi_squared < 56  # both tails are below 1e-4


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_senseless_shares_are_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        hold_out(numbered(), share)
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        load_dataset("digits", "train", validation_share=share)


def test_a_part_without_records_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"validation_share 0\.001 of the 4 .* leaves 0 for vali"):
        hold_out(numbered(4), 0.001)
    with pytest.raises(ConfigError, match="and 0 for training; choose another"):
        hold_out(numbered(4), 0.99)


def test_a_data_set_without_validation_needs_a_share() -> None:
    with pytest.raises(ConfigError, match=r"no validation split of its own: .*validation_share"):
        load_dataset("digits", "validation")
    whole = load_dataset("digits", "train")
    training, validation = load_training("digits", validation_share=0.2)
    assert validation is not None
    assert len(training) + len(validation) == len(whole)
    assert training.validation_share == validation.validation_share == 0.2
    assert load_dataset("digits", "validation", validation_share=0.2).images.equal(
        validation.images
    )
    # The test split is what it was.
    assert load_dataset("digits", "test", validation_share=0.2).validation_share == 0


@pytest.fixture
def published(tmp_path: Path) -> str:
    """Arrays of which each split shows a colour of its own."""
    arrays: dict[str, Any] = {
        f"{split}_{what}": np.full((4, 8, 8), colour, np.uint8)
        if what == "images"
        else np.arange(4) % 2
        for split, colour in (("train", 10), ("val", 20), ("test", 30))
        for what in ("images", "labels")
    }
    arrays["train_person"] = np.array(["a", "a", "b", "b"])
    np.savez(tmp_path / "own.npz", **arrays)
    return str(tmp_path / "own.npz")


def test_a_published_validation_split_is_kept_and_nothing_held_out(published: str) -> None:
    assert has_validation(published)
    training, validation = load_training(
        published, validation_share=0.5, group_by="array:train_person"
    )
    assert validation is not None
    assert set(training.images.unique().tolist()) == {10}
    assert set(validation.images.unique().tolist()) == {20}
    assert (len(training), len(validation), validation.split) == (4, 4, "validation")
    assert training.validation_share == validation.validation_share == 0
    assert training.persons == ("a", "a", "b", "b")
    assert not has_validation("digits")
    assert not has_validation("absent.npz")


def test_labels_of_published_validation_must_be_those_of_the_others(
    published: str, tmp_path: Path
) -> None:
    arrays = dict(np.load(published)) | {"val_labels": np.array([0, 1, 2, 0])}
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(DataError, match="label 2, but there are 2 classes"):
        load_dataset(published, "validation")


def test_a_folder_val_is_for_validation_beside_a_folder_test(tmp_path: Path) -> None:
    for part, grey in (("train", 10), ("val", 20)):
        (tmp_path / part / "a").mkdir(parents=True)
        for number in range(8):
            Image.new("L", (8, 8), grey).save(tmp_path / part / "a" / f"{number}.png")
    name = f"folder:{tmp_path}"
    # Without a test split, it is the test split, and validation is held out.
    assert not has_validation(name)
    assert load_dataset(name, "test").images.unique().tolist() == [20]
    held = load_dataset(name, "validation", validation_share=0.5)
    assert held.images.unique().tolist() == [10]
    (tmp_path / "test/a").mkdir(parents=True)
    Image.new("L", (8, 8), 30).save(tmp_path / "test/a/1.png")
    assert has_validation(name)
    assert load_dataset(name, "validation").images.unique().tolist() == [20]
    assert load_dataset(name, "test").images.unique().tolist() == [30]
    assert len(load_dataset(name, "train", validation_share=0.5)) == 8


def test_persons_are_held_out_together(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / "train/a").mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(tmp_path / f"train/a/p{number // 4}_{number}.png")
    training, validation = load_training(
        f"folder:{tmp_path}", validation_share=0.3, group_by=r"re:^(p\d+)_"
    )
    assert validation is not None
    assert set(training.persons or ()) | set(validation.persons or ()) == {
        f"p{number}" for number in range(10)
    }
    assert len(training) % 4 == len(validation) % 4 == 0

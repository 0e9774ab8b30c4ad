"""Canaries are mislabelled and in half of the trainings, all others always, at the same places."""

from __future__ import annotations

import pytest
import torch

from dpsd.attacks.membership.splits import PairedCanaries, Split
from dpsd.datasets import LabelledImages, load_dataset
from dpsd.errors import ConfigError


@pytest.fixture(scope="module")
def members() -> LabelledImages:
    return load_dataset("digits", "train")


def drawn(members: LabelledImages, canaries: int | None = 50, seed: int = 0) -> Split:
    return Split.of(members, shadows=8, records=400, canaries=canaries, seed=seed)


def test_canaries_have_wrong_labels_and_all_others_their_own(members: LabelledImages) -> None:
    split = drawn(members)
    same = (split.pool.images.flatten(1).unsqueeze(1) == members.images.flatten(1)).all(-1)
    truth = members.labels[same.int().argmax(1)]
    assert (split.pool.labels != truth).nonzero().flatten().tolist() == split.scored.tolist()


def test_every_other_record_is_in_every_training(members: LabelledImages) -> None:
    split = drawn(members)
    for shadow in range(8):
        inside = int(split.is_in[shadow].sum())
        assert len(split.training(shadow)) == 350 + inside


def test_shadows_of_a_pair_are_trained_on_complementary_halves(members: LabelledImages) -> None:
    is_in = drawn(members).membership
    assert (is_in[::2] ^ is_in[1::2]).all()
    assert (is_in.sum(1) == 25).all()
    # Each pair has halves of its own.
    assert len({pair.tobytes() for pair in is_in[::2]}) == 4


def test_without_canaries_every_record_keeps_its_label(members: LabelledImages) -> None:
    split = drawn(members, canaries=None)
    assert len(split.scored) == len(split.pool) == 400
    parts = [split.training(shadow) for shadow in (0, 1)]
    assert sum(map(len, parts)) == 400
    everything = torch.cat([part.images for part in parts]).flatten(1)
    assert torch.equal(everything.unique(dim=0), split.pool.images.flatten(1).unique(dim=0))


def test_a_seed_decides_everything(members: LabelledImages) -> None:
    first, again, other = drawn(members), drawn(members), drawn(members, seed=1)
    assert torch.equal(first.pool.labels, again.pool.labels)
    assert torch.equal(first.is_in, again.is_in)
    assert not torch.equal(first.is_in, other.is_in)


def test_one_of_each_pair_is_in_at_the_same_place(members: LabelledImages) -> None:
    both = [
        PairedCanaries.of(members, records=300, pairs=40, seed=0),
        PairedCanaries.of(members, records=300, pairs=40, seed=0),
    ]
    for canaries in both:
        assert len(canaries.training) == 300 - 40
        rows = canaries.training.images.flatten(1)
        for one, is_in in (
            (canaries.first, canaries.is_first),
            (canaries.second, ~canaries.is_first),
        ):
            there = (one.images.flatten(1).unsqueeze(1) == rows).all(-1)
            labelled = there & (one.labels.unsqueeze(1) == canaries.training.labels)
            assert torch.equal(labelled.any(1), is_in)
    assert 10 < int(both[0].is_first.sum()) < 30


def test_at_most_half_of_the_records_become_canaries(members: LabelledImages) -> None:
    assert len(drawn(members, canaries=10_000).scored) == 200
    canaries = PairedCanaries.of(members, records=300, pairs=10_000, seed=0)
    assert len(canaries.first) == 75


def test_an_attack_without_canaries_is_refused(members: LabelledImages) -> None:
    with pytest.raises(ConfigError, match="canaries are 0"):
        drawn(members, canaries=0)
